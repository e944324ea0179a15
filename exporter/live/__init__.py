"""What the service counts and times as it happens: every step writes it, /metrics shows it."""
