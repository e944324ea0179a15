"""Interpret GHL's webhooks."""

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
from exporter.projection.fact_settings import FactSettings
from exporter.projection.interpret.reading import (
    GHL_PRECEDENCE,
    OPPORTUNITY_FIELDS,
    Fields,
    Interpretation,
    InvalidEventError,
    entity_event,
    iso_time,
    lower,
    pick_fields,
)
from exporter.projection.schema import EntityEvent, Message

_MAX_NAME_BYTES = 400


def interpret_ghl(
    event: StoredEvent, fields: Fields, fact_settings: FactSettings
) -> Interpretation:
    """Read a webhook of GHL. Raises InvalidEventError."""
    name = event_name(event.endpoint, clean_text(fields.get("type")))
    family = FAMILY_OF_EVENT.get(name)
    if family is None:
        return Interpretation()
    time = clean_time(fields.get("timestamp")) or event.received_at
    if family == USER:
        return Interpretation(entities=list(_user(event, name, time, fields)))
    if not event.location_id:
        raise InvalidEventError(f"{name} names no location")
    if family == MESSAGE:
        return Interpretation(messages=[_message(event, name, time, fields, fact_settings)])
    read = _READERS[family]
    entity_id, picked = read(fields, event.location_id, fact_settings)
    if entity_id is None:
        raise InvalidEventError(f"{name} lacks the id of its {family}")
    return Interpretation(
        [
            entity_event(
                event,
                precedence=GHL_PRECEDENCE,
                family=family,
                entity_id=entity_id,
                time=time,
                name=name,
                fields=picked,
            )
        ]
    )


_CONTACT_FIELDS = {"created_at": ("dateAdded", iso_time), "owner": ("assignedTo", clean_text)}


def _contact(
    fields: Fields, location_id: str, fact_settings: FactSettings
) -> tuple[str | None, dict[str, Any]]:
    del location_id, fact_settings
    return clean_text(fields.get("id")), pick_fields(fields, _CONTACT_FIELDS)


def _opportunity(
    fields: Fields, location_id: str, fact_settings: FactSettings
) -> tuple[str | None, dict[str, Any]]:
    del location_id, fact_settings
    return clean_text(fields.get("id")), pick_fields(fields, OPPORTUNITY_FIELDS)


def _appointment(
    fields: Fields, location_id: str, fact_settings: FactSettings
) -> tuple[str | None, dict[str, Any]]:
    given = fields.get("appointment")
    nested: Fields = given if isinstance(given, dict) else {}

    def local_time(value: object) -> str | None:
        time = clean_time(value, fact_settings.zone(location_id))
        return time.isoformat() if time else None

    picked = pick_fields(
        nested,
        {
            "contact": ("contactId", clean_text),
            "calendar": ("calendarId", clean_text),
            "status": ("appointmentStatus", lower),
            "starts_at": ("startTime", local_time),
        },
    )
    return clean_text(nested.get("id")), picked


_READERS = {CONTACT: _contact, OPPORTUNITY: _opportunity, APPOINTMENT: _appointment}


def _message(
    event: StoredEvent, name: str, time: datetime, fields: Fields, fact_settings: FactSettings
) -> Message:
    """Read a message. A human answer is outbound, not failed, and by a user who is no bot."""
    contact_id = clean_text(fields.get("contactId"))
    if contact_id is None:
        raise InvalidEventError(f"{name} lacks the id of its contact")
    user_id = clean_text(fields.get("userId"))
    human = (
        name == "OutboundMessage"
        and user_id is not None
        and user_id not in fact_settings.automated_users
        and lower(fields.get("source")) not in fact_settings.automated_sources
        and lower(fields.get("messageType")) != "internalcomment"
        and lower(fields.get("status")) not in ("failed", "undelivered")
    )
    return Message(
        location_id=event.location_id,
        contact_id=contact_id,
        human_answer=human,
        sent_at=clean_time(fields.get("dateAdded")) or time,
        idempotency_key=event.idempotency_key,
        direction="outbound" if name == "OutboundMessage" else "inbound",
        user_id=user_id,
    )


def _user(event: StoredEvent, name: str, time: datetime, fields: Fields) -> Iterator[EntityEvent]:
    """Read a user of one location, or of several if the user belongs to the agency."""
    user_id = clean_text(fields.get("id"))
    if user_id is None:
        return
    several = fields.get("locations")
    locations = [event.location_id] if event.location_id else []
    if not locations and isinstance(several, list):
        locations = sorted({text for item in several if (text := clean_text(item))})
    picked: dict[str, Any] = {}
    parts = [clean_text(fields.get(part), _MAX_NAME_BYTES) for part in ("firstName", "lastName")]
    if any(parts):
        picked["name"] = " ".join(part for part in parts if part)
    if "role" in fields:
        picked["role"] = clean_text(fields.get("role"))
    for location_id in locations:
        yield entity_event(
            event,
            precedence=GHL_PRECEDENCE,
            family=USER,
            entity_id=user_id,
            time=time,
            name=name,
            fields=picked,
            location_id=location_id,
        )


# The body has no time of its own, so its receipt is the time of the event.
_WORKFLOW_FIELDS = {"created_at": ("date_created", iso_time)}


def interpret_workflow(event: StoredEvent, fields: Fields) -> Interpretation:
    """Read the contact of a workflow's webhook, and when it was created.

    The state of an opportunity or an appointment in the body is ignored: GHL's own webhooks report
    it with the time of the change. Without a contact the webhook is only stored.
    """
    if not event.location_id:
        raise InvalidEventError("the workflow's webhook names no location")
    _, contact_id = workflow_ids(fields)
    if contact_id is None:
        return Interpretation()
    picked = pick_fields(fields, _WORKFLOW_FIELDS)
    return Interpretation(
        [
            entity_event(
                event,
                precedence=GHL_PRECEDENCE,
                family=CONTACT,
                entity_id=contact_id,
                time=event.received_at,
                name=event.event_type,
                fields={name: value for name, value in picked.items() if value is not None},
            )
        ]
    )
