"""Windows: the last N reporting days of a location, up to a day, that day included."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple

from exporter.settings import Settings

# What /metrics exports, in days.
EXPORTED_DAYS = (1, 7, 30, 90)


class Window(NamedTuple):
    """One location's window. `name` is the label's value, `7d` say."""

    location_id: str
    name: str
    first_day: date
    last_day: date


def today(settings: Settings, location_id: str, now: datetime) -> date:
    """Return the calendar day of an instant in a location's time zone."""
    return now.astimezone(settings.zone(location_id)).date()


def windows(
    settings: Settings,
    locations: Iterable[str],
    *,
    now: datetime,
    until: date | None = None,
    days: Iterable[int] = EXPORTED_DAYS,
) -> list[Window]:
    """Return the windows of each location that end at `until` (default: its today)."""
    result = []
    for location_id in locations:
        last = until or today(settings, location_id, now)
        for count in days:
            result.append(Window(location_id, f"{count}d", last - timedelta(count - 1), last))
    return result
