"""Fold an entity's events, in the order of their own times, to its present state.

Pure functions: the same events give the same state, however and whenever they arrived. The rules
are those of `docs/kpis.md`, "State", "Deal" and "Stages".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from exporter.domain.platform_calls import (
    ACCEPTING,
    PROPERTY_INTERACTION,
    PROPERTY_RECOMMENDATION,
    WEBHOOK_COMPLETION,
    WEBHOOK_START,
)
from exporter.domain.stages import LEAD_CREATED
from exporter.projection.fact_settings import Rules
from exporter.projection.interpret.reading import GHL_PRECEDENCE
from exporter.projection.rows import (
    DEAL_TOLD,
    FOUND,
    Appointment,
    Contact,
    ContactStage,
    EntityEvent,
    Interaction,
    Opportunity,
    OpportunityStage,
    PlatformWebhook,
    Recommendation,
    User,
)

# Told of the first run of a status, these say when it began; other events only find it so.
_TELLS_BEGINNING = ("OpportunityCreate", "OpportunityStatusUpdate", DEAL_TOLD)


def in_order(events: Iterable[EntityEvent]) -> list[EntityEvent]:
    """Sort by event time, then precedence, then key (text sorts as its UTF-8 bytes do)."""
    return sorted(events, key=lambda e: (e.event_time, e.precedence, e.idempotency_key))


def _before_delete(events: Sequence[EntityEvent]) -> tuple[Sequence[EntityEvent], bool]:
    """Cut off the first Delete and all that follows: they tell nothing, and it never comes back."""
    for position, event in enumerate(events):
        if event.event_type.endswith("Delete"):
            return events[:position], True
    return events, False


def _latest(events: Iterable[EntityEvent]) -> dict[str, Any]:
    """Fold fields: what an event doesn't say stays, an explicit null means none."""
    state: dict[str, Any] = {}
    for event in events:
        state.update(event.fields)
    return state


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def fold_contact(events: Sequence[EntityEvent], rules: Rules) -> tuple[Contact, list[ContactStage]]:
    """Fold a contact, and the stages that were tracked; its answers and deals are derived later."""
    told, deleted = _before_delete(events)
    from_ghl = _latest(event for event in told if event.precedence == GHL_PRECEDENCE)
    location_id, contact_id = events[0].location_id, events[0].entity_id
    stages: dict[str, datetime] = {}
    for event in told:
        if stage := event.fields.get("stage"):
            stages.setdefault(stage, event.event_time)
    beginnings = [_time(from_ghl.get("created_at")), stages.get(LEAD_CREATED)]
    created_at = min((at for at in beginnings if at is not None), default=None)
    scored = next((event for event in told if event.fields.get("score") is not None), None)
    deals = [event for event in told if event.event_type == DEAL_TOLD]
    contact = Contact(
        location_id,
        contact_id,
        created_at,
        rules.day(location_id, created_at),
        from_ghl.get("owner"),
        deleted,
        _decimal(scored.fields["score"]) if scored else None,
        scored.event_time if scored else None,
        deals[0].event_time if deals else None,
        _decimal(_latest(deals).get("value")),
        deals[0].fields.get("agent") if deals else None,
    )
    return contact, [ContactStage(location_id, contact_id, *item) for item in stages.items()]


@dataclass(slots=True)
class _Run:
    """A stretch of events with one status."""

    began_at: datetime | None
    owner: str | None
    since: datetime | None = None
    known: bool = True
    """False where it began before anything was known, so that a later event has to tell when."""


