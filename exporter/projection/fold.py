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
from exporter.projection.fact_settings import FactSettings
from exporter.projection.interpret.reading import GHL_PRECEDENCE
from exporter.projection.schema import (
    BACKFILLED,
    TRACKED_DEAL,
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

# Events that report when an opportunity's first known status began; others only show the status.
_STATUS_EVENTS = ("OpportunityCreate", "OpportunityStatusUpdate", TRACKED_DEAL)


def in_order(events: Iterable[EntityEvent]) -> list[EntityEvent]:
    """Sort by event time, then precedence, then key (text sorts as its UTF-8 bytes do)."""
    return sorted(events, key=lambda e: (e.event_time, e.precedence, e.idempotency_key))


def _before_delete(events: Sequence[EntityEvent]) -> tuple[Sequence[EntityEvent], bool]:
    """Return the events before the first Delete, and whether there is one.

    A deleted entity never returns, so later events change nothing.
    """
    for position, event in enumerate(events):
        if event.event_type.endswith("Delete"):
            return events[:position], True
    return events, False


def _latest(events: Iterable[EntityEvent]) -> dict[str, Any]:
    """Fold fields: a missing field keeps its value, an explicit null removes it."""
    state: dict[str, Any] = {}
    for event in events:
        state.update(event.fields)
    return state


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def fold_contact(
    events: Sequence[EntityEvent], fact_settings: FactSettings
) -> tuple[Contact, list[ContactStage]]:
    """Fold a contact and the stages that were tracked. Its answers and deals are derived later."""
    known, deleted = _before_delete(events)
    from_ghl = _latest(event for event in known if event.precedence == GHL_PRECEDENCE)
    location_id, contact_id = events[0].location_id, events[0].entity_id
    stages: dict[str, datetime] = {}
    for event in known:
        if stage := event.fields.get("stage"):
            stages.setdefault(stage, event.event_time)
    beginnings = [_time(from_ghl.get("created_at")), stages.get(LEAD_CREATED)]
    created_at = min((at for at in beginnings if at is not None), default=None)
    scored = next((event for event in known if event.fields.get("score") is not None), None)
    deals = [event for event in known if event.event_type == TRACKED_DEAL]
    contact = Contact(
        location_id=location_id,
        contact_id=contact_id,
        created_at=created_at,
        created_day=fact_settings.day(location_id, created_at),
        owner_id=from_ghl.get("owner"),
        deleted=deleted,
        first_score=_decimal(scored.fields["score"]) if scored else None,
        first_score_at=scored.event_time if scored else None,
        tracked_deal_at=deals[0].event_time if deals else None,
        tracked_deal_value=_decimal(_latest(deals).get("value")),
        tracked_deal_agent=deals[0].fields.get("agent") if deals else None,
    )
    return contact, [
        ContactStage(
            location_id=location_id, contact_id=contact_id, stage=stage, reported_at=reported_at
        )
        for stage, reported_at in stages.items()
    ]


@dataclass(slots=True)
class _StatusRun:
    """Consecutive events with the same status.

    `since`: when the status began, as events report it; `since_backfilled`: as the back-fill
    reports it. `start_known` is False if the status began before the first event, so that only a
    later event can report when.
    """

    since: datetime | None
    owner: str | None
    since_backfilled: datetime | None = None
    start_known: bool = True


def fold_opportunity(
    events: Sequence[EntityEvent], fact_settings: FactSettings
) -> tuple[Opportunity, list[OpportunityStage]]:
    """Fold an opportunity, and the stages that its pipeline stages stand for."""
    known, deleted = _before_delete(events)
    location_id, entity_id = events[0].location_id, events[0].entity_id
    status: str | None = None
    owner: str | None = None
    run = _StatusRun(None, None, start_known=False)
    ever_won = False
    stages: dict[str, datetime] = {}
    for position, event in enumerate(known):
        fields: Mapping[str, Any] = event.fields
        owner = fields.get("owner", owner)
        new_status = fields.get("status", status)
        backfilled = event.event_type == BACKFILLED
        since = _time(fields.get("status_since")) if backfilled else None
        if not position or new_status != status:
            # A back-filled state reports itself since when it has its status.
            started_at = since if backfilled else event.event_time
            run = (
                _StatusRun(started_at, owner)
                if position or backfilled
                else _StatusRun(None, owner, start_known=False)
            )
        elif run.owner is None:
            run.owner = owner
        status = new_status
        ever_won = ever_won or status == "won"
        if not run.start_known:
            if run.since is None and event.event_type in _STATUS_EVENTS:
                run.since = event.event_time
            run.since_backfilled = run.since_backfilled or since
        stage = fact_settings.pipeline_stages.get(fields.get("pipeline_stage") or "")
        if stage is not None:
            stages.setdefault(stage, event.event_time)
    status_since = run.since or run.since_backfilled
    state = _latest(known)
    opportunity = Opportunity(
        location_id=location_id,
        opportunity_id=entity_id,
        contact_id=state.get("contact"),
        status=status,
        monetary_value=_decimal(state.get("value")),
        owner_id=owner,
        first_seen_day=fact_settings.known_day(location_id, events[0].event_time),
        status_since=status_since,
        status_since_day=fact_settings.day(location_id, status_since),
        status_owner_id=run.owner,
        ever_won=ever_won,
        deleted=deleted,
    )
    return opportunity, [
        OpportunityStage(
            location_id=location_id, opportunity_id=entity_id, stage=stage, reported_at=reported_at
        )
        for stage, reported_at in stages.items()
    ]


def fold_appointment(events: Sequence[EntityEvent], fact_settings: FactSettings) -> Appointment:
    """Fold an appointment."""
    known, deleted = _before_delete(events)
    location_id = events[0].location_id
    status: str | None = None
    showed_at: datetime | None = None
    for event in known:
        new_status = event.fields.get("status", status)
        if new_status != status:
            showed_at = event.event_time if new_status == "showed" else None
        status = new_status
    state = _latest(known)
    calendar = state.get("calendar")
    starts_at = _time(state.get("starts_at"))
    is_showing = not fact_settings.showing_calendars or calendar in fact_settings.showing_calendars
    return Appointment(
        location_id=location_id,
        appointment_id=events[0].entity_id,
        contact_id=state.get("contact"),
        calendar_id=calendar,
        status=status,
        starts_at=starts_at,
        start_day=fact_settings.day(location_id, starts_at),
        scheduled_at=events[0].event_time,
        showed_at=showed_at if is_showing else None,
        deleted=deleted,
    )


def fold_recommendation(
    events: Sequence[EntityEvent], fact_settings: FactSettings
) -> tuple[Recommendation, list[Interaction]]:
    """Fold a recommendation: the first one reported counts, with all its interactions."""
    location_id, recommendation_id = events[0].location_id, events[0].entity_id
    made = next((e for e in events if e.event_type == PROPERTY_RECOMMENDATION), None)
    fields = made.fields if made else {}
    contact_id = fields.get("contact")
    interactions = [
        Interaction(
            location_id=location_id,
            recommendation_id=recommendation_id,
            idempotency_key=event.idempotency_key,
            interaction=event.fields["interaction"],
            contact_id=event.fields.get("contact") or contact_id,
            happened_at=event.event_time,
            happened_day=fact_settings.known_day(location_id, event.event_time),
        )
        for event in events
        if event.event_type == PROPERTY_INTERACTION
    ]
    kinds = {interaction.interaction for interaction in interactions}
    made_at = made.event_time if made else None
    recommendation = Recommendation(
        location_id=location_id,
        recommendation_id=recommendation_id,
        contact_id=contact_id,
        agent_id=fields.get("agent"),
        property_id=fields.get("property"),
        score=_decimal(fields.get("score")),
        made_at=made_at,
        made_day=fact_settings.day(location_id, made_at),
        accepted=bool(kinds.intersection(ACCEPTING)),
        scheduled="scheduled" in kinds,
    )
    return recommendation, interactions


def fold_platform_webhook(
    location_id: str, events: Sequence[EntityEvent], fact_settings: FactSettings
) -> PlatformWebhook:
    """Fold a webhook's processing: its earliest start and its earliest completion.

    Without a completion it fails when it times out; without a start it counts in no KPI.
    """
    start = next((e for e in events if e.event_type == WEBHOOK_START), None)
    end = next((e for e in events if e.event_type == WEBHOOK_COMPLETION), None)
    times_out_at = start.event_time + fact_settings.webhook_timeout if start else None
    finished_at = (end.event_time if end else times_out_at) if start else None
    fields = end.fields if end else {}
    return PlatformWebhook(
        location_id=location_id,
        tracking_id=events[0].entity_id,
        webhook_type=start.fields.get("webhook_type") if start else None,
        started_at=start.event_time if start else None,
        completed_at=end.event_time if end else None,
        times_out_at=times_out_at,
        finished_day=fact_settings.day(location_id, finished_at),
        succeeded=bool(fields.get("success")),
        enriched=bool(fields.get("enriched")),
        ai_activated=bool(fields.get("ai_activated")),
    )


def fold_user(events: Sequence[EntityEvent]) -> User:
    """Fold a user."""
    known, deleted = _before_delete(events)
    state = _latest(known)
    return User(
        location_id=events[0].location_id,
        user_id=events[0].entity_id,
        name=state.get("name"),
        role=state.get("role"),
        deleted=deleted,
    )
