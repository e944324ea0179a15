"""One event as a row of the spool, with a checksum of its own."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.domain.event import InboxEvent

# The body comes last: what stands before it is read without it.
SCHEMA = (
    "CREATE TABLE spool ("
    "id INTEGER PRIMARY KEY AUTOINCREMENT, problem TEXT, checksum BLOB NOT NULL,"
    " location_id TEXT NOT NULL, source TEXT NOT NULL, endpoint TEXT NOT NULL,"
    " event_type TEXT NOT NULL, idempotency_key TEXT NOT NULL, correlation_id TEXT NOT NULL,"
    " received_at_us INTEGER NOT NULL, body BLOB NOT NULL)"
)
COLUMNS = (
    "problem, checksum, location_id, source, endpoint, event_type, idempotency_key,"
    " correlation_id, received_at_us, body"
)
COLUMN_COUNT = 10

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Damaged(ValueError):
    """A row isn't what was written."""


def to_row(event: InboxEvent) -> tuple[object, ...]:
    """Return the event's `COLUMNS`."""
    values = (
        event.location_id,
        event.source,
        event.endpoint,
        event.event_type,
        event.idempotency_key,
        event.correlation_id,
        (event.received_at - _EPOCH) // _MICROSECOND,
        event.body,
    )
    return (None, _checksum(values), *values)


def placeholder(problem: str) -> tuple[object, ...]:
    """Return a row that stands for a record that can't be read."""
    return (problem, b"", "", "", "", "", "", "", 0, b"")


def check(row: Sequence[object]) -> None:
    """Raise Damaged unless the row's checksum is right."""
    _, checksum, *values = row
    if checksum != _checksum(values):
        raise Damaged("the checksum does not match")


def to_event(row: Sequence[object]) -> InboxEvent:
    """Read `COLUMNS`. Raises Damaged."""
    check(row)
    # What has the right checksum has the right types, for that is how it was written.
    values: Sequence[Any] = row[2:]
    location_id, source, endpoint, event_type, key, correlation_id, received_at_us, body = values
    return InboxEvent(
        location_id=location_id,
        source=source,
        endpoint=endpoint,
        event_type=event_type,
        idempotency_key=key,
        correlation_id=correlation_id,
        received_at=_EPOCH + received_at_us * _MICROSECOND,
        body=body,
    )


def _checksum(values: Sequence[object]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        # The type counts: a text and a blob of the same bytes are not the same.
        kind = type(value).__name__.encode()
        part = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
        digest.update(b"%b %d\0" % (kind, len(part)))
        digest.update(part)
    return digest.digest()
