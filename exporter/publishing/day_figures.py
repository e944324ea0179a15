"""The day's figures in Redis, for the platform to read in one step: absolute values, never counted.

They are set when they change, all of them again and again, and expire soon: a flushed Redis is
filled again, and where nobody sets them any more there is no value rather than an old one.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import orjson
from redis.asyncio.client import Pipeline

from exporter.cache.redis import Cache
from exporter.database.connect import Connection
from exporter.domain.platform_calls import INTERACTIONS
from exporter.domain.stages import STAGES
from exporter.kpis.refresh import reported_locations
from exporter.settings import Settings
from exporter.support.bundled_files import bundled

_RECOMMENDATION_DAYS = 30
# Seconds. Figures outlive a few refreshes that fail; all recommendations are set once an hour.
_LEAST_EXPIRY = 120
_ALL_RECOMMENDATIONS_EVERY = timedelta(hours=1)
# Recommendations may be told late, by as much as a projection is behind.
_OVERLAP = timedelta(minutes=10)
_CHUNK = 1000
_TIMEOUT = 2.0
# What a flush takes away.
_MARKER = "ghl_exporter:figures"
_LONG_AGO = datetime(1970, 1, 2, tzinfo=UTC)

Fill = Callable[[Sequence[Any], Pipeline], None]

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
        self._expiry = max(_LEAST_EXPIRY, round(8 * settings.kpi_interval))
        self._sent: dict[str, str] = {}
        self._may_publish: Callable[[], bool] = lambda: True
        self._all_sent_at = self._recommended_until = self._all_recommended_at = _LONG_AGO

    @property
    def usable(self) -> bool:
        """Tell whether there is a Redis to set anything in."""
        return self._cache.usable

    async def publish(
        self, connection: Connection, may_publish: Callable[[], bool] = lambda: True
    ) -> None:
        """Set what has changed, and everything now and then, or where Redis has lost it.

        `may_publish` is asked before each write: an instance that no longer leads writes nothing.
        Raises what asyncpg raises; Redis may be away.
        """
        self._may_publish = may_publish
        marked = await self._cache.run(lambda pipeline: pipeline.exists(_MARKER))
        if marked is None:
            return
        if not marked[0]:
            self._all_sent_at = self._all_recommended_at = _LONG_AGO
        now = datetime.now(UTC)
        locations, _ = await reported_locations(connection, self._settings)
        days = await self._days(connection, locations, now)
        if days and await self._recommendations(connection, locations, now):
            await self._cache.run(lambda pipeline: pipeline.set(_MARKER, "1"))

    async def _days(self, connection: Connection, locations: list[str], now: datetime) -> bool:
        places, days = [], []
        for location_id in locations:
            today = now.astimezone(self._settings.zone(location_id)).date()
            places += [location_id, location_id]
            days += [today, today - timedelta(1)]
        rows = await connection.fetch(_days_sql(), places, days, list(STAGES), list(INTERACTIONS))
        values = {row["name"]: row["value"] for row in rows if row["value"] is not None}
        everything = now - self._all_sent_at > timedelta(seconds=self._expiry / 3)
        changed = [n for n, value in values.items() if everything or self._sent.get(n) != value]
        gone = self._sent.keys() - values.keys()

        def set_all(names: Sequence[str], pipeline: Pipeline) -> None:
            for name in names:
                if name in values:
                    pipeline.set(name, values[name], ex=self._expiry)
                else:
                    pipeline.delete(name)

        if not await self._send([*changed, *gone], set_all):
            return False
        self._sent = values
        if everything:
            self._all_sent_at = now
        return True

    async def _recommendations(
        self, connection: Connection, locations: list[str], now: datetime
    ) -> bool:
        everything = now - self._all_recommended_at > _ALL_RECOMMENDATIONS_EVERY
        since = self._recommended_until - _OVERLAP
        if everything:
            since = now - timedelta(_RECOMMENDATION_DAYS)
        day = (since - timedelta(1)).date()
        rows = await connection.fetch(_RECOMMENDATIONS, locations, day, since)

        def set_all(chunk: Sequence[Any], pipeline: Pipeline) -> None:
            for row in chunk:
                left = row["made_at"] + timedelta(_RECOMMENDATION_DAYS) - now
                seconds = min(round(left.total_seconds()), _RECOMMENDATION_DAYS * 86_400)
                if seconds > 0:
                    name = f"property_rec:{row['location_id']}:{row['recommendation_id']}"
                    pipeline.set(name, orjson.dumps(dict(row)), ex=seconds)

        if not await self._send(rows, set_all):
            return False
        self._recommended_until = now
        if everything:
            self._all_recommended_at = now
        return True

    async def _send(self, items: Sequence[Any], fill: Fill) -> bool:
        """Send items in chunks; return whether all of them arrived."""
        for start in range(0, len(items), _CHUNK):
            chunk = items[start : start + _CHUNK]
            if not self._may_publish():
                return False
            if await self._cache.run(partial(fill, chunk), timeout=_TIMEOUT) is None:
                return False
        return True
