"""From what a batch tells to facts: the touched entities folded anew, and what follows derived."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import asyncpg

from exporter.domain.ghl_events import APPOINTMENT, CONTACT, OPPORTUNITY, USER
from exporter.projection import fold
from exporter.projection.derive import (
    Answers,
    ToldStage,
    derive_contact,
    derive_contact_deal,
    derive_deal,
    derive_stages,
    qualified_at,
)
from exporter.projection.fact_settings import Rules
from exporter.projection.rollups import TouchedCells, touch
from exporter.projection.rows import (
    ACTIVITIES,
    APPOINTMENTS,
    CONTACT_STAGES,
    CONTACTS,
    CONVERSION_PIPELINE,
    DEALS,
    ENTITY_EVENTS,
    INTERACTIONS,
    MESSAGES,
    OPPORTUNITIES,
    OPPORTUNITY_STAGES,
    PLATFORM_WEBHOOK,
    PLATFORM_WEBHOOKS,
    RECOMMENDATION,
    RECOMMENDATIONS,
    USERS,
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
)
from exporter.projection.tables import replace, select, upsert

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
    rules: Rules,
    entities: Sequence[EntityEvent],
    messages: Sequence[Message],
    activities: Sequence[Activity],
    cells: TouchedCells,
) -> None:
    """Write what was told and all that follows from it; mark the roll-up cells it touches."""
    if not (entities or messages or activities):
        return
    placed = [a._replace(happened_day=rules.day(a.location_id, a.happened_at)) for a in activities]
    await upsert(connection, ENTITY_EVENTS, entities)
    await upsert(connection, MESSAGES, messages)
    await upsert(connection, ACTIVITIES, placed)
    for activity in placed:
        touch(cells.agent_performance, activity.location_id, [activity.happened_day])
    writer = _Writer(connection, rules, cells)
    writer.touched |= {(m.location_id, m.contact_id) for m in messages}
    writer.touched |= {(a.location_id, a.contact_id) for a in placed if a.contact_id}
    await writer.write(entities)


class _Writer:
    """The entities that a batch touches, from their history to facts."""

    def __init__(self, connection: asyncpg.Connection, rules: Rules, cells: TouchedCells) -> None:
        self._connection = connection
        self._rules = rules
        self._cells = cells
        self.touched: set[Key] = set()
        """Contacts whose deals, answers and stages may have changed."""

    async def write(self, entities: Sequence[EntityEvent]) -> None:
        """Fold the touched entities, then derive what follows for their contacts."""
        history = await self._load_history(entities)
        users = [fold.fold_user(events) for events in history[USER]]
        await upsert(self._connection, USERS, users)
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
        for row in await select(self._connection, ENTITY_EVENTS, EntityEvent, by, keys):
            grouped[row.location_id, row.family, row.entity_id].append(row)
        return grouped

    async def _write_platform_webhooks(self, entities: Iterable[EntityEvent]) -> None:
        """Fold webhooks' processing. A completion without a location is that of any start's."""
        told = [event for event in entities if event.family == PLATFORM_WEBHOOK]
        keys = {(event.location_id, event.entity_id) for event in told if event.location_id}
        if anywhere := {event.entity_id for event in told if not event.location_id}:
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
            new.append(fold.fold_platform_webhook(location_id, theirs, self._rules))
        by = ("location_id", "tracking_id")
        old = await select(self._connection, PLATFORM_WEBHOOKS, PlatformWebhook, by, keys)
        for row in await replace(self._connection, PLATFORM_WEBHOOKS, old, new):
            touch(self._cells.webhook_performance, row.location_id, [row.finished_day])

    async def _write_recommendations(self, history: Iterable[Sequence[EntityEvent]]) -> None:
        connection, cells = self._connection, self._cells
        folded = [fold.fold_recommendation(events, self._rules) for events in history]
        new = [recommendation for recommendation, _ in folded]
        keys = [row[:2] for row in new]
        by = ("location_id", "recommendation_id")
        old = await select(connection, RECOMMENDATIONS, Recommendation, by, keys)
        for row in await replace(connection, RECOMMENDATIONS, old, new):
            touch(cells.daily_business, row.location_id, [row.made_day])
            touch(cells.agent_performance, row.location_id, [row.made_day])
        interactions = [one for _, theirs in folded for one in theirs]
        before = await select(connection, INTERACTIONS, Interaction, by, keys)
        for one in await replace(connection, INTERACTIONS, before, interactions):
            touch(cells.daily_interactions, one.location_id, [one.happened_day])
            if one.contact_id:
                self.touched.add((one.location_id, one.contact_id))

    async def _write_contact_stages(
        self, history: Iterable[Sequence[EntityEvent]]
    ) -> list[Contact]:
        folded = [fold.fold_contact(events, self._rules) for events in history]
        contacts = [contact for contact, _ in folded]
        keys = {contact[:2] for contact in contacts}
        stages = [stage for _, theirs in folded for stage in theirs]
        old = await select(self._connection, CONTACT_STAGES, ContactStage, _BY_CONTACT, keys)
        await replace(self._connection, CONTACT_STAGES, old, stages)
        self.touched |= keys
        return contacts

    async def _write_opportunities(
        self, history: Iterable[Sequence[EntityEvent]]
    ) -> list[Opportunity]:
        folded = [fold.fold_opportunity(events, self._rules) for events in history]
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
        self.touched |= {(o.location_id, o.contact_id) for o in (*old, *new) if o.contact_id}
        return new

    async def _write_appointments(self, history: Iterable[Sequence[EntityEvent]]) -> None:
        new = [fold.fold_appointment(events, self._rules) for events in history]
        by = ("location_id", "appointment_id")
        old = await select(
            self._connection, APPOINTMENTS, Appointment, by, [row[:2] for row in new]
        )
        for row in await replace(self._connection, APPOINTMENTS, old, new):
            touch(self._cells.daily_business, row.location_id, [row.start_day])
        self.touched |= {(a.location_id, a.contact_id) for a in (*old, *new) if a.contact_id}

    async def _derive(
        self, folded: Sequence[Contact], opportunities: Sequence[Opportunity]
    ) -> None:
        """Derive deals, answers and stages of the touched contacts, and write what changed."""
        connection = self._connection
        old_contacts = await select(connection, CONTACTS, Contact, _BY_CONTACT, self.touched)
        contacts: dict[Key, Contact] = {c[:2]: c for c in old_contacts}
        contacts.update({(c.location_id, c.contact_id): c for c in folded})
        answers = await self._load_answers(contacts)
        theirs = await select(connection, OPPORTUNITIES, Opportunity, _BY_CONTACT, self.touched)
        told = await self._load_told_stages(theirs)
        deals_of = await self._write_deals(contacts, theirs, opportunities, told)
        new_contacts = [
            derive_contact(c, answers.get(key, Answers()), deals_of[key], self._rules)
            for key, c in contacts.items()
        ]
        for row in await replace(connection, CONTACTS, old_contacts, new_contacts):
            touch(self._cells.daily_business, row.location_id, [row.created_day])
            touch(
                self._cells.agent_performance,
                row.location_id,
                [row.created_day, row.first_answer_day],
            )
        await self._write_stages(contacts, answers, deals_of, told)

    async def _load_answers(self, contacts: dict[Key, Contact]) -> dict[Key, Answers]:
        wanted = [
            (*key, contacts[key].created_at if key in contacts else None) for key in self.touched
        ]
        if not wanted:
            return {}
        rows = await self._connection.fetch(_ANSWERS, *map(list, zip(*wanted, strict=True)))
        return {(row[0], row[1]): Answers(row[2], row[3], row[4]) for row in rows}

    async def _load_told_stages(
        self, opportunities: Sequence[Opportunity]
    ) -> dict[Key, list[ToldStage]]:
        """Return the stages that tracking calls, and pipeline stages of opportunities, told of."""
        told: dict[Key, list[ToldStage]] = defaultdict(list)
        for row in await select(
            self._connection, CONTACT_STAGES, ContactStage, _BY_CONTACT, self.touched
        ):
            told[row[:2]].append((row.stage, row.told_at))
        if not self._rules.pipeline_stages:
            return told
        contact_of = {o[:2]: o.contact_id or "" for o in opportunities}
        by = ("location_id", "opportunity_id")
        for stage in await select(
            self._connection, OPPORTUNITY_STAGES, OpportunityStage, by, contact_of
        ):
            told[stage.location_id, contact_of[stage[:2]]].append((stage.stage, stage.told_at))
        return told

    async def _write_deals(
        self,
        contacts: dict[Key, Contact],
        theirs: Sequence[Opportunity],
        opportunities: Sequence[Opportunity],
        told: dict[Key, list[ToldStage]],
    ) -> dict[Key, list[Deal]]:
        """Write the deals of the touched contacts and opportunities; return those of contacts."""
        connection = self._connection
        touches = await self._load_ai_touches()
        for key, stages in told.items():
            if at := qualified_at(contacts.get(key), stages):
                touches[key].append(at)
        concerned = {o[:2]: o for o in (*theirs, *opportunities)}
        won_by = {(o.location_id, o.contact_id or "") for o in theirs if o.ever_won}
        deals = []
        for o in concerned.values():
            key = (o.location_id, o.contact_id or "")
            deals.append(derive_deal(o, contacts.get(key), touches[key], self._rules))
        for key, contact in contacts.items():
            if key not in won_by:
                deals.append(derive_contact_deal(contact, touches[key], self._rules))
        new = [deal for deal in deals if deal is not None]
        keys = [
            *((o.location_id, "opportunity", o.opportunity_id) for o in concerned.values()),
            *((location_id, "contact", contact_id) for location_id, contact_id in self.touched),
        ]
        old = await select(connection, DEALS, Deal, ("location_id", "kind", "deal_id"), keys)
        for row in await replace(connection, DEALS, old, new):
            touch(self._cells.daily_business, row.location_id, [row.closed_day])
            touch(self._cells.agent_performance, row.location_id, [row.closed_day])
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
        answers: dict[Key, Answers],
        deals_of: dict[Key, list[Deal]],
        told: dict[Key, list[ToldStage]],
    ) -> None:
        connection = self._connection
        appointments_of: dict[Key, list[Appointment]] = defaultdict(list)
        for appointment in await select(
            connection, APPOINTMENTS, Appointment, _BY_CONTACT, self.touched
        ):
            key = (appointment.location_id, appointment.contact_id or "")
            appointments_of[key].append(appointment)
        new = [
            row
            for key in self.touched
            for row in derive_stages(
                key,
                contacts.get(key),
                answers.get(key, Answers()),
                deals_of[key],
                appointments_of[key],
                told.get(key, ()),
                self._rules,
            )
        ]
        old = await select(
            connection, CONVERSION_PIPELINE, PipelineStage, _BY_CONTACT, self.touched
        )
        for changed in await replace(connection, CONVERSION_PIPELINE, old, new):
            touch(self._cells.daily_stages, changed.location_id, [changed.reached_day])
