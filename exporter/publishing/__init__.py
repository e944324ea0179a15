"""Publish figures and state: /metrics, landing page, runbooks, the day's figures in Redis."""
