"""Monthly partitions of the inbox: made ahead, and dropped by age where a setting says so."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import structlog

log = structlog.get_logger()

_MONTHS_AHEAD = 2


def _next_month(month: date) -> date:
    return (month.replace(day=28) + timedelta(days=4)).replace(day=1)


def _name(month: date) -> str:
    return f"inbox_{month:%Y_%m}"


async def create_partitions(connection: asyncpg.Connection, since: date | None = None) -> None:
    """Create the partitions from `since` (default: this month) until two months ahead."""
    today = datetime.now(UTC).date()
    month = (since or today).replace(day=1)
    last = today.replace(day=1)
    for _ in range(_MONTHS_AHEAD):
        last = _next_month(last)
    while month <= last:
        following = _next_month(month)
        if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", _name(month)):
            try:
                async with connection.transaction():
                    # Waiting longer would hold up every insert behind this lock.
                    await connection.execute("SET LOCAL lock_timeout = '500ms'")
                    await connection.execute(
                        f"CREATE TABLE {_name(month)} PARTITION OF inbox"
                        f" FOR VALUES FROM ('{month}') TO ('{following}')"
                    )
            except (asyncpg.LockNotAvailableError, asyncpg.CheckViolationError) as error:
                # The default partition takes the rows meanwhile.
                log.warning("partition_not_created", partition=_name(month), error=str(error))
        month = following


async def drop_old_partitions(connection: asyncpg.Connection, keep_days: int) -> list[str]:
    """Drop the months that ended more than `keep_days` ago and are projected; return their names.

    Keys stay, so what was received then is still known as received.
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
        end = _next_month(month)
        if end > limit:
            break
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '500ms'")
            if await connection.fetchval(
                "SELECT EXISTS (SELECT FROM inbox_pending WHERE received_at >= $1"
                " AND received_at < $2)",
                datetime(month.year, month.month, 1, tzinfo=UTC),
                datetime(end.year, end.month, 1, tzinfo=UTC),
            ):
                continue
            await connection.execute(
                "INSERT INTO inbox_dropped (partition_name, events)"
                f" SELECT $1, count(*) FROM {name} HAVING count(*) > 0",
                name,
            )
            await connection.execute(f"DROP TABLE {name}")
        dropped.append(name)
        log.info("partition_dropped", partition=name)
    return dropped
