"""Erase a location: its rows in PostgreSQL and its keys in Redis."""
