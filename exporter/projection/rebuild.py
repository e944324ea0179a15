"""Rebuild: every fact anew from the inbox, in temporary tables; what differs is written at the end.

The service goes on meanwhile. Events are read in any order, for facts do not depend on it.
Temporary tables hide those of the same name, so the projection's SQL writes to them as it is. They
need no right to create schemas or to own the tables, whose indexes, grants and views stay.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import asyncpg

from exporter.database.errors import blames_a_row
from exporter.database.locks import (
    PROJECTION_LOCK,
    REBUILD_LOCK,
    transaction_with_lock_timeout,
)
from exporter.domain.event import StoredEvent
from exporter.projection.batch import describe, project_batch
from exporter.projection.fact_settings import FactSettings
from exporter.projection.fact_version import record_fact_settings
from exporter.projection.rollups import ROLLUPS
from exporter.projection.schema import FACT_TABLES
from exporter.support.tasks import ignoring, raise_if_cancelled

# What a rebuild computes anew: every table of facts and roll-ups.
DERIVED_TABLES = ("locations", *FACT_TABLES, *ROLLUPS)

_BATCH = 2000
_CAUGHT_UP_BELOW = 5000
_FIRST_VACUUM = 20_000
# No other session can vacuum a temporary table, and none shares its buffers.
_TEMP_BUFFERS = "SET temp_buffers = '64MB'"

_EVENTS = """
SELECT location_id, id, received_at, source, endpoint, event_type, idempotency_key, body
FROM inbox WHERE id > $1 AND id <= $2
"""
_PENDING = """
SELECT p.id AS pending, i.location_id, i.id, i.received_at, i.source, i.endpoint, i.event_type,
       i.idempotency_key, i.body
FROM (SELECT id, location_id, received_at FROM inbox_pending
      WHERE id <= $1 ORDER BY id LIMIT $2) p
LEFT JOIN inbox i USING (location_id, id, received_at)
"""
_KEY = """
SELECT array_agg(a.attname::text)
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = $1::regclass AND i.indisprimary
"""

Progress = Callable[[int, int], None]


class RebuildRefused(Exception):
    """The rebuild can't or should not be made; the text says why."""


@dataclass
class RebuildResult:
    """What a rebuild found: events read, and rows that differ from before, by table."""

    events: int = 0
    differences: dict[str, int] = field(default_factory=dict)


async def rebuild(
    connection: asyncpg.Connection,
    reader: asyncpg.Connection,
    fact_settings: FactSettings,
    *,
    progress: Progress = lambda done, total: None,
    dry_run: bool = False,
    forget_dropped: bool = False,
) -> RebuildResult:
    """Compute all derived tables anew and write what differs (not with `dry_run`).

    `reader` streams the inbox while `connection` writes. `progress` is called with the number of
    events done and of all events. Raises RebuildRefused if another rebuild runs, or if bodies were
    dropped by age and `forget_dropped` is not set.
    """
    # Statements over the whole history take as long as they take.
    for one in (connection, reader):
        await one.execute("SET statement_timeout = 0")
    dropped = await connection.fetchval("SELECT coalesce(sum(events), 0) FROM inbox_dropped")
    if dropped and not forget_dropped:
        raise RebuildRefused(
            f"{dropped:,} stored events were dropped by age: a rebuild would forget the facts that"
            " follow from them (--forget-dropped does it all the same)"
        )
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", REBUILD_LOCK):
        raise RebuildRefused("another rebuild is under way")
    live = await connection.fetchval("SELECT quote_ident(current_schema())")
    work = _Rebuild(connection, reader, fact_settings, live, progress)
    try:
        await work.make_tables()
        await work.catch_up()
        # From here to the end the projection waits; webhooks are received all the while.
        await connection.execute("SELECT pg_advisory_lock($1)", PROJECTION_LOCK)
        await work.project_until_now()
        await work.finish(dry_run=dry_run)
        return work.result
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock_all()")
            await connection.execute("DISCARD TEMP")
            await connection.execute("DISCARD PLANS")


