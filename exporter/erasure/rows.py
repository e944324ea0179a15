"""Erase a location from the database: stored events, facts, roll-ups, all but audit and tombstone.

The tombstone comes first, so that nothing which arrives meanwhile, waits in a spool or is sent
again brings the location back.
"""

import asyncio
from dataclasses import dataclass, field

import asyncpg

from exporter.database.locks import PROJECTION_LOCK, REBUILD_LOCK

TOMBSTONES = "erased_locations"
# What may keep a location's id.
_KEPT = frozenset({TOMBSTONES, "audit"})
# Seconds that an insert under way gets to end; others wait behind the lock for as long.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '500ms'"
_LOCK_TRIES = 60
_LOCK_PAUSE = 0.3

_TABLES = """
SELECT c.relname
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
  AND NOT c.relispartition AND a.attname = 'location_id' AND NOT a.attisdropped
ORDER BY 1
"""
# A completion need not name its location: it belongs to its start's. Those that are projected are
# known by their tracking id, others by their key.
_COMPLETIONS = """
WITH mine AS (
    SELECT tracking_id FROM platform_webhooks WHERE location_id = $1
    UNION
    SELECT substring(idempotency_key FROM '^webhook-start/(.*)/[0-9a-f]{64}$') FROM inbox
    WHERE location_id = $1 AND source = 'platform' AND endpoint = 'webhook-start'
), completions AS (
    SELECT entity_id AS tracking_id, idempotency_key FROM entity_events
    WHERE location_id = '' AND family = 'platform_webhook'
    UNION
    SELECT substring(idempotency_key FROM '^webhook-completion/(.*)/[0-9a-f]{64}$'), idempotency_key
    FROM inbox
    WHERE location_id = '' AND source = 'platform' AND endpoint = 'webhook-completion'
)
SELECT tracking_id, idempotency_key FROM completions JOIN mine USING (tracking_id)
WHERE NOT EXISTS (SELECT FROM platform_webhooks w
                  WHERE w.location_id <> $1 AND w.tracking_id = mine.tracking_id)
"""
_DELETE_COMPLETIONS = """
WITH deleted AS (
    DELETE FROM inbox WHERE location_id = '' AND source = 'platform' AND idempotency_key = ANY($1)
    RETURNING id
)
DELETE FROM inbox_pending p USING deleted WHERE p.id = deleted.id
"""
# Tables that grow with every event, and that the projection does not write.
_STORED = {
    "inbox": """
        WITH batch AS (SELECT id, received_at FROM inbox WHERE location_id = $1 LIMIT $2),
        deleted AS (
            DELETE FROM inbox i USING batch
            WHERE i.location_id = $1 AND i.id = batch.id AND i.received_at = batch.received_at
            RETURNING 1)
        SELECT count(*) FROM deleted""",
    "inbox_keys": """
        WITH deleted AS (
            DELETE FROM inbox_keys WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM inbox_keys WHERE location_id = $1 LIMIT $2))
            RETURNING 1)
        SELECT count(*) FROM deleted""",
}
_BATCH = 20_000


class EraseRefusedError(Exception):
    """The location can't be erased now; the text says why."""


@dataclass
class Erased:
    """What was erased."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows by table; tables without any are left out."""

    def count(self, table: str, rows: int) -> None:
        """Add rows of a table."""
        if rows:
            self.rows[table] = self.rows.get(table, 0) + rows


async def count_rows(connection: asyncpg.Connection, location_id: str) -> Erased:
    """Count what erasing the location would delete."""
    found = Erased()
    for table in await _tables(connection):
        count = await connection.fetchval(
            f'SELECT count(*) FROM "{table}" WHERE location_id = $1', location_id
        )
        found.count(table, count)
    return found


async def erase_location(connection: asyncpg.Connection, location_id: str) -> Erased:
    """Delete everything of a location, and keep a tombstone. Erasing it again does no harm.

    Takes as long as there is much to delete; webhooks are received meanwhile, and their projection
    waits. Raises EraseRefusedError while a rebuild runs.
    """
    await connection.execute("SET statement_timeout = 0")
    async with connection.transaction():
        await _keep_rebuild_away(connection)
        await connection.execute(
            f"INSERT INTO {TOMBSTONES} (location_id) VALUES ($1) ON CONFLICT DO NOTHING",
            location_id,
        )
    await _wait_for_writers(connection)
    erased = Erased()
    await _delete_completions(connection, location_id)
    # What is stored goes first, in short transactions. Facts that still follow from it meanwhile,
    # or that a rebuild makes of it, go with the others.
    for table, statement in _STORED.items():
        while count := await connection.fetchval(statement, location_id, _BATCH):
            erased.count(table, count)
    async with connection.transaction():
        await _keep_rebuild_away(connection)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", PROJECTION_LOCK)
        await _delete_facts(connection, location_id, erased)
    return erased


async def accept_again(connection: asyncpg.Connection, location_id: str) -> bool:
    """Remove a location's tombstone: what arrives from now on is stored. False without one."""
    row = await connection.fetchval(
        f"DELETE FROM {TOMBSTONES} WHERE location_id = $1 RETURNING location_id", location_id
    )
    return row is not None


async def _keep_rebuild_away(connection: asyncpg.Connection) -> None:
    """Let no rebuild begin in this transaction: it would put back what it has read before."""
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", REBUILD_LOCK):
        raise EraseRefusedError("a rebuild is under way: erase the location when it has ended")


async def _wait_for_writers(connection: asyncpg.Connection) -> None:
    """Wait until every insert that may not have seen the tombstone has ended."""
    for attempt in range(1, _LOCK_TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute("LOCK TABLE inbox IN SHARE MODE")
                return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if attempt == _LOCK_TRIES:
                raise
        await asyncio.sleep(_LOCK_PAUSE)


async def _delete_completions(connection: asyncpg.Connection, location_id: str) -> None:
    async with connection.transaction():
        rows = await connection.fetch(_COMPLETIONS, location_id)
        await connection.execute(_DELETE_COMPLETIONS, [row["idempotency_key"] for row in rows])
        await connection.execute(
            "DELETE FROM entity_events WHERE location_id = '' AND family = 'platform_webhook'"
            " AND entity_id = ANY($1)",
            [row["tracking_id"] for row in rows],
        )


async def _delete_facts(connection: asyncpg.Connection, location_id: str, erased: Erased) -> None:
    """Delete what follows from the location's events, and whatever else names it."""
    for table in await _tables(connection):
        status = await connection.execute(
            f'DELETE FROM "{table}" WHERE location_id = $1', location_id
        )
        erased.count(table, int(status.rpartition(" ")[2]))


async def _tables(connection: asyncpg.Connection) -> list[str]:
    """Return every table that has rows of locations, whichever migration made it."""
    rows = await connection.fetch(_TABLES)
    return [row["relname"] for row in rows if row["relname"] not in _KEPT]
