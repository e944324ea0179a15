"""Rebuild: every fact anew from the inbox, in tables of their own, swapped in at the end.

The service goes on meanwhile, on the old tables. Events are read in any order, for facts do not
depend on it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import asyncpg

from exporter.database.connect import UNAVAILABLE
from exporter.database.locks import PROJECTION_LOCK, REBUILD_LOCK
from exporter.inbox.event import StoredEvent
from exporter.projection.project import describe, project_batch
from exporter.projection.rows import DERIVED_TABLES
from exporter.projection.rules import Rules
from exporter.projection.state import note_rules

R = TypeVar("R")

_SCHEMA = "ghl_exporter_rebuild"
_BATCH = 2000
# Writers wait behind a lock that is waited for: better to try again than to hold them up.
_LOCK_TIMEOUT = "500ms"
_LOCK_TRIES = 100
_CAUGHT_UP_BELOW = 5000
_FIRST_ANALYZE = 20_000

_EVENTS = """
SELECT location_id, id, received_at, source, endpoint, event_type, idempotency_key, body
FROM inbox WHERE id > $1 AND id <= $2
"""

Progress = Callable[[int, int], None]


class RebuildRefused(Exception):
    """The rebuild can't or should not be made; the text says why."""


@dataclass
class Report:
    """What a rebuild found: events read, and rows that differ from before, by table."""

    events: int = 0
    differences: dict[str, int] = field(default_factory=dict)


async def rebuild(
    connection: asyncpg.Connection,
    reader: asyncpg.Connection,
    rules: Rules,
    *,
    progress: Progress = lambda done, total: None,
    dry_run: bool = False,
    forget_dropped: bool = False,
) -> Report:
    """Compute all derived tables anew and swap them in (not with `dry_run`).

    `reader` streams the inbox while `connection` writes. `progress` is told (events done, events in
    all). Raises RebuildRefused where another rebuild runs, or where bodies were dropped by age and
    `forget_dropped` is not set.
    """
    dropped = await connection.fetchval("SELECT coalesce(sum(events), 0) FROM inbox_dropped")
    if dropped and not forget_dropped:
        raise RebuildRefused(
            f"{dropped:,} stored events were dropped by age: a rebuild would forget the facts that"
            " follow from them (--forget-dropped does it all the same)"
        )
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", REBUILD_LOCK):
        raise RebuildRefused("another rebuild is under way")
    live = await connection.fetchval("SELECT current_schema()")
    work = _Rebuild(connection, reader, rules, live, progress)
    try:
        # Statements over the whole history take as long as they take.
        for one in (connection, reader):
            await one.execute("SET statement_timeout = 0")
        await work.make_tables()
        await work.catch_up()
        # From here to the swap the projection waits; webhooks are received all the while.
        await connection.execute("SELECT pg_advisory_lock($1)", PROJECTION_LOCK)
        await work.project_until_now()
        await work.compare()
        if not dry_run:
            await work.swap()
        return work.report
    finally:
        await connection.execute("SELECT pg_advisory_unlock_all()")
        await connection.execute("RESET search_path")
        await connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")


