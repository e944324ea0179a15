"""Settings from the environment, `.env` and secret files, validated before anything starts."""

from exporter.settings.faults import Fault, SettingsError
from exporter.settings.model import (
    FALLBACKS,
    SECRETS,
    Loaded,
    Settings,
    examine_settings,
    load_settings,
)

__all__ = [
    "FALLBACKS",
    "SECRETS",
    "Fault",
    "Loaded",
    "Settings",
    "SettingsError",
    "examine_settings",
    "load_settings",
]
