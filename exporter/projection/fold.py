"""Fold an entity's events, in the order of their own times, to its present state.

Pure functions: the same events give the same state, however and whenever they arrived. The rules
are those of `docs/kpis.md`, "State", "Deal" and "Stages".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from exporter.projection.rows import (
    Appointment,
    Contact,
    EntityEvent,
    Opportunity,
    OpportunityStage,
    User,
)
from exporter.projection.rules import Rules

# Told of the first run of a status, these say when it began; other events only find it so.
_TELLS_BEGINNING = ("OpportunityCreate", "OpportunityStatusUpdate")


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


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def fold_contact(events: Sequence[EntityEvent], rules: Rules) -> Contact:
    """Fold a contact; its answers and its deal are derived later."""
    told, deleted = _before_delete(events)
    state = _latest(told)
    location_id = events[0].location_id
    created_at = _time(state.get("created_at"))
    return Contact(
        location_id,
        events[0].entity_id,
        created_at,
        rules.day(location_id, created_at),
        state.get("owner"),
        deleted,
    )


@dataclass(slots=True)
class _Run:
    """A stretch of events with one status."""

    began_at: datetime | None
    owner: str | None
    first: bool


def fold_opportunity(
    events: Sequence[EntityEvent], rules: Rules
) -> tuple[Opportunity, list[OpportunityStage]]:
    """Fold an opportunity, and the stages that its pipeline stages told of."""
    told, deleted = _before_delete(events)
    location_id, entity_id = events[0].location_id, events[0].entity_id
    status: str | None = None
    owner: str | None = None
    run = _Run(None, None, first=True)
    stages: dict[str, datetime] = {}
    for position, event in enumerate(told):
        fields: Mapping[str, Any] = event.fields
        owner = fields.get("owner", owner)
        now = fields.get("status", status)
        if position and now != status:
            run = _Run(event.event_time, owner, first=False)
        elif run.owner is None:
            run.owner = owner
        status = now
        if run.first and run.began_at is None and event.event_type in _TELLS_BEGINNING:
            run.began_at = event.event_time
        stage = rules.pipeline_stages.get(fields.get("pipeline_stage") or "")
        if stage is not None:
            stages.setdefault(stage, event.event_time)
    state = _latest(told)
    value = state.get("value")
    opened_day = rules.day(location_id, events[0].event_time)
    assert opened_day is not None
    opportunity = Opportunity(
        location_id,
        entity_id,
        state.get("contact"),
        status,
        None if value is None else Decimal(value),
        owner,
        opened_day,
        run.began_at,
        rules.day(location_id, run.began_at),
        run.owner,
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


def fold_user(events: Sequence[EntityEvent]) -> User:
    """Fold a user."""
    told, deleted = _before_delete(events)
    state = _latest(told)
    return User(
        events[0].location_id, events[0].entity_id, state.get("name"), state.get("role"), deleted
    )
