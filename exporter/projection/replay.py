"""Replay: put quarantined events back into the queue, after a fix."""

import asyncpg

from exporter.database.locks import PROJECTION_LOCK


async def replay(connection: asyncpg.Connection, location_id: str | None = None) -> int:
    """Queue the quarantined events (of one location, or all) again and return how many.

    They leave the quarantine; those that still fail come back to it with their new error.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", PROJECTION_LOCK)
        rows = await connection.fetch(
            "WITH back AS ("
            " DELETE FROM quarantine WHERE $1::text IS NULL OR location_id = $1"
            " RETURNING id, location_id, received_at"
            ") INSERT INTO inbox_pending (id, location_id, received_at)"
            " SELECT id, location_id, received_at FROM back ON CONFLICT DO NOTHING RETURNING id",
            location_id,
        )
    return len(rows)
