"""How often a key may call: counted in Redis for all copies, and in the process without it."""

import asyncio
import time

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger()

_WINDOW = 60
# Seconds: a cache must not hold up a call, and one that is away is not asked again at once.
_TIMEOUT = 0.1
_PAUSE = 5.0


class RateLimit:
    """Requests of a key in each minute by the clock."""

    def __init__(self, redis: Redis | None, per_minute: int) -> None:
        self._redis = redis
        self._per_minute = per_minute
        self._away_until = 0.0
        self._minute = 0
        self._counts: dict[str, int] = {}

    async def spend(self, key_id: str) -> int | None:
        """Count a request; return None, or the seconds to wait where it is one too many."""
        now = time.time()
        minute = int(now // _WINDOW)
        count = await self._count_in_redis(key_id, minute)
        if count is None:
            count = self._count_here(key_id, minute)
        if count <= self._per_minute:
            return None
        return max(1, round((minute + 1) * _WINDOW - now))

    async def _count_in_redis(self, key_id: str, minute: int) -> int | None:
        if self._redis is None or time.monotonic() < self._away_until:
            return None
        name = f"ghl_exporter:rate:{key_id}:{minute}"
        try:
            async with asyncio.timeout(_TIMEOUT):
                async with self._redis.pipeline(transaction=False) as pipeline:
                    pipeline.incr(name)
                    pipeline.expire(name, 2 * _WINDOW)
                    answers = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._away_until = time.monotonic() + _PAUSE
            log.debug("redis_away", error=repr(error))
            return None
        # Counted here too, so that Redis can vanish within the minute.
        here = self._count_here(key_id, minute)
        return max(int(answers[0]), here)

    def _count_here(self, key_id: str, minute: int) -> int:
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        self._counts[key_id] = self._counts.get(key_id, 0) + 1
        return self._counts[key_id]
