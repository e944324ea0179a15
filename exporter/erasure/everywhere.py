"""Erase a location everywhere: from the database, then from Redis.

Series on `/metrics` and figures in Redis follow by themselves: the leader publishes what there is,
and every instance takes the location out of its own counters.
"""

import structlog
from redis.asyncio import Redis

from exporter.cache.redis import KEY_KINDS, open_redis, redis_reason
from exporter.database.connect import connect
from exporter.erasure.rows import Erased, erase_location
from exporter.settings import Settings
from exporter.support.tasks import raise_if_cancelled

log = structlog.get_logger()

_SCAN = 1000
# The leader sets the day's figures anew where this is missing.
_MARKER = "ghl_exporter:figures"
_ANSWERS = "ghl_exporter:answer:"
# Redis can be shared with others: only keys of these families are the exporter's.
_FAMILIES = frozenset(KEY_KINDS)


async def erase(settings: Settings, location_id: str) -> tuple[Erased, str | None]:
    """Erase a location; return what was deleted, and why Redis could not be cleaned, if so.

    Raises one of `DATABASE_ERRORS` or EraseRefusedError; erasing again goes on then.
    """
    connection = await connect(settings, "erase")
    try:
        erased = await erase_location(connection, location_id)
    finally:
        connection.terminate()
    # Not before it is committed: what is computed meanwhile would come back.
    problem = await _erase_from_redis(settings, location_id)
    log.info("location_erased", location=location_id, rows=sum(erased.rows.values()))
    return erased, problem


async def _erase_from_redis(settings: Settings, location_id: str) -> str | None:
    redis = open_redis(settings)
    if redis is None:
        return None
    try:
        await _delete_keys(redis, location_id)
    except Exception as error:  # the client raises its own errors, the network's, and Python's
        raise_if_cancelled(error)
        return f"Redis could not be cleaned ({redis_reason(error)}): its keys expire by themselves"
    finally:
        await redis.aclose()
    return None


async def _delete_keys(redis: Redis, location_id: str) -> None:
    """Delete what holds figures of the location. Cached answers go all: they don't name theirs."""

    def concerns(key: str) -> bool:
        family, _, rest = key.partition(":")
        if key == _MARKER or key.startswith(_ANSWERS):
            return True
        return family in _FAMILIES and f":{location_id}:" in f":{rest}:"

    found: list[bytes] = []
    async for key in redis.scan_iter(count=_SCAN):
        if concerns(key.decode("utf-8", "replace")):
            found.append(key)
    for start in range(0, len(found), _SCAN):
        await redis.unlink(*found[start : start + _SCAN])
