"""Project one batch of stored events: history, states, facts, roll-ups, in one transaction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import structlog

from exporter.domain.event import GHL, WORKFLOW, StoredEvent
from exporter.projection.fact_settings import Rules
from exporter.projection.facts import write_facts
from exporter.projection.interpret import Poison, interpret
from exporter.projection.rollups import TouchedCells, touch
from exporter.projection.rows import (
    QUARANTINE,
    WEBHOOK_OUTCOMES,
    Activity,
    EntityEvent,
    Message,
    Quarantined,
    WebhookOutcome,
)
from exporter.projection.tables import upsert
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
    """What became of a batch's events."""

    projected: int = 0
    ignored: int = 0
    quarantined: int = 0
    # Webhooks alone, by location, event and whether they were quarantined.
    webhooks: Counter[tuple[str, str, bool]] = field(default_factory=Counter)


@dataclass(slots=True)
class _Told:
    """What a batch tells, taken together."""

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
    events: Sequence[StoredEvent], rules: Rules, poison: dict[int, str] | None = None
) -> _Told:
    """Interpret a batch. `poison`: errors of events that are known to break the projection."""
    told = _Told()
    for event in events:
        if not rules.reports_on(event.location_id) and event.location_id:
            told.counts.ignored += 1
            _count_webhook(told, event, failed=False)
            continue
        error = (poison or {}).get(event.id)
        if error is None:
            try:
                meaning = interpret(event, rules)
            except Poison as problem:
                error = str(problem)
            else:
                told.entities += [e for e in meaning.entities if rules.reports_on(e.location_id)]
                told.messages += meaning.messages
                told.activities += meaning.activities
                told.counts.projected += bool(meaning)
                told.counts.ignored += not meaning
        if error is not None:
            told.counts.quarantined += 1
            told.quarantined.append(
                Quarantined(
                    event.location_id,
                    event.id,
                    event.received_at,
                    event.source,
                    event.event_type,
                    error,
                )
            )
        _count_webhook(told, event, failed=error is not None)
        if event.location_id:
            _note(told, event, rules, failed=error is not None)
    return told


def _count_webhook(told: _Told, event: StoredEvent, *, failed: bool) -> None:
    if event.source in (GHL, WORKFLOW):
        told.counts.webhooks[event.location_id, event.event_type, failed] += 1


def _note(told: _Told, event: StoredEvent, rules: Rules, *, failed: bool) -> None:
    if event.source in (GHL, WORKFLOW):
        told.outcomes.append(
            WebhookOutcome(
                event.location_id,
                rules.known_day(event.location_id, event.received_at),
                RECEIVER,
                event.idempotency_key,
                event.event_type,
                failed,
            )
        )
    seen = told.locations.get(event.location_id)
    if seen is None or event.received_at < seen:
        told.locations[event.location_id] = event.received_at


async def project_batch(
    connection: asyncpg.Connection,
    events: Sequence[StoredEvent],
    rules: Rules,
    poison: dict[int, str] | None = None,
) -> Counts:
    """Write what a batch tells. The caller holds the transaction and the projection's lock."""
    told = read_batch(events, rules, poison)
    cells = TouchedCells()
    await upsert(connection, QUARANTINE, told.quarantined)
    await upsert(connection, WEBHOOK_OUTCOMES, told.outcomes)
    for outcome in told.outcomes:
        touch(cells.webhook_performance, outcome.location_id, [outcome.received_day])
    if told.locations:
        ordered = sorted(told.locations.items())
        await connection.execute(_LOCATIONS, *map(list, zip(*ordered, strict=True)))
    await write_facts(connection, rules, told.entities, told.messages, told.activities, cells)
    await cells.recompute(connection)
    return told.counts
