"""The settings that facts depend on, and a fingerprint of them: a change needs a rebuild."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from exporter.settings import Settings

# Counted up whenever the same events would give other facts than before.
PROJECTION_VERSION = 4


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@dataclass(frozen=True)
class FactSettings:
    """The settings that facts depend on."""

    locations: frozenset[str]
    time_zones: Mapping[str, str]
    pipeline_stages: Mapping[str, str]
    automated_users: frozenset[str]
    automated_sources: frozenset[str]
    showing_calendars: frozenset[str]
    attribution: timedelta
    webhook_timeout: timedelta

    @classmethod
    def from_settings(cls, settings: Settings) -> "FactSettings":
        """Select the settings that facts depend on."""
        return cls(
            locations=settings.ghl_location_id,
            time_zones=settings.time_zones,
            pipeline_stages=settings.pipeline_stages,
            automated_users=settings.automated_users,
            automated_sources=settings.automated_sources,
            showing_calendars=settings.showing_calendars,
            attribution=timedelta(days=settings.attribution_days),
            webhook_timeout=timedelta(milliseconds=settings.webhook_processing_timeout),
        )

    def fingerprint(self) -> str:
        """Return a digest that differs whenever facts could differ."""
        parts = {
            name: value.total_seconds()
            if isinstance(value, timedelta)
            else sorted(value.items() if isinstance(value, Mapping) else value)
            for name, value in vars(self).items()
        }
        text = json.dumps([PROJECTION_VERSION, parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def zone(self, location_id: str) -> ZoneInfo:
        """Return the time zone of a location's reporting days (UTC unless set)."""
        name = self.time_zones.get(location_id) or self.time_zones.get("*") or "UTC"
        return _zone(name)

    def day(self, location_id: str, time: datetime | None) -> date | None:
        """Return the reporting day of a moment."""
        return None if time is None else self.known_day(location_id, time)

    def known_day(self, location_id: str, time: datetime) -> date:
        """Return the reporting day of a moment that is known."""
        return time.astimezone(self.zone(location_id)).date()

    def reports_on(self, location_id: str) -> bool:
        """Return whether events of this location become facts."""
        return not self.locations or location_id in self.locations
