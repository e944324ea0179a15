"""Receive HighLevel (GHL) webhooks without loss and publish business KPIs to Prometheus."""

__version__ = "0.1.0"
