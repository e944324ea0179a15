"""How often a key may call: counted in Redis for all copies, and in the process without it."""

import time

from redis.asyncio.client import Pipeline

from exporter.cache.redis import Cache

_WINDOW = 60


class RateLimit:
    """Requests of a key in each minute by the clock."""

    def __init__(self, cache: Cache, per_minute: int) -> None:
        self._cache = cache
        self._per_minute = per_minute
        self._minute = 0
        self._counts: dict[str, int] = {}

    async def spend(self, key_id: str) -> int | None:
        """Count a request; return None, or the seconds to wait where it is one too many."""
        now = time.time()
        minute = int(now // _WINDOW)
        # Counted here too, so that Redis can vanish within the minute.
        count = max(self._count_here(key_id, minute), await self._count_in_redis(key_id, minute))
        if count <= self._per_minute:
            return None
        return max(1, round((minute + 1) * _WINDOW - now))

    async def _count_in_redis(self, key_id: str, minute: int) -> int:
        name = f"ghl_exporter:rate:{key_id}:{minute}"

        def count(pipeline: Pipeline) -> None:
            pipeline.incr(name)
            pipeline.expire(name, 2 * _WINDOW)

        answers = await self._cache.run(count)
        return int(answers[0]) if answers else 0

    def _count_here(self, key_id: str, minute: int) -> int:
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        self._counts[key_id] = self._counts.get(key_id, 0) + 1
        return self._counts[key_id]
