"""The running service: compose the parts, listen, lead, sample, and stop in order."""
