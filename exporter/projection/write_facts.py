"""Write the facts of a batch: fold the touched entities anew, and derive what follows."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import asyncpg

from exporter.domain.ghl_events import APPOINTMENT, CONTACT, OPPORTUNITY, USER
from exporter.projection import fold
from exporter.projection.derive import (
    FirstAnswers,
    ReportedStage,
    derive_contact,
    derive_contact_deal,
    derive_deal,
    derive_stages,
    qualified_at,
)
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rollups import TouchedCells
from exporter.projection.schema import (
    PLATFORM_WEBHOOK,
    RECOMMENDATION,
    Activity,
    Appointment,
    Contact,
    ContactStage,
    Deal,
    EntityEvent,
    Interaction,
    Message,
    Opportunity,
    OpportunityStage,
    PipelineStage,
    PlatformWebhook,
    Recommendation,
    User,
)
from exporter.projection.table_io import replace, select, upsert

Key = tuple[str, str]
_BY_CONTACT = ("location_id", "contact_id")

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

_AI_TOUCHES = """
SELECT k.location_id, k.contact_id, t.happened_at
FROM unnest($1::text[], $2::text[]) AS k (location_id, contact_id)
CROSS JOIN LATERAL (
    SELECT happened_at FROM interactions i
    WHERE i.location_id = k.location_id AND i.contact_id = k.contact_id
      AND i.interaction IN ('liked', 'scheduled')
    UNION ALL
    SELECT happened_at FROM activities a
    WHERE a.location_id = k.location_id AND a.contact_id = k.contact_id AND a.ai_used
) t
"""


async def write_facts(
    connection: asyncpg.Connection,
    fact_settings: FactSettings,
    entities: Sequence[EntityEvent],
    messages: Sequence[Message],
    activities: Sequence[Activity],
    cells: TouchedCells,
) -> None:
    """Write what a batch reports and what follows from it; mark the roll-up cells it touches."""
    if not (entities or messages or activities):
        return
    placed = [
        a._replace(happened_day=fact_settings.day(a.location_id, a.happened_at)) for a in activities
    ]
    await upsert(connection, EntityEvent, entities)
    await upsert(connection, Message, messages)
    await upsert(connection, Activity, placed)
    cells.touch(placed)
    writer = _Writer(connection, fact_settings, cells)
    writer.touched |= {(m.location_id, m.contact_id) for m in messages}
    writer.touched |= {(a.location_id, a.contact_id) for a in placed if a.contact_id}
    await writer.write(entities)


class _Writer:
    """Takes the entities that a batch touches from their history to facts."""

    def __init__(
        self, connection: asyncpg.Connection, fact_settings: FactSettings, cells: TouchedCells
    ) -> None:
        self._connection = connection
        self._fact_settings = fact_settings
        self._cells = cells
        self.touched: set[Key] = set()
        """Contacts whose deals, answers and stages may have changed."""

    async def write(self, entities: Sequence[EntityEvent]) -> None:
        """Fold the touched entities, then derive what follows for their contacts."""
        history = await self._load_history(entities)
        users = [fold.fold_user(events) for events in history[USER]]
        await upsert(self._connection, User, users)
        await self._write_platform_webhooks(entities)
        await self._write_recommendations(history[RECOMMENDATION])
        contacts = await self._write_contact_stages(history[CONTACT])
        opportunities = await self._write_opportunities(history[OPPORTUNITY])
        await self._write_appointments(history[APPOINTMENT])
        await self._derive(contacts, opportunities)

    async def _load_history(
        self, entities: Iterable[EntityEvent]
    ) -> dict[str, list[list[EntityEvent]]]:
        keys = {(e.location_id, e.family, e.entity_id) for e in entities}
        history: dict[str, list[list[EntityEvent]]] = defaultdict(list)
        for (_, family, _), events in (await self._load_events(keys)).items():
            history[family].append(fold.in_order(events))
        return history

    async def _load_events(
        self, keys: Iterable[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], list[EntityEvent]]:
        by = ("location_id", "family", "entity_id")
        grouped: dict[tuple[str, str, str], list[EntityEvent]] = defaultdict(list)
        for row in await select(self._connection, EntityEvent, by, keys):
            grouped[row.location_id, row.family, row.entity_id].append(row)
        return grouped

    async def _write_platform_webhooks(self, entities: Iterable[EntityEvent]) -> None:
        """Fold webhooks' processing. A completion without a location belongs to every start."""
        calls = [event for event in entities if event.family == PLATFORM_WEBHOOK]
        keys = {(event.location_id, event.entity_id) for event in calls if event.location_id}
        if anywhere := {event.entity_id for event in calls if not event.location_id}:
            rows = await self._connection.fetch(
                "SELECT location_id, tracking_id FROM platform_webhooks"
                " WHERE tracking_id = ANY($1)",
                list(anywhere),
            )
            keys |= {(row[0], row[1]) for row in rows}
        events = await self._load_events(
            {
                (place, PLATFORM_WEBHOOK, tracking_id)
                for location_id, tracking_id in keys
                for place in (location_id, "")
            }
        )
        new = []
        for location_id, tracking_id in keys:
            own = events.get((location_id, PLATFORM_WEBHOOK, tracking_id), [])
            theirs = fold.in_order([*own, *events.get(("", PLATFORM_WEBHOOK, tracking_id), [])])
            new.append(fold.fold_platform_webhook(location_id, theirs, self._fact_settings))
        by = ("location_id", "tracking_id")
        old = await select(self._connection, PlatformWebhook, by, keys)
        self._cells.touch(await replace(self._connection, PlatformWebhook, old, new))

    async def _write_recommendations(self, history: Iterable[Sequence[EntityEvent]]) -> None:
        connection = self._connection
        folded = [fold.fold_recommendation(events, self._fact_settings) for events in history]
        new = [recommendation for recommendation, _ in folded]
        keys = [row[:2] for row in new]
        by = ("location_id", "recommendation_id")
        old = await select(connection, Recommendation, by, keys)
        self._cells.touch(await replace(connection, Recommendation, old, new))
        interactions = [one for _, theirs in folded for one in theirs]
        before = await select(connection, Interaction, by, keys)
        changed = await replace(connection, Interaction, before, interactions)
        self._cells.touch(changed)
        self.touched |= {(one.location_id, one.contact_id) for one in changed if one.contact_id}

    async def _write_contact_stages(
        self, history: Iterable[Sequence[EntityEvent]]
    ) -> list[Contact]:
        folded = [fold.fold_contact(events, self._fact_settings) for events in history]
        contacts = [contact for contact, _ in folded]
        keys = {contact[:2] for contact in contacts}
        stages = [stage for _, theirs in folded for stage in theirs]
        old = await select(self._connection, ContactStage, _BY_CONTACT, keys)
        await replace(self._connection, ContactStage, old, stages)
        self.touched |= keys
        return contacts

    async def _write_opportunities(
        self, history: Iterable[Sequence[EntityEvent]]
    ) -> list[Opportunity]:
        folded = [fold.fold_opportunity(events, self._fact_settings) for events in history]
        new = [opportunity for opportunity, _ in folded]
        keys = [row[:2] for row in new]
        by = ("location_id", "opportunity_id")
        old = await select(self._connection, Opportunity, by, keys)
        self._cells.touch(await replace(self._connection, Opportunity, old, new))
        stages = [stage for _, stages in folded for stage in stages]
        old_stages = await select(self._connection, OpportunityStage, by, keys)
        await replace(self._connection, OpportunityStage, old_stages, stages)
        self.touched |= {(o.location_id, o.contact_id) for o in (*old, *new) if o.contact_id}
        return new

    async def _write_appointments(self, history: Iterable[Sequence[EntityEvent]]) -> None:
        new = [fold.fold_appointment(events, self._fact_settings) for events in history]
        by = ("location_id", "appointment_id")
        old = await select(self._connection, Appointment, by, [row[:2] for row in new])
        self._cells.touch(await replace(self._connection, Appointment, old, new))
        self.touched |= {(a.location_id, a.contact_id) for a in (*old, *new) if a.contact_id}

    async def _derive(
        self, folded: Sequence[Contact], opportunities: Sequence[Opportunity]
    ) -> None:
        """Derive deals, answers and stages of the touched contacts, and write what changed."""
        connection = self._connection
        old_contacts = await select(connection, Contact, _BY_CONTACT, self.touched)
        contacts: dict[Key, Contact] = {c[:2]: c for c in old_contacts}
        contacts.update({(c.location_id, c.contact_id): c for c in folded})
        answers = await self._load_answers(contacts)
        theirs = await select(connection, Opportunity, _BY_CONTACT, self.touched)
        reported = await self._load_reported_stages(theirs)
        deals_of = await self._write_deals(contacts, theirs, opportunities, reported)
        new_contacts = [
            derive_contact(c, answers.get(key, FirstAnswers()), deals_of[key], self._fact_settings)
            for key, c in contacts.items()
        ]
        self._cells.touch(await replace(connection, Contact, old_contacts, new_contacts))
        await self._write_stages(contacts, answers, deals_of, reported)

    async def _load_answers(self, contacts: dict[Key, Contact]) -> dict[Key, FirstAnswers]:
        wanted = [
            (*key, contacts[key].created_at if key in contacts else None) for key in self.touched
        ]
        if not wanted:
            return {}
        rows = await self._connection.fetch(_ANSWERS, *map(list, zip(*wanted, strict=True)))
        return {(row[0], row[1]): FirstAnswers(*row[2:]) for row in rows}

    async def _load_reported_stages(
        self, opportunities: Sequence[Opportunity]
    ) -> dict[Key, list[ReportedStage]]:
        """Return the stages that tracking calls and opportunities' pipeline stages reported."""
        reported: dict[Key, list[ReportedStage]] = defaultdict(list)
        for row in await select(self._connection, ContactStage, _BY_CONTACT, self.touched):
            reported[row[:2]].append((row.stage, row.reported_at))
        if not self._fact_settings.pipeline_stages:
            return reported
        contact_of = {o[:2]: o.contact_id or "" for o in opportunities}
        by = ("location_id", "opportunity_id")
        for stage in await select(self._connection, OpportunityStage, by, contact_of):
            reported[stage.location_id, contact_of[stage[:2]]].append(
                (stage.stage, stage.reported_at)
            )
        return reported

    async def _write_deals(
        self,
        contacts: dict[Key, Contact],
        theirs: Sequence[Opportunity],
        opportunities: Sequence[Opportunity],
        reported: dict[Key, list[ReportedStage]],
    ) -> dict[Key, list[Deal]]:
        """Write the deals of the touched contacts and opportunities; return those of contacts."""
        connection = self._connection
        touches = await self._load_ai_touches()
        for key, stages in reported.items():
            if at := qualified_at(contacts.get(key), stages):
                touches[key].append(at)
        concerned = {o[:2]: o for o in (*theirs, *opportunities)}
        won_by = {(o.location_id, o.contact_id or "") for o in theirs if o.ever_won}
        deals = []
        for o in concerned.values():
            key = (o.location_id, o.contact_id or "")
            deals.append(derive_deal(o, contacts.get(key), touches[key], self._fact_settings))
        for key, contact in contacts.items():
            if key not in won_by:
                deals.append(derive_contact_deal(contact, touches[key], self._fact_settings))
        new = [deal for deal in deals if deal is not None]
        keys = [
            *((o.location_id, "opportunity", o.opportunity_id) for o in concerned.values()),
            *((location_id, "contact", contact_id) for location_id, contact_id in self.touched),
        ]
        old = await select(connection, Deal, ("location_id", "kind", "deal_id"), keys)
        self._cells.touch(await replace(connection, Deal, old, new))
        deals_of: dict[Key, list[Deal]] = defaultdict(list)
        for deal in new:
            deals_of[deal.location_id, deal.contact_id or ""].append(deal)
        return deals_of

    async def _load_ai_touches(self) -> dict[Key, list[datetime]]:
        touches: dict[Key, list[datetime]] = defaultdict(list)
        if self.touched:
            columns = map(list, zip(*self.touched, strict=True))
            for row in await self._connection.fetch(_AI_TOUCHES, *columns):
                touches[row[0], row[1]].append(row[2])
        return touches

    async def _write_stages(
        self,
        contacts: dict[Key, Contact],
        answers: dict[Key, FirstAnswers],
        deals_of: dict[Key, list[Deal]],
        reported: dict[Key, list[ReportedStage]],
    ) -> None:
        connection = self._connection
        appointments_of: dict[Key, list[Appointment]] = defaultdict(list)
        for appointment in await select(connection, Appointment, _BY_CONTACT, self.touched):
            key = (appointment.location_id, appointment.contact_id or "")
            appointments_of[key].append(appointment)
        new = [
            row
            for key in self.touched
            for row in derive_stages(
                key,
                contacts.get(key),
                answers.get(key, FirstAnswers()),
                deals_of[key],
                appointments_of[key],
                reported.get(key, ()),
                self._fact_settings,
            )
        ]
        old = await select(connection, PipelineStage, _BY_CONTACT, self.touched)
        self._cells.touch(await replace(connection, PipelineStage, old, new))
