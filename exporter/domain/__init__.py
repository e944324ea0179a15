"""Names and shapes of what GHL and the AI platform send, and of what is computed from it."""
