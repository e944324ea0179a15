"""Insert events into the inbox: many to one commit, each key once."""

from collections.abc import Sequence
from functools import cache

from exporter.database.connect import Connection
from exporter.database.errors import DatabaseUnavailableError
from exporter.domain.event import InboxEvent
from exporter.support.bundled_files import bundled


@cache
def _insert_sql() -> str:
    return (bundled("sql") / "inbox_insert.sql").read_text(encoding="utf-8")


async def insert_events(connection: Connection, events: Sequence[InboxEvent]) -> set[int]:
    """Commit the events and return the positions of those that were new.

    Raises what asyncpg raises, and DatabaseUnavailableError where the commit did not wait for the
    disk; nothing is stored then, or all is and the answer got lost: inserting
    again is safe.
    """
    # Inside one statement a key may come once; the first of the same key is the one that counts.
    positions: dict[tuple[str, str, str], int] = {}
    for position, event in enumerate(events):
        positions.setdefault(event.key, position)
    chosen = [events[position] for position in positions.values()]
    rows = await connection.fetch(
        _insert_sql(),
        [event.location_id for event in chosen],
        [event.source for event in chosen],
        [event.endpoint for event in chosen],
        [event.event_type for event in chosen],
        [event.idempotency_key for event in chosen],
        [event.correlation_id for event in chosen],
        [event.received_at for event in chosen],
        [event.body for event in chosen],
    )
    if rows and not rows[0]["durable"]:
        raise DatabaseUnavailableError(
            "synchronous_commit is off in the session that commits: what is answered could be lost"
        )
    back = list(positions.values())
    return {back[row[0] - 1] for row in rows}
