"""The day's figures in Redis, for the platform to read in one step: absolute values, never counted.

They are set again and again, and expire soon: a flushed Redis is filled again, and where nobody
sets them any more there is no value rather than an old one.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import orjson
from redis.asyncio.client import Pipeline

from exporter.bundle import bundled
from exporter.cache.redis import Cache
from exporter.database.connect import Connection
from exporter.kpis.refresh import reported_locations
from exporter.settings import Settings
from exporter.stages import STAGES
from exporter.tracking import INTERACTIONS

_RECOMMENDATION_DAYS = 30
# Seconds. Figures outlive a few refreshes that fail; all recommendations are set once an hour.
_LEAST_EXPIRY = 120
_ALL_RECOMMENDATIONS_EVERY = timedelta(hours=1)
# Recommendations may be told late, by as much as a projection is behind.
_OVERLAP = timedelta(minutes=10)
_CHUNK = 1000
_TIMEOUT = 2.0
_MARKER = "ghl_exporter:recommendations"

Fill = Callable[[Pipeline, Sequence[Any]], None]

_RECOMMENDATIONS = """
SELECT location_id, recommendation_id, contact_id, agent_id, property_id, score::float8, made_at
FROM recommendations WHERE location_id = ANY($1) AND made_day >= $2 AND made_at >= $3
"""


@cache
def _days_sql() -> str:
    return (bundled("sql") / "cache" / "days.sql").read_text(encoding="utf-8")


class DayFigures:
    """Sets the figures of today and yesterday, and the recommendations of 30 days."""

    def __init__(self, settings: Settings, cache_: Cache) -> None:
        self._settings = settings
        self._cache = cache_
        self._known: set[str] = set()
        self._recommended_until = self._all_at = datetime(1970, 1, 2, tzinfo=UTC)

    @property
    def usable(self) -> bool:
        """Tell whether there is a Redis to set anything in."""
        return self._cache.usable

    async def publish(self, connection: Connection) -> None:
        """Set everything anew. Raises what asyncpg raises; Redis may be away."""
        now = datetime.now(UTC)
        locations, _ = await reported_locations(connection, self._settings)
        await self._days(connection, locations, now)
        await self._recommendations(connection, locations, now)

    async def _days(self, connection: Connection, locations: list[str], now: datetime) -> None:
        places, days = [], []
        for location_id in locations:
            today = now.astimezone(self._settings.zone(location_id)).date()
            places += [location_id, location_id]
            days += [today, today - timedelta(1)]
        rows = await connection.fetch(_days_sql(), places, days, list(STAGES), list(INTERACTIONS))
        values = {row["name"]: row["value"] for row in rows if row["value"] is not None}
        gone = self._known - values.keys()
        expiry = max(_LEAST_EXPIRY, round(4 * self._settings.kpi_interval))

        def set_all(pipeline: Pipeline, names: Sequence[str]) -> None:
            for name in names:
                if name in values:
                    pipeline.set(name, values[name], ex=expiry)
                else:
                    pipeline.delete(name)

        if await self._send([*values, *gone], set_all):
            self._known = set(values)

    async def _recommendations(
        self, connection: Connection, locations: list[str], now: datetime
    ) -> None:
        marked = await self._cache.run(lambda pipeline: pipeline.exists(_MARKER))
        if marked is None:
            return
        from_ = self._recommended_until - _OVERLAP
        if not marked[0] or now - self._all_at > _ALL_RECOMMENDATIONS_EVERY:
            from_, self._all_at = now - timedelta(_RECOMMENDATION_DAYS), now
        day = (from_ - timedelta(1)).date()
        rows = await connection.fetch(_RECOMMENDATIONS, locations, day, from_)

        def set_all(pipeline: Pipeline, chunk: Sequence[Any]) -> None:
            for row in chunk:
                left = row["made_at"] + timedelta(_RECOMMENDATION_DAYS) - now
                seconds = min(round(left.total_seconds()), _RECOMMENDATION_DAYS * 86_400)
                if seconds > 0:
                    body = orjson.dumps(dict(row))
                    pipeline.set(f"property_rec:{row['recommendation_id']}", body, ex=seconds)

        if await self._send(rows, set_all):
            self._recommended_until = now
            await self._cache.run(lambda pipeline: pipeline.set(_MARKER, "1"))

    async def _send(self, items: Sequence[Any], fill: Fill) -> bool:
        """Send items in chunks; return whether all of them arrived."""
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            if await self._cache.run(partial(_fill, fill, chunk), timeout=_TIMEOUT) is None:
                return False
        return True


def _fill(fill: Fill, chunk: Sequence[Any], pipeline: Pipeline) -> None:
    fill(pipeline, chunk)
