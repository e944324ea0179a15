"""Bring in opportunities as GHL's search answers them: JSON lines, through the inbox."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, BinaryIO
from uuid import uuid4

import asyncpg

from exporter.domain.envelope import read_opportunity
from exporter.domain.event import BACKFILL, InboxEvent
from exporter.domain.json_fields import Unreadable, clean_text, clean_time, dump_json, parse_json
from exporter.inbox.store import insert_events

_BATCH = 500
_MOST_PROBLEMS = 20


class NotUsable(ValueError):
    """A line is no opportunity; the text says why."""


@dataclass
class Report:
    """What became of a file's opportunities."""

    lines: int = 0
    new: int = 0
    known: int = 0
    wrong: int = 0
    without_contact: int = 0
    """Those of them, new or known, that name no contact: their deals are no lead's."""
    problems: list[str] = field(default_factory=list)
    """The first of them, with the line's number."""

    def refuse(self, place: str, problem: object) -> None:
        """Count an opportunity that can't be used."""
        self.wrong += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(f"{place}: {problem}")


_NEEDED: dict[str, Callable[[Any], object]] = {"id": clean_text, "updatedAt": clean_time}
_PRETTY = (
    "the file is JSON over several lines, and an opportunity must be on one line: convert it with"
    " jq -c '.opportunities[]? // .[]?' FILE"
)


def read_line(line: bytes) -> list[tuple[object, bytes]]:
    """Return the rows of a line: an opportunity, an array of them, or a whole page of GHL's answer.

    Each with its bytes, as they stand where they are the whole line. Raises NotUsable.
    """
    try:
        value = parse_json(line)
    except Unreadable as error:
        raise NotUsable(str(error)) from None
    if isinstance(value, dict) and "id" not in value and "opportunities" in value:
        value = value["opportunities"]
    if not isinstance(value, list):
        return [(value, line.strip())]
    if not value:
        raise NotUsable("no JSON object")
    return [(row, dump_json(row)) for row in value]


def read_row(row: object, body: bytes, location: str) -> InboxEvent:
    """Read one opportunity. `location`: whose it is where it names none. Raises NotUsable."""
    if not isinstance(row, dict):
        raise NotUsable("no JSON object")
    for name, read in _NEEDED.items():
        if read(row.get(name)) is None:
            raise NotUsable(f"{name} is missing or can't be read")
    envelope = read_opportunity(row, location)
    if not envelope.location_id:
        raise NotUsable("locationId is missing or can't be read: name it with --location")
    return InboxEvent(
        location_id=envelope.location_id,
        source=BACKFILL,
        endpoint="opportunity",
        event_type=envelope.event_type,
        idempotency_key=envelope.idempotency_key,
        correlation_id=f"import-{uuid4().hex}",
        received_at=datetime.now(UTC),
        body=body,
    )


def _has_contact(row: dict[str, Any]) -> bool:
    contact = row.get("contact")
    nested = contact.get("id") if isinstance(contact, dict) else None
    return clean_text(row.get("contactId")) is not None or clean_text(nested) is not None


async def import_opportunities(
    connection: asyncpg.Connection,
    file: BinaryIO,
    progress: Callable[[int], None],
    location: str = "",
) -> Report:
    """Store a file's opportunities.

    `progress` receives how many bytes were read. `location`: whose opportunities are that name no
    location. Stopped and started again it goes on: what is stored already is known. Lines that
    are no opportunity are reported, and the others stored.
    """
    report = Report()
    for batch, size in _batches(file, report, location):
        new = await insert_events(connection, batch) if batch else set()
        report.new += len(new)
        report.known += len(batch) - len(new)
        progress(size)
    return report


def _batches(
    file: BinaryIO, report: Report, location: str
) -> Iterator[tuple[list[InboxEvent], int]]:
    batch: list[InboxEvent] = []
    size = 0
    begun = False
    for line in file:
        report.lines += 1
        size += len(line)
        text = line.strip()
        if not begun and text in (b"{", b"["):
            report.refuse(f"line {report.lines}", _PRETTY)
            break
        begun = begun or bool(text)
        if text:
            batch += _read(line, report, location)
        while len(batch) >= _BATCH:
            yield batch[:_BATCH], size
            batch, size = batch[_BATCH:], 0
    yield batch, size


def _read(line: bytes, report: Report, location: str) -> Iterator[InboxEvent]:
    place = f"line {report.lines}"
    try:
        rows = read_line(line)
    except NotUsable as problem:
        report.refuse(place, problem)
        return
    for number, (row, body) in enumerate(rows, 1):
        try:
            event = read_row(row, body, location)
        except NotUsable as problem:
            report.refuse(place if len(rows) == 1 else f"{place}, opportunity {number}", problem)
            continue
        report.without_contact += isinstance(row, dict) and not _has_contact(row)
        yield event
