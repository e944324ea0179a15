"""Helpers that know nothing of GHL: tasks, logs, error texts, files."""
