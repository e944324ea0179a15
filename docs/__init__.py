"""What writes pages and pictures."""
