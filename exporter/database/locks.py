"""Locks: the service's advisory locks, and transactions that wait for a lock only briefly."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

R = TypeVar("R")

# Numbers of advisory locks. They share a prefix, so that no other program uses them by accident.
MIGRATION_LOCK = 0x67686C_01
LEADER_LOCK = 0x67686C_02
PROJECTION_LOCK = 0x67686C_03
REBUILD_LOCK = 0x67686C_04
PARTITION_LOCK = 0x67686C_05

# Others queue behind a lock that is waited for, so it is better to try again than to keep waiting.
_LOCK_TIMEOUT = "500ms"
_TRIES = 100
_PAUSE = 0.3  # seconds


async def transaction_with_lock_timeout(
    connection: asyncpg.Connection, work: Callable[[], Awaitable[R]]
) -> R:
    """Run a transaction whose locks are waited for in short tries, up to 80 seconds in all.

    Raises LockNotAvailableError or DeadlockDetectedError if the last try fails, and what `work`
    raises.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                return await work()
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == _TRIES:
                raise
            await asyncio.sleep(_PAUSE)
    raise AssertionError("unreachable")
