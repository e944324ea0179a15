"""What boards and alerts ask for again and again, computed once for each evaluation."""
