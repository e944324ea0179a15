"""The way in: check a webhook's signature, bound it, hand its raw bytes to the inbox."""
