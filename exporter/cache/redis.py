"""Ask Redis without ever waiting for it: one that is away is left alone for some seconds."""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError, ResponseError

from exporter.database.advice import one_line
from exporter.database.availability import Availability
from exporter.settings import Settings
from exporter.support.error_text import describe_error
from exporter.support.tasks import raise_if_cancelled

log = structlog.get_logger()

# Seconds: a cache must not hold up an answer, and one that is away is not asked again at once.
_TIMEOUT = 0.1
_PAUSE = 5.0

# What the names of keys begin with. The first is of what only the service itself reads.
KEY_KINDS = (
    "ghl_exporter",
    "agent_deals",
    "conversions",
    "property_interactions",
    "property_rec",
    "revenue",
    "webhook_processing_time",
    "webhooks_received",
    "webhooks_successful",
)
# How Redis refuses a command on a value of another type, and counting what is no number. Whoever
# writes such a value must not turn the whole cache off.
_WRONG_VALUE = (
    "WRONGTYPE",
    "value is not an integer",
    "ERR value is not an integer",
    "increment or decrement would overflow",
    "ERR increment or decrement would overflow",
)
_PROBE_EXPIRY = 10  # seconds
_PROBE_TIMEOUT = 2.0  # seconds


def open_redis(settings: Settings) -> Redis | None:
    """Return a client for `REDIS_URL`, or None; nothing is connected yet."""
    if settings.redis_url is None:
        return None
    return Redis.from_url(
        settings.redis_url.get_secret_value(), socket_timeout=2, socket_connect_timeout=2
    )


class ProbeError(RedisError):
    """Redis answers, and does not do what the service needs of it."""


async def probe(redis: Redis) -> None:
    """Set, read, count and delete a key of each kind that the service uses.

    An answer to PING says little: an ACL can refuse keys or commands, a node of a cluster has
    only some keys, a replica takes no writes. Raises RedisError, or what the client raises.
    """
    token = uuid4().hex
    async with redis.pipeline(transaction=False) as pipeline:
        for kind in KEY_KINDS:
            name = f"{kind}:probe:{token}"
            pipeline.set(name, token, ex=_PROBE_EXPIRY)
            pipeline.get(name)
            pipeline.exists(name)
            pipeline.delete(name)
        counter = f"{KEY_KINDS[0]}:probe:{token}"
        pipeline.incr(counter)
        pipeline.expire(counter, _PROBE_EXPIRY)
        pipeline.delete(counter)
        answers = await pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise ProbeError(f"it refuses a key that the service needs: {answer}") from answer
    if any(bytes(answer) != token.encode() for answer in answers[1 : 4 * len(KEY_KINDS) : 4]):
        raise ProbeError("what was set is not what is read")


class Cache:
    """Runs commands in one round trip. No method raises what Redis or the network raises."""

    def __init__(self, redis: Redis | None) -> None:
        self._redis = redis
        self._away_until = 0.0
        self.availability = Availability("redis", "Redis is away: slower, never wrong")

    @property
    def set_up(self) -> bool:
        """Tell whether there is a Redis to ask at all."""
        return self._redis is not None

    @property
    def usable(self) -> bool:
        """Tell whether Redis is set up, and was not found away just now."""
        return self._redis is not None and time.monotonic() >= self._away_until

    async def run(
        self, fill: Callable[[Pipeline], Any], *, timeout: float = _TIMEOUT
    ) -> list[Any] | None:
        """Send what `fill` puts into a pipeline; return the answers, or None without Redis.

        A value that the command can't be used on is None, as one that is not there. `timeout` is in
        seconds.
        """
        if self._redis is None or not self.usable:
            return None
        try:
            async with (
                asyncio.timeout(timeout),
                self._redis.pipeline(transaction=False) as pipeline,
            ):
                fill(pipeline)
                answers = await pipeline.execute(raise_on_error=False)
            return [_usable(answer) for answer in answers]
        # The client raises its own errors, the network's, and Python's: a TypeError for an option
        # that it doesn't know, say. None of them is worth an answer.
        except Exception as error:
            raise_if_cancelled(error)
            self._away_until = time.monotonic() + _PAUSE
            if isinstance(error, TimeoutError):
                log.debug("redis_slow", seconds=timeout)  # whether it is away, the probe tells
            else:
                self.availability.lost(redis_reason(error))
            return None

    async def look(self) -> bool:
        """Probe Redis and note whether it can be used; return that. False without Redis."""
        if self._redis is None:
            return False
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                await probe(self._redis)
        except Exception as error:  # see `run`
            raise_if_cancelled(error)
            self.availability.lost(redis_reason(error))
            return False
        self.availability.found()
        return True


def _usable(answer: object) -> object:
    """Return an answer; None where somebody has put another kind of value under the name."""
    if isinstance(answer, ResponseError) and str(answer).startswith(_WRONG_VALUE):
        return None
    if isinstance(answer, Exception):
        raise answer
    return answer


def redis_reason(error: BaseException) -> str:
    """Describe an error of the Redis client in one line."""
    if isinstance(error, TimeoutError) and not str(error):
        return "Redis did not answer in time"
    text = one_line(str(error))
    if isinstance(error, RedisError | OSError) and text:
        return text
    return describe_error(error)
