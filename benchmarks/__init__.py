"""Commands that print how fast the service is, beside something measured in the same run."""
