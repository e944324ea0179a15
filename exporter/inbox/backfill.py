"""Bring in opportunities as GHL's search answers them: JSON lines, through the inbox."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO
from uuid import uuid4

import asyncpg

from exporter.fields import Unreadable, clean_text, clean_time, parse_json
from exporter.inbox.event import BACKFILL, InboxEvent
from exporter.inbox.store import insert_events
from exporter.receiver.envelope import read_opportunity

_BATCH = 500
_MOST_PROBLEMS = 20


class NotUsable(ValueError):
    """A line is no opportunity; the text says why."""


@dataclass
class Report:
    """What became of a file's lines."""

    lines: int = 0
    new: int = 0
    known: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    """The first of them, with the line's number."""


def read_line(line: bytes) -> InboxEvent:
    """Read one opportunity. Raises NotUsable."""
    try:
        fields = parse_json(line)
    except Unreadable as error:
        raise NotUsable(str(error)) from None
    if not isinstance(fields, dict):
        raise NotUsable("no JSON object")
    for name, read in _NEEDED.items():
        if read(fields.get(name)) is None:
            raise NotUsable(f"{name} is missing or can't be read")
    envelope = read_opportunity(fields)
    return InboxEvent(
        location_id=envelope.location_id,
        source=BACKFILL,
        endpoint="opportunity",
        event_type=envelope.event_type,
        idempotency_key=envelope.idempotency_key,
        correlation_id=f"import-{uuid4().hex}",
        received_at=datetime.now(UTC),
        body=line.strip(),
    )


_NEEDED: dict[str, Callable[[Any], object]] = {
    "id": clean_text,
    "locationId": clean_text,
    "updatedAt": clean_time,
}


async def import_opportunities(
    connection: asyncpg.Connection, file: BinaryIO, progress: Callable[[int], None]
) -> Report:
    """Store a file's opportunities. `progress` is told how many bytes were read.

    Stopped and started again it goes on: what is stored already is known. Lines that are no
    opportunity are reported, and the others stored.
    """
    report = Report()
    for batch, size in _batches(file, report):
        new = await insert_events(connection, batch) if batch else set()
        report.new += len(new)
        report.known += len(batch) - len(new)
        progress(size)
    return report


def _batches(file: BinaryIO, report: Report) -> Iterator[tuple[list[InboxEvent], int]]:
    batch: list[InboxEvent] = []
    size = 0
    for line in file:
        report.lines += 1
        size += len(line)
        if line.strip():
            try:
                batch.append(read_line(line))
            except NotUsable as problem:
                report.wrong += 1
                if len(report.problems) < _MOST_PROBLEMS:
                    report.problems.append(f"line {report.lines}: {problem}")
        if len(batch) >= _BATCH:
            yield batch, size
            batch, size = [], 0
    yield batch, size
