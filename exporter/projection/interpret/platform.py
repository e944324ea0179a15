"""What the AI platform's tracking calls tell.

The receiver has validated them; what is read here is read as leniently as GHL's bodies all the
same, so that no stored event can stop the others. An explicit null means not given.
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
    Poison,
    decimal_text,
    entity_event,
    lower,
)
from exporter.projection.rows import (
    DEAL_TOLD,
    PLATFORM_WEBHOOK,
    RECOMMENDATION,
    Activity,
    EntityEvent,
)


def interpret_platform(event: StoredEvent, fields: Fields) -> Interpretation:
    """Read a tracking call. Raises Poison."""
    read = _READERS.get(event.endpoint)
    if read is None:
        raise Poison(f"there is no tracking call {event.endpoint}")
    # A completion belongs to where its start was; it need not know.
    if not event.location_id and event.endpoint != platform_calls.WEBHOOK_COMPLETION:
        raise Poison("the call names no location")
    given = {name: value for name, value in fields.items() if value is not None}
    return read(event, event_time(event, given), given)


def event_time(event: StoredEvent, fields: Fields) -> datetime:
    """Return `occurred_at`, or when the call was first received."""
    told = fields.get("occurred_at")
    return clean_time(told) or event.received_at


def _id(fields: Fields, name: str) -> str:
    value = clean_text(fields.get(name))
    if value is None:
        raise Poison(f"the call lacks {name}")
    return value


def _tell(
    event: StoredEvent,
    entity: tuple[str, str],
    time: datetime,
    told: dict[str, Any],
    name: str | None = None,
) -> EntityEvent:
    """Return what a call tells of an entity. `name`: of the event; the call's own unless given."""
    told = {key: value for key, value in told.items() if value is not None}
    return entity_event(event, PLATFORM_PRECEDENCE, entity, time, name or event.endpoint, told)


def _conversion(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    """Read a stage that a contact reached; a deal of an opportunity is the opportunity's event."""
    contact_id = _id(fields, "contact_id")
    contact = (CONTACT, contact_id)
    stage = lower(fields.get("stage"))
    if stage not in STAGES:
        raise Poison("the call names no stage")
    score = {"score": decimal_text(fields.get("ai_score"))}
    if stage != DEAL_CLOSED:
        return Interpretation([_tell(event, contact, time, {**score, "stage": stage})])
    value = decimal_text(fields.get("deal_value"))
    agent_id = clean_text(fields.get("agent_id"))
    opportunity_id = clean_text(fields.get("opportunity_id"))
    if opportunity_id is None:
        deal = {**score, "value": value, "agent": agent_id}
        return Interpretation([_tell(event, contact, time, deal, DEAL_TOLD)])
    won = {"status": "won", "value": value, "owner": agent_id, "contact": contact_id}
    return Interpretation(
        [
            _tell(event, (OPPORTUNITY, opportunity_id), time, won, DEAL_TOLD),
            _tell(event, contact, time, score),
        ]
    )


def _activity(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    minutes = clean_number(fields.get("response_time_minutes"))
    return Interpretation(
        activities=[
            Activity(
                event.location_id,
                event.idempotency_key,
                _id(fields, "agent_id"),
                clean_text(fields.get("contact_id")),
                time,
                None,
                None if minutes is None else float(minutes) * 60,
                fields.get("ai_recommendation_used") is True,
            )
        ]
    )


def _recommendation(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    told = {
        "contact": clean_text(fields.get("contact_id")),
        "agent": clean_text(fields.get("agent_id")),
        "property": clean_text(fields.get("property_id")),
        "score": decimal_text(fields.get("recommendation_score")),
    }
    entity = (RECOMMENDATION, _id(fields, "recommendation_id"))
    return Interpretation([_tell(event, entity, time, told)])


def _interaction(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    kind = lower(fields.get("interaction_type"))
    if kind not in platform_calls.INTERACTIONS:
        raise Poison("the call names no interaction_type")
    told = {"interaction": kind, "contact": clean_text(fields.get("contact_id"))}
    entity = (RECOMMENDATION, _id(fields, "recommendation_id"))
    return Interpretation([_tell(event, entity, time, told)])


def _webhook_start(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    told = {"webhook_type": clean_text(fields.get("webhook_type"))}
    entity = (PLATFORM_WEBHOOK, _id(fields, "tracking_id"))
    return Interpretation([_tell(event, entity, time, told)])


def _webhook_completion(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    found = fields.get("enrichment_data")
    told = {
        "success": fields.get("success") is True,
        "enriched": isinstance(found, dict) and any(map(_is_something, found.values())),
        "ai_activated": fields.get("ai_activated") is True,
    }
    entity = (PLATFORM_WEBHOOK, _id(fields, "tracking_id"))
    return Interpretation([_tell(event, entity, time, told)])


def _is_something(value: object) -> bool:
    """Tell whether an entry was found: not null, false or empty; 0 is a value."""
    return value is not None and value is not False and value not in ("", [], {})


_READERS: dict[str, Callable[[StoredEvent, datetime, Fields], Interpretation]] = {
    platform_calls.CONVERSION: _conversion,
    platform_calls.AGENT_ACTIVITY: _activity,
    platform_calls.PROPERTY_RECOMMENDATION: _recommendation,
    platform_calls.PROPERTY_INTERACTION: _interaction,
    platform_calls.WEBHOOK_START: _webhook_start,
    platform_calls.WEBHOOK_COMPLETION: _webhook_completion,
}
