"""Live metrics of the service itself; every step records into them, /metrics exposes them."""
