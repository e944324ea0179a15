"""Durable storage before the answer: group commit to PostgreSQL, a local spool when it is away."""
