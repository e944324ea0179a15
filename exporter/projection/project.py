"""Project one batch of stored events: history, states, facts, roll-ups, in one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import structlog

from exporter.ghl import APPOINTMENT, CONTACT, OPPORTUNITY, USER
from exporter.inbox.event import StoredEvent
from exporter.projection.derive import Answers, derive_contact, derive_deal, derive_stages
from exporter.projection.fold import (
    fold_appointment,
    fold_contact,
    fold_opportunity,
    fold_user,
    in_order,
)
from exporter.projection.interpret import Poison, interpret
from exporter.projection.rollups import TouchedCells, touch
from exporter.projection.rows import (
    APPOINTMENTS,
    CONTACTS,
    CONVERSION_PIPELINE,
    DEALS,
    ENTITY_EVENTS,
    MESSAGES,
    OPPORTUNITIES,
    OPPORTUNITY_STAGES,
    QUARANTINE,
    USERS,
    WEBHOOK_OUTCOMES,
    Appointment,
    Contact,
    Deal,
    EntityEvent,
    Message,
    Opportunity,
    OpportunityStage,
    PipelineStage,
    Quarantined,
    WebhookOutcome,
)
from exporter.projection.rules import Rules
from exporter.projection.tables import replace, select, upsert

log = structlog.get_logger()

Key = tuple[str, str]
RECEIVER = "receiver"

_ANSWERS = """
SELECT k.location_id, k.contact_id, ever.sent_at, first.sent_at, first.user_id
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (location_id, contact_id, created_at)
CROSS JOIN LATERAL (
    SELECT min(sent_at) AS sent_at FROM messages m
    WHERE m.location_id = k.location_id AND m.contact_id = k.contact_id AND m.human_answer
) ever
LEFT JOIN LATERAL (
    SELECT sent_at, user_id FROM messages m
    WHERE m.location_id = k.location_id AND m.contact_id = k.contact_id AND m.human_answer
      AND m.sent_at >= k.created_at
    ORDER BY m.sent_at, m.idempotency_key LIMIT 1
) first ON true
WHERE ever.sent_at IS NOT NULL
"""

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


@dataclass(slots=True)
class _Told:
    """What a batch tells, taken together."""

    entities: list[EntityEvent] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    outcomes: list[WebhookOutcome] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    locations: dict[str, datetime] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


def describe(error: Exception) -> str:
    """Return an error as the quarantine keeps it: its kind and its message, without details."""
    return f"{type(error).__name__}: {error}"[:500]


def read_batch(
    events: Sequence[StoredEvent], rules: Rules, poison: dict[int, str] | None = None
) -> _Told:
    """Interpret a batch. `poison`: errors of events that are known to break the projection."""
    told = _Told()
    for event in events:
        if not rules.reports_on(event.location_id) and event.location_id:
            told.counts.ignored += 1
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
        if event.location_id:
            _note_webhook(told, event, rules, failed=error is not None)
    return told


def _note_webhook(told: _Told, event: StoredEvent, rules: Rules, *, failed: bool) -> None:
    day = rules.day(event.location_id, event.received_at)
    assert day is not None
    told.outcomes.append(
        WebhookOutcome(
            event.location_id, day, RECEIVER, event.idempotency_key, event.event_type, failed
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
    if told.entities or told.messages:
        await upsert(connection, ENTITY_EVENTS, told.entities)
        await upsert(connection, MESSAGES, told.messages)
        await _Batch(connection, rules, told, cells).run()
    await cells.recompute(connection)
    return told.counts


class _Batch:
    """The entities that a batch touches, from their history to facts."""

    def __init__(
        self, connection: asyncpg.Connection, rules: Rules, told: _Told, cells: TouchedCells
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._told = told
        self._cells = cells

    async def run(self) -> None:
        """Fold the touched entities, then derive what follows for their contacts."""
        history = await self._load_history()
        contacts = [fold_contact(events, self._rules) for events in history[CONTACT]]
        users = [fold_user(events) for events in history[USER]]
        await upsert(self._connection, USERS, users)
        touched = {(c.location_id, c.contact_id) for c in contacts}
        touched |= {(m.location_id, m.contact_id) for m in self._told.messages}
        opportunities = await self._write_opportunities(history[OPPORTUNITY], touched)
        await self._write_appointments(history[APPOINTMENT], touched)
        await self._derive(contacts, touched, opportunities)

    async def _load_history(self) -> dict[str, list[list[EntityEvent]]]:
        keys = {(e.location_id, e.family, e.entity_id) for e in self._told.entities}
        rows = await select(
            self._connection,
            ENTITY_EVENTS,
            EntityEvent,
            ("location_id", "family", "entity_id"),
            keys,
        )
        grouped: dict[tuple[str, str, str], list[EntityEvent]] = defaultdict(list)
        for row in rows:
            grouped[row.location_id, row.family, row.entity_id].append(row)
        history: dict[str, list[list[EntityEvent]]] = defaultdict(list)
        for (_, family, _), events in grouped.items():
            history[family].append(in_order(events))
        return history

    async def _write_opportunities(
        self, history: Iterable[Sequence[EntityEvent]], touched: set[Key]
    ) -> list[Opportunity]:
        folded = [fold_opportunity(events, self._rules) for events in history]
        new = [opportunity for opportunity, _ in folded]
        keys = [row[:2] for row in new]
        by = ("location_id", "opportunity_id")
        old = await select(self._connection, OPPORTUNITIES, Opportunity, by, keys)
        changed = await replace(self._connection, OPPORTUNITIES, old, new)
        stages = [stage for _, stages in folded for stage in stages]
        old_stages = await select(self._connection, OPPORTUNITY_STAGES, OpportunityStage, by, keys)
        await replace(self._connection, OPPORTUNITY_STAGES, old_stages, stages)
        for row in changed:
            touch(self._cells.daily_business, row.location_id, [row.run_began_day])
            touch(self._cells.open_pipeline, row.location_id, [row.opened_day])
        touched |= {(o.location_id, o.contact_id) for o in (*old, *new) if o.contact_id}
        return new

    async def _write_appointments(
        self, history: Iterable[Sequence[EntityEvent]], touched: set[Key]
    ) -> None:
        new = [fold_appointment(events, self._rules) for events in history]
        old = await select(
            self._connection,
            APPOINTMENTS,
            Appointment,
            ("location_id", "appointment_id"),
            [row[:2] for row in new],
        )
        for row in await replace(self._connection, APPOINTMENTS, old, new):
            touch(self._cells.daily_business, row.location_id, [row.start_day])
        touched |= {(a.location_id, a.contact_id) for a in (*old, *new) if a.contact_id}

    async def _derive(
        self, folded: Sequence[Contact], touched: set[Key], opportunities: Sequence[Opportunity]
    ) -> None:
        """Derive deals, stages and answers of the touched contacts, and write what changed."""
        connection = self._connection
        by = ("location_id", "contact_id")
        old_contacts = await select(connection, CONTACTS, Contact, by, touched)
        contacts: dict[Key, Contact] = {c[:2]: c for c in old_contacts}
        contacts.update({(c.location_id, c.contact_id): c for c in folded})
        answers = await self._load_answers(touched, contacts)

        theirs = await select(connection, OPPORTUNITIES, Opportunity, by, touched)
        concerned = {o[:2]: o for o in (*theirs, *opportunities)}
        deals = [
            deal
            for o in concerned.values()
            if (deal := derive_deal(o, contacts.get((o.location_id, o.contact_id or ""))))
        ]
        old_deals = await select(
            connection, DEALS, Deal, ("location_id", "opportunity_id"), concerned
        )
        for deal_row in await replace(connection, DEALS, old_deals, deals):
            touch(self._cells.daily_business, deal_row.location_id, [deal_row.closed_day])

        deals_of: dict[Key, list[Deal]] = defaultdict(list)
        for deal in deals:
            deals_of[deal.location_id, deal.contact_id or ""].append(deal)
        new_contacts = [
            derive_contact(c, answers.get(key, Answers()), has_deal=bool(deals_of[key]))
            for key, c in contacts.items()
        ]
        for row in await replace(connection, CONTACTS, old_contacts, new_contacts):
            touch(self._cells.daily_business, row.location_id, [row.created_day])
        await self._write_stages(touched, contacts, answers, deals_of, theirs)

    async def _load_answers(
        self, touched: Iterable[Key], contacts: dict[Key, Contact]
    ) -> dict[Key, Answers]:
        wanted = [(*key, contacts[key].created_at if key in contacts else None) for key in touched]
        if not wanted:
            return {}
        rows = await self._connection.fetch(_ANSWERS, *map(list, zip(*wanted, strict=True)))
        return {(row[0], row[1]): Answers(row[2], row[3], row[4]) for row in rows}

    async def _write_stages(
        self,
        touched: set[Key],
        contacts: dict[Key, Contact],
        answers: dict[Key, Answers],
        deals_of: dict[Key, list[Deal]],
        opportunities: Sequence[Opportunity],
    ) -> None:
        connection = self._connection
        by = ("location_id", "contact_id")
        appointments_of: dict[Key, list[Appointment]] = defaultdict(list)
        for appointment in await select(connection, APPOINTMENTS, Appointment, by, touched):
            appointments_of[appointment.location_id, appointment.contact_id or ""].append(
                appointment
            )
        contact_of = {o[:2]: o.contact_id or "" for o in opportunities}
        told_of: dict[Key, list[OpportunityStage]] = defaultdict(list)
        if self._rules.pipeline_stages:
            for stage in await select(
                connection,
                OPPORTUNITY_STAGES,
                OpportunityStage,
                ("location_id", "opportunity_id"),
                contact_of,
            ):
                told_of[stage.location_id, contact_of[stage[:2]]].append(stage)
        new = [
            row
            for key in touched
            for row in derive_stages(
                key,
                contacts.get(key),
                answers.get(key, Answers()),
                deals_of[key],
                appointments_of[key],
                told_of[key],
                self._rules,
            )
        ]
        old = await select(connection, CONVERSION_PIPELINE, PipelineStage, by, touched)
        for changed in await replace(connection, CONVERSION_PIPELINE, old, new):
            touch(self._cells.daily_stages, changed.location_id, [changed.reached_day])
