"""The commands of `ghl-exporter` that work on the database and the settings, and end."""