class _Rebuild:
    """One rebuild under way."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        reader: asyncpg.Connection,
        fact_settings: FactSettings,
        live: str,
        progress: Progress,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._fact_settings = fact_settings
        self._live = live
        self._progress = progress
        self._done_until = 0
        self.result = RebuildResult()

    async def make_tables(self) -> None:
        """Make empty tables, which the projection's SQL finds before those of the same name."""
        execute = self._connection.execute
        # A session that has used temporary tables already keeps the buffers that it has.
        with ignoring(asyncpg.InvalidParameterValueError):
            await execute(_TEMP_BUFFERS)
        await execute("DISCARD TEMP")
        for table in DERIVED_TABLES:
            live = self._name(table)
            await execute(f"CREATE TEMPORARY TABLE {table} (LIKE {live} INCLUDING ALL)")
        # A statement that this session prepared before would go on with the table it found then.
        await execute("DISCARD PLANS")

    def _name(self, table: str) -> str:
        """Return the name of a table that the service uses."""
        return f"{self._live}.{table}"

    async def catch_up(self) -> None:
        """Project what is stored, again and again, until little has come meanwhile."""
        while await self.project_until_now() > _CAUGHT_UP_BELOW:
            await self._vacuum()

    async def _vacuum(self) -> None:
        # Without statistics the planner would take empty tables for what they were.
        for table in DERIVED_TABLES:
            await self._connection.execute(f"VACUUM (ANALYZE) pg_temp.{table}")

    async def project_until_now(self) -> int:
        """Project everything stored since the last time, and return how many events that were."""
        until = await self._high_water()
        count = await self._reader.fetchval(
            "SELECT count(*) FROM inbox WHERE id > $1 AND id <= $2", self._done_until, until
        )
        total = self.result.events + count
        vacuum_at = _FIRST_VACUUM
        async with self._reader.transaction():
            cursor = await self._reader.cursor(_EVENTS, self._done_until, until)
            while rows := await cursor.fetch(_BATCH):
                await self._project_or_quarantine([StoredEvent(*row) for row in rows])
                self.result.events += len(rows)
                self._progress(self.result.events, total)
                if self.result.events >= vacuum_at:
                    vacuum_at *= 2
                    await self._vacuum()
        self._done_until = until
        return int(count)

    async def _high_water(self) -> int:
        """Return an id up to which no insert is under way any more.

        Ids are drawn before their rows are committed; waiting for the writers closes the gaps.
        """

        async def read() -> int:
            await self._connection.execute(f"LOCK TABLE {self._name('inbox')} IN SHARE MODE")
            return int(await self._connection.fetchval("SELECT last_value FROM inbox_id"))

        return await transaction_with_lock_timeout(self._connection, read)

    async def _project_or_quarantine(self, events: list[StoredEvent]) -> None:
        """Project events; find by halving the ones that break it, and set them aside."""
        try:
            async with self._connection.transaction():
                await project_batch(self._connection, events, self._fact_settings)
        except Exception as error:  # whatever one event provokes must not stop the others
            raise_if_cancelled(error)
            if not blames_a_row(error):
                raise
            if len(events) == 1:
                problem = describe(error)
                async with self._connection.transaction():
                    await project_batch(
                        self._connection, events, self._fact_settings, {events[0].id: problem}
                    )
                return
            middle = len(events) // 2
            await self._project_or_quarantine(events[:middle])
            await self._project_or_quarantine(events[middle:])

    async def finish(self, *, dry_run: bool) -> None:
        """Compare, and write what differs (not with `dry_run`): all of it, or nothing."""
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            # The service's own tables first, from here to the transaction's end.
            await self._connection.execute(f"SET LOCAL search_path = {self._live}, pg_temp")
            await self._project_pending()
            for table in DERIVED_TABLES:
                self.result.differences[table] = await self._difference(table, write=not dry_run)
            if not dry_run:
                await record_fact_settings(self._connection, self._fact_settings)
        except BaseException:
            if not self._connection.is_closed():
                await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
        if not dry_run:
            for table, count in self.result.differences.items():
                if count:
                    await self._connection.execute(f"ANALYZE {self._name(table)}")

    async def _project_pending(self) -> None:
        """Project into the service's tables what waits there: it would differ for no other reason.

        With `dry_run` this is undone, and the service projects it later.
        """
        while rows := await self._connection.fetch(_PENDING, self._done_until, _BATCH):
            events = [StoredEvent(*list(row)[1:]) for row in rows if row["body"] is not None]
            if events:
                await self._project_or_quarantine(events)
            await self._connection.execute(
                "DELETE FROM inbox_pending WHERE id = ANY($1)", [row["pending"] for row in rows]
            )

    async def _difference(self, table: str, *, write: bool) -> int:
        """Count the rows that only the old or only the new table has; make the old like the new."""
        old, new = self._name(table), f"pg_temp.{table}"
        # Equal digests need no comparison row by row, which is ten times as slow.
        if await self._digest(old) == await self._digest(new):
            return 0
        removed = f"SELECT * FROM {old} EXCEPT ALL SELECT * FROM {new}"
        added = f"SELECT * FROM {new} EXCEPT ALL SELECT * FROM {old}"
        if not write:
            count = (
                f"SELECT (SELECT count(*) FROM ({removed}) r) + (SELECT count(*) FROM ({added}) a)"
            )
            return int(await self._connection.fetchval(count))
        names = await self._connection.fetchval(_KEY, old)
        key = " AND ".join(f"t.{name} = r.{name}" for name in names)
        deleted = await self._connection.execute(
            f"DELETE FROM {old} t USING ({removed}) r WHERE {key}"
        )
        inserted = await self._connection.execute(f"INSERT INTO {old} {added}")
        return sum(int(status.rpartition(" ")[2]) for status in (deleted, inserted))

    async def _digest(self, table: str) -> tuple[object, ...]:
        row = await self._connection.fetchrow(
            f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {table} t"
        )
        return tuple(row or ())
