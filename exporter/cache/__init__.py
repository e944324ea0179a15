"""Redis (or Valkey), a cache that can vanish at any moment: slower without it, never wrong."""
