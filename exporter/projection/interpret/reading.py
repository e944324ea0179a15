"""The interpretation of one stored event, and the helpers that read its fields."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from exporter.domain.event import StoredEvent
from exporter.domain.json_fields import ABSENT, clean_number, clean_text, clean_time
from exporter.projection.schema import Activity, EntityEvent, Message

# The order of events of one instant.
BACKFILL_PRECEDENCE, GHL_PRECEDENCE, PLATFORM_PRECEDENCE = 0, 1, 2

Fields = Mapping[str, Any]


class InvalidEventError(ValueError):
    """The event cannot become facts. The message says why, without personal data."""


@dataclass(slots=True)
class Interpretation:
    """What one event reports. Empty if no fact is made of such events."""

    entities: list[EntityEvent] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.entities or self.messages or self.activities)


def entity_event(
    event: StoredEvent,
    *,
    precedence: int,
    family: str,
    entity_id: str,
    time: datetime,
    name: str,
    fields: dict[str, Any],
    location_id: str | None = None,
) -> EntityEvent:
    """Return a stored event as an event of one entity, in the event's location unless given."""
    return EntityEvent(
        location_id=event.location_id if location_id is None else location_id,
        family=family,
        entity_id=entity_id,
        event_time=time,
        precedence=precedence,
        idempotency_key=event.idempotency_key,
        event_type=name,
        fields=fields,
    )


def pick_fields(
    fields: Fields, names: Mapping[str, tuple[str, Callable[[object], Any]]]
) -> dict[str, Any]:
    """Return the named fields; an absent field stays absent, one of the wrong type is null."""
    picked: dict[str, Any] = {}
    for name, (source, read) in names.items():
        value = fields.get(source, ABSENT)
        if value is not ABSENT:
            picked[name] = read(value)
    return picked


def iso_time(value: object) -> str | None:
    """Return a time as ISO 8601 text in UTC, or None."""
    time = clean_time(value)
    return time.isoformat() if time else None


def lower(value: object) -> str | None:
    """Return an enumerated value, which compares without case, or None."""
    text = clean_text(value)
    return text.lower() if text else None


def decimal_text(value: object) -> str | None:
    """Return a number as the text that makes the same decimal number, or None."""
    number = clean_number(value)
    return None if number is None else str(number)


OPPORTUNITY_FIELDS = {
    "contact": ("contactId", clean_text),
    "status": ("status", lower),
    "value": ("monetaryValue", decimal_text),
    "owner": ("assignedTo", clean_text),
    "pipeline_stage": ("pipelineStageId", clean_text),
}
