"""What one stored event tells, whoever sent it; and the ways to read its fields."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from exporter.domain.event import StoredEvent
from exporter.domain.json_fields import ABSENT, clean_number, clean_text, clean_time
from exporter.projection.rows import Activity, EntityEvent, Message

# The order of events of one instant.
BACKFILL_PRECEDENCE, GHL_PRECEDENCE, PLATFORM_PRECEDENCE = 0, 1, 2

Fields = Mapping[str, Any]


class Poison(Exception):
    """The event can't become facts; the text says why, without personal data."""


@dataclass(slots=True)
class Interpretation:
    """What one event tells. Empty where it is of no event that facts are made of."""

    entities: list[EntityEvent] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.entities or self.messages or self.activities)


def entity_event(
    event: StoredEvent,
    precedence: int,
    entity: tuple[str, str],
    time: datetime,
    name: str,
    told: dict[str, Any],
) -> EntityEvent:
    """Return what an event tells of an entity, which is named by its family and its id."""
    return EntityEvent(
        event.location_id, *entity, time, precedence, event.idempotency_key, name, told
    )


def tell(
    fields: Fields, names: Mapping[str, tuple[str, Callable[[object], Any]]]
) -> dict[str, Any]:
    """Pick fields: an absent one stays absent, one of the wrong type is null."""
    told: dict[str, Any] = {}
    for name, (source, read) in names.items():
        value = fields.get(source, ABSENT)
        if value is not ABSENT:
            told[name] = read(value)
    return told


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