class _Rebuild:
    """One rebuild under way."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        reader: asyncpg.Connection,
        rules: Rules,
        live: str,
        progress: Progress,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._rules = rules
        self._live = live
        self._progress = progress
        self._done_until = 0
        self.report = Report()

    async def make_tables(self) -> None:
        """Make empty tables in a schema of their own, which the projection's SQL finds first."""
        execute = self._connection.execute
        await execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
        await execute(f"CREATE SCHEMA {_SCHEMA}")
        for table in DERIVED_TABLES:
            await execute(
                f'CREATE TABLE {_SCHEMA}.{table} (LIKE "{self._live}".{table} INCLUDING ALL)'
            )
        await execute(f'SET search_path = {_SCHEMA}, "{self._live}"')

    async def catch_up(self) -> None:
        """Project what is stored, again and again, until little has come meanwhile."""
        while await self.project_until_now() > _CAUGHT_UP_BELOW:
            # Without statistics the planner would take empty tables for what they were.
            for table in DERIVED_TABLES:
                await self._connection.execute(f"ANALYZE {_SCHEMA}.{table}")

    async def project_until_now(self) -> int:
        """Project everything stored since the last time, and return how many events that were."""
        until = await self._high_water()
        count = await self._reader.fetchval(
            "SELECT count(*) FROM inbox WHERE id > $1 AND id <= $2", self._done_until, until
        )
        total = self.report.events + count
        analyze_at = _FIRST_ANALYZE
        async with self._reader.transaction():
            cursor = await self._reader.cursor(_EVENTS, self._done_until, until)
            while rows := await cursor.fetch(_BATCH):
                await self._project_or_condemn([StoredEvent(*row) for row in rows])
                self.report.events += len(rows)
                self._progress(self.report.events, total)
                if self.report.events >= analyze_at:
                    analyze_at *= 10
                    for table in DERIVED_TABLES:
                        await self._connection.execute(f"ANALYZE {_SCHEMA}.{table}")
        self._done_until = until
        return int(count)

    async def _high_water(self) -> int:
        """Return an id up to which no insert is under way any more.

        Ids are drawn before their rows are committed; waiting for the writers closes the gaps.
        """

        async def read() -> int:
            await self._connection.execute(f'LOCK TABLE "{self._live}".inbox IN SHARE MODE')
            return int(await self._connection.fetchval("SELECT last_value FROM inbox_id"))

        return await self._with_lock_timeout(read)

    async def _with_lock_timeout(self, work: Callable[[], Awaitable[R]]) -> R:
        """Run a transaction that waits for locks in short tries: others wait behind each."""
        for attempt in range(1, _LOCK_TRIES + 1):
            try:
                async with self._connection.transaction():
                    await self._connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                    return await work()
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                if attempt == _LOCK_TRIES:
                    raise
                await asyncio.sleep(0.3)
        raise AssertionError("unreachable")

    async def _project_or_condemn(self, events: list[StoredEvent]) -> None:
        """Project events; find by halving the ones that break it, and set them aside."""
        try:
            async with self._connection.transaction():
                await project_batch(self._connection, events, self._rules)
        except UNAVAILABLE:
            raise
        except Exception as error:  # whatever one event provokes must not stop the others
            if len(events) == 1:
                problem = describe(error)
                async with self._connection.transaction():
                    await project_batch(
                        self._connection, events, self._rules, {events[0].id: problem}
                    )
                return
            middle = len(events) // 2
            await self._project_or_condemn(events[:middle])
            await self._project_or_condemn(events[middle:])

    async def compare(self) -> None:
        """Count the rows that only the old or only the new tables have."""
        for table in DERIVED_TABLES:
            old, new = f'"{self._live}".{table}', f"{_SCHEMA}.{table}"
            # Equal digests need no comparison row by row, which is ten times as slow.
            same = await self._digest(old) == await self._digest(new)
            self.report.differences[table] = 0 if same else await self._count_apart(old, new)

    async def _digest(self, table: str) -> tuple[object, ...]:
        row = await self._connection.fetchrow(
            f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} t"
        )
        return tuple(row or ())

    async def _count_apart(self, old: str, new: str) -> int:
        return int(
            await self._connection.fetchval(
                "SELECT count(*) FROM ("
                f"(SELECT * FROM {old} EXCEPT ALL SELECT * FROM {new}) UNION ALL"
                f" (SELECT * FROM {new} EXCEPT ALL SELECT * FROM {old})) AS difference"
            )
        )

    async def swap(self) -> None:
        """Put the new tables in the place of the old, and take from the queue what they hold."""

        async def exchange() -> None:
            execute = self._connection.execute
            for table in DERIVED_TABLES:
                await execute(f'DROP TABLE "{self._live}".{table}')
                await execute(f'ALTER TABLE {_SCHEMA}.{table} SET SCHEMA "{self._live}"')
            await execute("DELETE FROM inbox_pending WHERE id <= $1", self._done_until)
            await note_rules(self._connection, self._rules)

        await self._with_lock_timeout(exchange)
