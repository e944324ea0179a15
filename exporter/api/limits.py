"""How often a key may call: counted in Redis for all copies, and in the process without it."""

import time

from redis.asyncio.client import Pipeline

from exporter.cache.redis import Cache

_WINDOW = 60


class PerMinute:
    """Counts by key in each minute by the clock, in this process."""

    def __init__(self, most_keys: int = 10_000) -> None:
        """`most_keys`: so many are counted apart; the others share a count."""
        self._most_keys = most_keys
        self._minute = 0
        self._counts: dict[str, int] = {}

    def add(self, key: str, by: int = 1) -> int:
        """Return the count of the key in this minute, which grows by `by`."""
        minute = int(time.time() // _WINDOW)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        if key not in self._counts and len(self._counts) >= self._most_keys:
            key = ""
        self._counts[key] = max(0, self._counts.get(key, 0) + by)
        return self._counts[key]


def seconds_left() -> int:
    """Return how long the minute lasts, in seconds, at least 1."""
    return max(1, round(_WINDOW - time.time() % _WINDOW))


class RateLimit:
    """Requests of a key in each minute by the clock."""

    def __init__(self, cache: Cache, per_minute: int) -> None:
        self._cache = cache
        self._per_minute = per_minute
        self._here = PerMinute()

    async def spend(self, key_id: str) -> int | None:
        """Count a request; return None, or the seconds to wait where it is one too many."""
        # Counted here too, so that Redis can vanish within the minute.
        count = max(self._here.add(key_id), await self._count_in_redis(key_id))
        return None if count <= self._per_minute else seconds_left()

    async def _count_in_redis(self, key_id: str) -> int:
        name = f"ghl_exporter:rate:{key_id}:{int(time.time() // _WINDOW)}"

        def count(pipeline: Pipeline) -> None:
            pipeline.incr(name)
            pipeline.expire(name, 2 * _WINDOW)

        answers = await self._cache.run(count)
        # None: what is there is no number.
        return int(answers[0] or 0) if answers else 0
