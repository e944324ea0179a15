"""What the outside sees: /metrics, the landing page, health and readiness."""
