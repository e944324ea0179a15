"""Monthly partitions of the inbox: created ahead, and dropped by age where a setting says so."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import structlog

from exporter.database.errors import reason_of
from exporter.database.locks import PARTITION_LOCK

log = structlog.get_logger()

DEFAULT_PARTITION = "inbox_default"

_MONTHS_AHEAD = 2
# Waiting longer would hold up every insert behind the lock that is waited for.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
# What can keep a partition from being created or dropped now; the next check tries again.
_LATER = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,
    asyncpg.InsufficientPrivilegeError,
)
_DELETE_BATCH = 5000
_MOST_DELETE_BATCHES = 100

_NOTE_DROPPED = """
INSERT INTO inbox_dropped AS d (partition_name, events)
SELECT $1, count(*) FROM {dropped} HAVING count(*) > 0
ON CONFLICT (partition_name) DO UPDATE
SET events = d.events + excluded.events, dropped_at = excluded.dropped_at
"""
_EMPTY_DEFAULT = f"""
WITH dropped AS (
    DELETE FROM {DEFAULT_PARTITION} WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM {DEFAULT_PARTITION} d
        WHERE d.received_at < $2 AND NOT EXISTS (SELECT FROM inbox_pending p WHERE p.id = d.id)
        LIMIT $3))
    RETURNING 1
), noted AS ({_NOTE_DROPPED.format(dropped="dropped")})
SELECT count(*) FROM dropped
"""


def _next_month(month: date) -> date:
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


def _name(month: date) -> str:
    return f"inbox_{month:%Y_%m}"


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


async def create_partitions(connection: asyncpg.Connection, since: date | None = None) -> None:
    """Create the partitions from `since` (default: this month) until two months ahead.

    Any number of sessions can do so at once. A partition that can't be created is logged: the
    default partition takes its rows.
    """
    today = datetime.now(UTC).date()
    month = (since or today).replace(day=1)
    last = today.replace(day=1)
    for _ in range(_MONTHS_AHEAD):
        last = _next_month(last)
    while month <= last:
        if not await _exists(connection, month):
            try:
                await _create(connection, month)
            except (*_LATER, asyncpg.CheckViolationError) as error:
                if not await _exists(connection, month):
                    reason = reason_of(error)
                    log.warning("partition_not_created", partition=_name(month), error=reason)
            except (asyncpg.DuplicateTableError, asyncpg.UniqueViolationError):
                pass  # an instance of an earlier version, which takes no lock, was quicker
        month = _next_month(month)


async def _exists(connection: asyncpg.Connection, month: date) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", _name(month)))


async def _create(connection: asyncpg.Connection, month: date) -> None:
    async with connection.transaction():
        await connection.execute(_LOCK_TIMEOUT)
        # Two sessions that create one table collide in PostgreSQL's catalog, IF NOT EXISTS or not.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", PARTITION_LOCK)
        if not await _exists(connection, month):
            await connection.execute(
                f"CREATE TABLE {_name(month)} PARTITION OF inbox"
                f" FOR VALUES FROM ('{month}') TO ('{_next_month(month)}')"
            )


async def drop_old_partitions(connection: asyncpg.Connection, keep_days: int) -> list[str]:
    """Drop what was received more than `keep_days` ago and is projected.

    Whole months are dropped, and rows of the default partition are deleted. Returns the names of
    the partitions that lost rows. Keys stay, so what was received then is still known as received.
    """
    limit = datetime.now(UTC).date() - timedelta(days=keep_days)
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'inbox'::regclass AND c.relname ~ '^inbox_\\d{4}_\\d{2}$'"
        " ORDER BY 1"
    )
    dropped = []
    for row in rows:
        name = row["relname"]
        month = date(int(name[6:10]), int(name[11:13]), 1)
        if _next_month(month) > limit:
            break
        try:
            if await _drop(connection, name, month):
                dropped.append(name)
                log.info("partition_dropped", partition=name)
        except _LATER as error:
            log.warning("partition_not_dropped", partition=name, error=reason_of(error))
    if count := await _empty_default(connection, _midnight(limit)):
        dropped.append(DEFAULT_PARTITION)
        log.info("partition_emptied", partition=DEFAULT_PARTITION, events=count)
    return dropped


async def _drop(connection: asyncpg.Connection, name: str, month: date) -> bool:
    """Drop a month unless events of it wait to be projected."""
    async with connection.transaction():
        await connection.execute(_LOCK_TIMEOUT)
        if await connection.fetchval(
            "SELECT EXISTS (SELECT FROM inbox_pending WHERE received_at >= $1"
            " AND received_at < $2)",
            _midnight(month),
            _midnight(_next_month(month)),
        ):
            return False
        await connection.execute(_NOTE_DROPPED.format(dropped=name), name)
        await connection.execute(f"DROP TABLE {name}")
    return True


async def _empty_default(connection: asyncpg.Connection, before: datetime) -> int:
    """Delete old rows of the default partition, in short transactions; return how many."""
    total = 0
    for _ in range(_MOST_DELETE_BATCHES):
        try:
            count = await connection.fetchval(
                _EMPTY_DEFAULT, DEFAULT_PARTITION, before, _DELETE_BATCH
            )
        except _LATER as error:
            log.warning(
                "partition_not_dropped", partition=DEFAULT_PARTITION, error=reason_of(error)
            )
            break
        total += count
        if count < _DELETE_BATCH:
            break
    return total
