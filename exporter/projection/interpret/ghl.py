"""What GHL's webhooks tell: of an entity, of a message, or nothing."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from exporter.domain.envelope import workflow_ids
from exporter.domain.event import StoredEvent
from exporter.domain.ghl_events import (
    APPOINTMENT,
    CONTACT,
    FAMILY_OF_EVENT,
    MESSAGE,
    OPPORTUNITY,
    USER,
    event_name,
)
from exporter.domain.json_fields import clean_text, clean_time
from exporter.projection.fact_settings import Rules
from exporter.projection.interpret.reading import (
    GHL_PRECEDENCE,
    OPPORTUNITY_FIELDS,
    Fields,
    Interpretation,
    Poison,
    entity_event,
    iso_time,
    lower,
    tell,
)
from exporter.projection.rows import EntityEvent, Message

_MAX_NAME_BYTES = 400


def interpret_ghl(event: StoredEvent, fields: Fields, rules: Rules) -> Interpretation:
    """Read a webhook of GHL. Raises Poison."""
    name = event_name(event.endpoint, clean_text(fields.get("type")))
    family = FAMILY_OF_EVENT.get(name)
    if family is None:
        return Interpretation()
    time = clean_time(fields.get("timestamp")) or event.received_at
    if family == USER:
        return Interpretation(entities=list(_user(event, name, time, fields)))
    if not event.location_id:
        raise Poison(f"{name} names no location")
    if family == MESSAGE:
        return Interpretation(messages=[_message(event, name, time, fields, rules)])
    read = _READERS[family]
    entity_id, told = read(fields, event.location_id, rules)
    if entity_id is None:
        raise Poison(f"{name} lacks the id of its {family}")
    entity = (family, entity_id)
    return Interpretation([entity_event(event, GHL_PRECEDENCE, entity, time, name, told)])


_CONTACT_FIELDS = {"created_at": ("dateAdded", iso_time), "owner": ("assignedTo", clean_text)}


def _contact(fields: Fields, location_id: str, rules: Rules) -> tuple[str | None, dict[str, Any]]:
    del location_id, rules
    return clean_text(fields.get("id")), tell(fields, _CONTACT_FIELDS)


def _opportunity(
    fields: Fields, location_id: str, rules: Rules
) -> tuple[str | None, dict[str, Any]]:
    del location_id, rules
    return clean_text(fields.get("id")), tell(fields, OPPORTUNITY_FIELDS)


def _appointment(
    fields: Fields, location_id: str, rules: Rules
) -> tuple[str | None, dict[str, Any]]:
    given = fields.get("appointment")
    nested: Fields = given if isinstance(given, dict) else {}

    def local_time(value: object) -> str | None:
        time = clean_time(value, rules.zone(location_id))
        return time.isoformat() if time else None

    told = tell(
        nested,
        {
            "contact": ("contactId", clean_text),
            "calendar": ("calendarId", clean_text),
            "status": ("appointmentStatus", lower),
            "starts_at": ("startTime", local_time),
        },
    )
    return clean_text(nested.get("id")), told


_READERS = {CONTACT: _contact, OPPORTUNITY: _opportunity, APPOINTMENT: _appointment}


def _message(
    event: StoredEvent, name: str, time: datetime, fields: Fields, rules: Rules
) -> Message:
    """Read a message. A human answer: an outbound one with a user, of no machine, that went out."""
    contact_id = clean_text(fields.get("contactId"))
    if contact_id is None:
        raise Poison(f"{name} lacks the id of its contact")
    user_id = clean_text(fields.get("userId"))
    human = (
        name == "OutboundMessage"
        and user_id is not None
        and user_id not in rules.automated_users
        and lower(fields.get("source")) not in rules.automated_sources
        and lower(fields.get("messageType")) != "internalcomment"
        and lower(fields.get("status")) not in ("failed", "undelivered")
    )
    return Message(
        event.location_id,
        contact_id,
        human,
        clean_time(fields.get("dateAdded")) or time,
        event.idempotency_key,
        "outbound" if name == "OutboundMessage" else "inbound",
        user_id,
    )


def _user(event: StoredEvent, name: str, time: datetime, fields: Fields) -> Iterator[EntityEvent]:
    """Read a user, of one location or, where it is an agency's, of several."""
    user_id = clean_text(fields.get("id"))
    if user_id is None:
        return
    several = fields.get("locations")
    locations = [event.location_id] if event.location_id else []
    if not locations and isinstance(several, list):
        locations = sorted({text for item in several if (text := clean_text(item))})
    told: dict[str, Any] = {}
    parts = [clean_text(fields.get(part), _MAX_NAME_BYTES) for part in ("firstName", "lastName")]
    if any(parts):
        told["name"] = " ".join(part for part in parts if part)
    if "role" in fields:
        told["role"] = clean_text(fields.get("role"))
    for location_id in locations:
        yield EntityEvent(
            location_id, USER, user_id, time, GHL_PRECEDENCE, event.idempotency_key, name, told
        )


# The body has no time of its own; what it tells holds from its receipt on.
_WORKFLOW_FIELDS = {"created_at": ("date_created", iso_time)}


def interpret_workflow(event: StoredEvent, fields: Fields) -> Interpretation:
    """Read a workflow's webhook: its contact, and when that was created. Without one it is kept.

    An opportunity's or an appointment's state in it is left to GHL's own webhooks, which order it
    by time.
    """
    if not event.location_id:
        raise Poison("the workflow's webhook names no location")
    _, contact_id = workflow_ids(fields)
    if contact_id is None:
        return Interpretation()
    told = {k: v for k, v in tell(fields, _WORKFLOW_FIELDS).items() if v is not None}
    contact = (CONTACT, contact_id)
    return Interpretation(
        [entity_event(event, GHL_PRECEDENCE, contact, event.received_at, event.event_type, told)]
    )
