"""`ghl-exporter validate`: try everything end to end, and hold its speed against the targets."""