def fold_opportunity(
    events: Sequence[EntityEvent], rules: Rules
) -> tuple[Opportunity, list[OpportunityStage]]:
    """Fold an opportunity, and the stages that its pipeline stages told of."""
    told, deleted = _before_delete(events)
    location_id, entity_id = events[0].location_id, events[0].entity_id
    status: str | None = None
    owner: str | None = None
    run = _Run(None, None, known=False)
    ever_won = False
    stages: dict[str, datetime] = {}
    for position, event in enumerate(told):
        fields: Mapping[str, Any] = event.fields
        owner = fields.get("owner", owner)
        now = fields.get("status", status)
        found = event.event_type == FOUND
        since = _time(fields.get("status_since")) if found else None
        if not position or now != status:
            # A state that was found says itself since when it is so.
            at = since if found else event.event_time
            run = _Run(at, owner) if position or found else _Run(None, owner, known=False)
        elif run.owner is None:
            run.owner = owner
        status = now
        ever_won = ever_won or status == "won"
        if not run.known:
            if run.began_at is None and event.event_type in _TELLS_BEGINNING:
                run.began_at = event.event_time
            run.since = run.since or since
        stage = rules.pipeline_stages.get(fields.get("pipeline_stage") or "")
        if stage is not None:
            stages.setdefault(stage, event.event_time)
    began_at = run.began_at or run.since
    state = _latest(told)
    opened_day = rules.day(location_id, events[0].event_time)
    assert opened_day is not None
    opportunity = Opportunity(
        location_id,
        entity_id,
        state.get("contact"),
        status,
        _decimal(state.get("value")),
        owner,
        opened_day,
        began_at,
        rules.day(location_id, began_at),
        run.owner,
        ever_won,
        deleted,
    )
    return opportunity, [
        OpportunityStage(location_id, entity_id, stage, at) for stage, at in stages.items()
    ]


def fold_appointment(events: Sequence[EntityEvent], rules: Rules) -> Appointment:
    """Fold an appointment."""
    told, deleted = _before_delete(events)
    location_id = events[0].location_id
    status: str | None = None
    showed_at: datetime | None = None
    for event in told:
        now = event.fields.get("status", status)
        if now != status:
            showed_at = event.event_time if now == "showed" else None
        status = now
    state = _latest(told)
    calendar = state.get("calendar")
    starts_at = _time(state.get("starts_at"))
    is_showing = not rules.showing_calendars or calendar in rules.showing_calendars
    return Appointment(
        location_id,
        events[0].entity_id,
        state.get("contact"),
        calendar,
        status,
        starts_at,
        rules.day(location_id, starts_at),
        events[0].event_time,
        showed_at if is_showing else None,
        deleted,
    )


def fold_recommendation(
    events: Sequence[EntityEvent], rules: Rules
) -> tuple[Recommendation, list[Interaction]]:
    """Fold a recommendation: the first told is the one that counts, with all its interactions."""
    location_id, recommendation_id = events[0].location_id, events[0].entity_id
    made = next((e for e in events if e.event_type == PROPERTY_RECOMMENDATION), None)
    fields = made.fields if made else {}
    contact_id = fields.get("contact")
    interactions = [
        Interaction(
            location_id,
            recommendation_id,
            event.idempotency_key,
            event.fields["interaction"],
            event.fields.get("contact") or contact_id,
            event.event_time,
            rules.known_day(location_id, event.event_time),
        )
        for event in events
        if event.event_type == PROPERTY_INTERACTION
    ]
    kinds = {interaction.interaction for interaction in interactions}
    made_at = made.event_time if made else None
    recommendation = Recommendation(
        location_id,
        recommendation_id,
        contact_id,
        fields.get("agent"),
        fields.get("property"),
        _decimal(fields.get("score")),
        made_at,
        rules.day(location_id, made_at),
        bool(kinds.intersection(ACCEPTING)),
        "scheduled" in kinds,
    )
    return recommendation, interactions


def fold_platform_webhook(
    location_id: str, events: Sequence[EntityEvent], rules: Rules
) -> PlatformWebhook:
    """Fold a webhook's processing: its earliest start and its earliest completion.

    Without a completion it fails once its time has run out; without a start it is in no KPI.
    """
    start = next((e for e in events if e.event_type == WEBHOOK_START), None)
    end = next((e for e in events if e.event_type == WEBHOOK_COMPLETION), None)
    runs_out_at = start.event_time + rules.webhook_timeout if start else None
    finished_at = (end.event_time if end else runs_out_at) if start else None
    fields = end.fields if end else {}
    return PlatformWebhook(
        location_id,
        events[0].entity_id,
        start.fields.get("webhook_type") if start else None,
        start.event_time if start else None,
        end.event_time if end else None,
        runs_out_at,
        rules.day(location_id, finished_at),
        bool(fields.get("success")),
        bool(fields.get("enriched")),
        bool(fields.get("ai_activated")),
    )


def fold_user(events: Sequence[EntityEvent]) -> User:
    """Fold a user."""
    told, deleted = _before_delete(events)
    state = _latest(told)
    return User(
        events[0].location_id, events[0].entity_id, state.get("name"), state.get("role"), deleted
    )
