"""What the AI platform's tracking calls tell.

The receiver has validated them; what is read here is read as leniently as GHL's bodies all the
same, so that no stored event can stop the others. An explicit null means not given.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from exporter import tracking
from exporter.fields import clean_number, clean_text, clean_time
from exporter.ghl import CONTACT, OPPORTUNITY
from exporter.inbox.event import StoredEvent
from exporter.projection.interpret.told import (
    PLATFORM_PRECEDENCE,
    Fields,
    Interpretation,
    Poison,
    decimal_text,
    lower,
)
from exporter.projection.rows import (
    DEAL_TOLD,
    PLATFORM_WEBHOOK,
    RECOMMENDATION,
    Activity,
    EntityEvent,
)
from exporter.stages import DEAL_CLOSED, STAGES


def interpret_platform(event: StoredEvent, fields: Fields) -> Interpretation:
    """Read a tracking call. Raises Poison."""
    read = _READERS.get(event.endpoint)
    if read is None:
        raise Poison(f"there is no tracking call {event.endpoint}")
    # A completion belongs to where its start was; it need not know.
    if not event.location_id and event.endpoint != tracking.WEBHOOK_COMPLETION:
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
    family: str,
    entity_id: str,
    time: datetime,
    name: str,
    told: dict[str, Any],
) -> EntityEvent:
    return EntityEvent(
        event.location_id,
        family,
        entity_id,
        time,
        PLATFORM_PRECEDENCE,
        event.idempotency_key,
        name,
        {key: value for key, value in told.items() if value is not None},
    )


def _conversion(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    """Read a stage that a contact reached; a deal of an opportunity is the opportunity's event."""
    contact_id = _id(fields, "contact_id")
    stage = lower(fields.get("stage"))
    if stage not in STAGES:
        raise Poison("the call names no stage")
    opportunity_id = clean_text(fields.get("opportunity_id"))
    of_contact: dict[str, Any] = {"score": decimal_text(fields.get("ai_score"))}
    entities = []
    name = tracking.CONVERSION
    if stage == DEAL_CLOSED:
        value = decimal_text(fields.get("deal_value"))
        agent_id = clean_text(fields.get("agent_id"))
        if opportunity_id is not None:
            told = {"status": "won", "value": value, "owner": agent_id, "contact": contact_id}
            entities.append(_tell(event, OPPORTUNITY, opportunity_id, time, DEAL_TOLD, told))
        else:
            name = DEAL_TOLD
            of_contact |= {"value": value, "agent": agent_id}
    else:
        of_contact["stage"] = stage
    entities.append(_tell(event, CONTACT, contact_id, time, name, of_contact))
    return Interpretation(entities=entities)


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
    return Interpretation(
        entities=[
            _tell(
                event,
                RECOMMENDATION,
                _id(fields, "recommendation_id"),
                time,
                tracking.PROPERTY_RECOMMENDATION,
                told,
            )
        ]
    )


def _interaction(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    kind = lower(fields.get("interaction_type"))
    if kind not in tracking.INTERACTIONS:
        raise Poison("the call names no interaction_type")
    told = {"interaction": kind, "contact": clean_text(fields.get("contact_id"))}
    return Interpretation(
        entities=[
            _tell(
                event,
                RECOMMENDATION,
                _id(fields, "recommendation_id"),
                time,
                tracking.PROPERTY_INTERACTION,
                told,
            )
        ]
    )


def _webhook_start(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    told = {"webhook_type": clean_text(fields.get("webhook_type"))}
    return Interpretation(
        entities=[
            _tell(
                event,
                PLATFORM_WEBHOOK,
                _id(fields, "tracking_id"),
                time,
                tracking.WEBHOOK_START,
                told,
            )
        ]
    )


def _webhook_completion(event: StoredEvent, time: datetime, fields: Fields) -> Interpretation:
    found = fields.get("enrichment_data")
    told = {
        "success": fields.get("success") is True,
        "enriched": isinstance(found, dict) and any(map(_is_something, found.values())),
        "ai_activated": fields.get("ai_activated") is True,
    }
    return Interpretation(
        entities=[
            _tell(
                event,
                PLATFORM_WEBHOOK,
                _id(fields, "tracking_id"),
                time,
                tracking.WEBHOOK_COMPLETION,
                told,
            )
        ]
    )


def _is_something(value: object) -> bool:
    """Tell whether an entry was found: not null, false or empty; 0 is a value."""
    return value is not None and value is not False and value not in ("", [], {})


_READERS: dict[str, Callable[[StoredEvent, datetime, Fields], Interpretation]] = {
    tracking.CONVERSION: _conversion,
    tracking.AGENT_ACTIVITY: _activity,
    tracking.PROPERTY_RECOMMENDATION: _recommendation,
    tracking.PROPERTY_INTERACTION: _interaction,
    tracking.WEBHOOK_START: _webhook_start,
    tracking.WEBHOOK_COMPLETION: _webhook_completion,
}
