"""Project one batch of stored events: history, states, facts, roll-ups, in one transaction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import structlog

from exporter.domain.event import GHL, WORKFLOW, StoredEvent
from exporter.projection.fact_settings import FactSettings
from exporter.projection.interpret import InvalidEventError, interpret
from exporter.projection.rollups import TouchedCells
from exporter.projection.schema import (
    Activity,
    EntityEvent,
    Message,
    Quarantined,
    WebhookOutcome,
)
from exporter.projection.table_io import upsert
from exporter.projection.write_facts import write_facts
from exporter.support.error_text import escape_text

log = structlog.get_logger()

RECEIVER = "receiver"

_LOCATIONS = """
INSERT INTO locations AS l (location_id, first_seen)
SELECT * FROM unnest($1::text[], $2::timestamptz[])
ON CONFLICT (location_id) DO UPDATE SET first_seen = excluded.first_seen
WHERE l.first_seen > excluded.first_seen
"""


@dataclass(slots=True)
class Counts:
    """The outcomes of a batch's events."""

    projected: int = 0
    ignored: int = 0
    quarantined: int = 0
    # Webhooks alone, by location, event and whether they were quarantined.
    webhooks: Counter[tuple[str, str, bool]] = field(default_factory=Counter)


@dataclass(slots=True)
class _Batch:
    """What a batch's events report, taken together."""

    entities: list[EntityEvent] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)
    outcomes: list[WebhookOutcome] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    locations: dict[str, datetime] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


def describe(error: Exception) -> str:
    """Return an error as the quarantine keeps it, beside bodies: its kind and its message."""
    # Without PostgreSQL's DETAIL, and without what no column of text takes.
    text = str(error.args[0]) if isinstance(error, asyncpg.PostgresError) else str(error)
    return escape_text(f"{type(error).__name__}: {text}"[:500])


def read_batch(
    events: Sequence[StoredEvent], fact_settings: FactSettings, errors: dict[int, str] | None = None
) -> _Batch:
    """Interpret a batch. `errors`: by id, those of events that are known to break the batch."""
    batch = _Batch()
    for event in events:
        if not fact_settings.reports_on(event.location_id) and event.location_id:
            batch.counts.ignored += 1
            _count_webhook(batch, event, failed=False)
            continue
        error = (errors or {}).get(event.id)
        if error is None:
            try:
                interpretation = interpret(event, fact_settings)
            except InvalidEventError as problem:
                error = str(problem)
            else:
                batch.entities += [
                    e for e in interpretation.entities if fact_settings.reports_on(e.location_id)
                ]
                batch.messages += interpretation.messages
                batch.activities += interpretation.activities
                batch.counts.projected += bool(interpretation)
                batch.counts.ignored += not interpretation
        if error is not None:
            batch.counts.quarantined += 1
            batch.quarantined.append(
                Quarantined(
                    location_id=event.location_id,
                    id=event.id,
                    received_at=event.received_at,
                    source=event.source,
                    event_type=event.event_type,
                    error=error,
                )
            )
        _count_webhook(batch, event, failed=error is not None)
        if event.location_id:
            _note(batch, event, fact_settings, failed=error is not None)
    return batch


def _count_webhook(batch: _Batch, event: StoredEvent, *, failed: bool) -> None:
    if event.source in (GHL, WORKFLOW):
        batch.counts.webhooks[event.location_id, event.event_type, failed] += 1


def _note(batch: _Batch, event: StoredEvent, fact_settings: FactSettings, *, failed: bool) -> None:
    if event.source in (GHL, WORKFLOW):
        batch.outcomes.append(
            WebhookOutcome(
                location_id=event.location_id,
                received_day=fact_settings.known_day(event.location_id, event.received_at),
                source=RECEIVER,
                idempotency_key=event.idempotency_key,
                event_type=event.event_type,
                failed=failed,
            )
        )
    seen = batch.locations.get(event.location_id)
    if seen is None or event.received_at < seen:
        batch.locations[event.location_id] = event.received_at


async def project_batch(
    connection: asyncpg.Connection,
    events: Sequence[StoredEvent],
    fact_settings: FactSettings,
    errors: dict[int, str] | None = None,
) -> Counts:
    """Write what a batch reports. The caller holds the transaction and the projection's lock."""
    batch = read_batch(events, fact_settings, errors)
    cells = TouchedCells()
    await upsert(connection, Quarantined, batch.quarantined)
    await upsert(connection, WebhookOutcome, batch.outcomes)
    cells.touch(batch.outcomes)
    if batch.locations:
        ordered = sorted(batch.locations.items())
        await connection.execute(_LOCATIONS, *map(list, zip(*ordered, strict=True)))
    await write_facts(
        connection, fact_settings, batch.entities, batch.messages, batch.activities, cells
    )
    await cells.recompute(connection)
    return batch.counts
