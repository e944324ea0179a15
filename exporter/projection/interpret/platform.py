"""Interpret the AI platform's tracking calls.

The API validates them before it stores them. They are still read as leniently as GHL's bodies, so
that no stored event can stop the others. An explicit null means not given.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from exporter.domain import platform_calls
from exporter.domain.event import StoredEvent
from exporter.domain.ghl_events import CONTACT, OPPORTUNITY
from exporter.domain.json_fields import clean_number, clean_text, clean_time
from exporter.domain.stages import DEAL_CLOSED, STAGES
from exporter.projection.interpret.reading import (
    PLATFORM_PRECEDENCE,
    Fields,
    Interpretation,
    InvalidEventError,
    decimal_text,
    entity_event,
    lower,
)
from exporter.projection.schema import (
    PLATFORM_WEBHOOK,
    RECOMMENDATION,
    TRACKED_DEAL,
    Activity,
    EntityEvent,
)


def interpret_platform(event: StoredEvent, fields: Fields) -> Interpretation:
    """Read a tracking call. Raises InvalidEventError."""
    read = _READERS.get(event.endpoint)
    if read is None:
        raise InvalidEventError(f"there is no tracking call {event.endpoint}")
    # A completion belongs to the location of its start; it need not name it.
    if not event.location_id and event.endpoint != platform_calls.WEBHOOK_COMPLETION:
        raise InvalidEventError("the call names no location")
    given = {name: value for name, value in fields.items() if value is not None}
    return read(event, event_time(event, given), given)


def event_time(event: StoredEvent, fields: Fields) -> datetime:
    """Return `occurred_at`, or when the call was first received."""
    return clean_time(fields.get("occurred_at")) or event.received_at


def _id(fields: Fields, name: str) -> str:
    value = clean_text(fields.get(name))
    if value is None:
        raise InvalidEventError(f"the call lacks {name}")
    return value


def _entity_event(
    event: StoredEvent,
    entity: tuple[str, str],
    time: datetime,
    fields: dict[str, Any],
    name: str | None = None,
) -> EntityEvent:
    """Return a call as an event of an entity. `name`: of the event; the call's own unless given."""
    family, entity_id = entity
    return entity_event(
        event,
        precedence=PLATFORM_PRECEDENCE,
        family=family,
        entity_id=entity_id,
        time=time,
        name=name or event.endpoint,
        fields={key: value for key, value in fields.items() if value is not None},
    )


def _conversion(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    """Read a stage of a contact; a deal with an opportunity is an event of the opportunity."""
    contact_id = _id(fields, "contact_id")
    contact = (CONTACT, contact_id)
    stage = lower(fields.get("stage"))
    if stage not in STAGES:
        raise InvalidEventError("the call names no stage")
    score = {"score": decimal_text(fields.get("ai_score"))}
    if stage != DEAL_CLOSED:
        return Interpretation([_entity_event(event, contact, time, {**score, "stage": stage})])
    value = decimal_text(fields.get("deal_value"))
    agent_id = clean_text(fields.get("agent_id"))
    opportunity_id = clean_text(fields.get("opportunity_id"))
    if opportunity_id is None:
        deal = {**score, "value": value, "agent": agent_id}
        return Interpretation([_entity_event(event, contact, time, deal, TRACKED_DEAL)])
    won = {"status": "won", "value": value, "owner": agent_id, "contact": contact_id}
    return Interpretation(
        [
            _entity_event(event, (OPPORTUNITY, opportunity_id), time, won, TRACKED_DEAL),
            _entity_event(event, contact, time, score),
        ]
    )


def _activity(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    minutes = clean_number(fields.get("response_time_minutes"))
    return Interpretation(
        activities=[
            Activity(
                location_id=event.location_id,
                idempotency_key=event.idempotency_key,
                agent_id=_id(fields, "agent_id"),
                contact_id=clean_text(fields.get("contact_id")),
                happened_at=time,
                happened_day=None,  # the writer knows the location's time zone
                response_seconds=None if minutes is None else float(minutes) * 60,
                ai_used=fields.get("ai_recommendation_used") is True,
            )
        ]
    )


def _recommendation(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    reported = {
        "contact": clean_text(fields.get("contact_id")),
        "agent": clean_text(fields.get("agent_id")),
        "property": clean_text(fields.get("property_id")),
        "score": decimal_text(fields.get("recommendation_score")),
    }
    entity = (RECOMMENDATION, _id(fields, "recommendation_id"))
    return Interpretation([_entity_event(event, entity, time, reported)])


def _interaction(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    kind = lower(fields.get("interaction_type"))
    if kind not in platform_calls.INTERACTIONS:
        raise InvalidEventError("the call names no interaction_type")
    reported = {"interaction": kind, "contact": clean_text(fields.get("contact_id"))}
    entity = (RECOMMENDATION, _id(fields, "recommendation_id"))
    return Interpretation([_entity_event(event, entity, time, reported)])


def _webhook_start(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    reported = {"webhook_type": clean_text(fields.get("webhook_type"))}
    entity = (PLATFORM_WEBHOOK, _id(fields, "tracking_id"))
    return Interpretation([_entity_event(event, entity, time, reported)])


def _webhook_completion(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    enrichment = fields.get("enrichment_data")
    reported = {
        "success": fields.get("success") is True,
        "enriched": isinstance(enrichment, dict) and any(map(_has_value, enrichment.values())),
        "ai_activated": fields.get("ai_activated") is True,
    }
    entity = (PLATFORM_WEBHOOK, _id(fields, "tracking_id"))
    return Interpretation([_entity_event(event, entity, time, reported)])


def _has_value(value: object) -> bool:
    """Return whether an entry has a value: not null, false or empty; 0 is a value."""
    return value is not None and value is not False and value not in ("", [], {})


_READERS: dict[str, Callable[[StoredEvent, datetime, Fields], Interpretation]] = {
    platform_calls.CONVERSION: _conversion,
    platform_calls.AGENT_ACTIVITY: _activity,
    platform_calls.PROPERTY_RECOMMENDATION: _recommendation,
    platform_calls.PROPERTY_INTERACTION: _interaction,
    platform_calls.WEBHOOK_START: _webhook_start,
    platform_calls.WEBHOOK_COMPLETION: _webhook_completion,
}
