"""The oracle's reading of events and folding of states: the plainest way, on plain Python lists.

It knows the definitions of the KPIs and nothing of the exporter.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from fractions import Fraction
from itertools import takewhile
from math import isfinite
from typing import Any

# fmt: off
STAGES = (
    "lead_created", "ai_qualified", "human_contacted", "appointment_scheduled",
    "property_showing", "offer_submitted", "contract_signed", "deal_closed",
)
CONTACT = {
    "ContactCreate", "ContactUpdate", "ContactDelete", "ContactDndUpdate", "ContactTagUpdate",
}
OPPORTUNITY = {
    "OpportunityCreate", "OpportunityUpdate", "OpportunityDelete", "OpportunityStatusUpdate",
    "OpportunityStageUpdate", "OpportunityMonetaryValueUpdate", "OpportunityAssignedToUpdate",
}
APPOINTMENT = {"AppointmentCreate", "AppointmentUpdate", "AppointmentDelete"}
MESSAGE = {"InboundMessage", "OutboundMessage"}
# fmt: on
KINDS = ("backfill", "ghl", "track")  # in their order at one instant
FOUND = "found"


@dataclass(frozen=True)
class Event:
    """What is delivered: `endpoint` is `ghl`, `ghl/<EventName>`, or a tracking call's name."""

    kind: str
    endpoint: str
    body: dict[str, Any]
    received_at: datetime


@dataclass(frozen=True)
class Told:
    """An event, read: `id` is the entity's, `says` are the entity's fields."""

    kind: str
    name: str | None
    location: str | None
    id: str | None
    key: bytes
    at: datetime
    received_at: datetime
    says: Mapping[str, Any]


@dataclass(frozen=True)
class Entity:
    """A contact, opportunity or appointment: its events before its Delete, the state after each."""

    events: Sequence[Told]
    states: Sequence[Mapping[str, Any]]
    deleted: bool

    @property
    def now(self) -> Mapping[str, Any]:
        return self.states[-1]

    def run(self, field: str) -> int:
        """Return the place of the first event of the present stretch with one value."""
        place = len(self.states) - 1
        while place > 0 and self.states[place - 1][field] == self.now[field]:
            place -= 1
        return place


# --- Values: what is of the wrong type, empty or unreadable is none


def text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def word(value: object) -> str | None:  # of an enumeration
    return value.lower() if isinstance(value, str) and value else None


def number(value: object) -> Fraction | None:
    if isinstance(value, float) and isfinite(value):
        return Fraction(repr(value))
    return Fraction(value) if isinstance(value, int) and not isinstance(value, bool) else None


def moment(value: object, naive: tzinfo = UTC) -> datetime | None:
    """Read a time; one without an offset is of the zone `naive`."""
    try:
        told = datetime.fromisoformat(text(value) or "none")
        return (told if told.tzinfo else told.replace(tzinfo=naive)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


# --- Events


def read(event: Event, place: int) -> Told:
    if event.kind == "track":
        return _read_call(event, place)
    if event.kind == "backfill":
        body = event.body
        updated = moment(body["updatedAt"])
        assert updated is not None
        key = f"{body['id']}@{updated}".encode()
        says = dict(body)
        return Told(
            "backfill",
            FOUND,
            body["locationId"],
            body["id"],
            key,
            updated,
            event.received_at,
            says,
        )
    data = event.body.get("data")
    says = (data if isinstance(data, dict) else {}) | event.body
    address, type_ = event.endpoint.partition("/")[2], text(says.get("type"))
    wrong_type = {address, type_} <= APPOINTMENT
    name = address if wrong_type else type_ or address
    is_location = name in {"LocationCreate", "LocationUpdate"}
    location = text(says.get("id" if is_location else "locationId"))
    if location is None and says.get("altType") == "location":
        location = text(says.get("altId"))
    hashed = hashlib.sha256(json.dumps([name, event.body]).encode()).hexdigest()
    key = (text(says.get("webhookId")) or hashed).encode("utf-8", "surrogatepass")
    at = moment(says.get("timestamp")) or event.received_at
    if name in APPOINTMENT:
        says = says["appointment"] if isinstance(says.get("appointment"), dict) else {}
    return Told("ghl", name, location, text(says.get("id")), key, at, event.received_at, says)


def _read_call(event: Event, place: int) -> Told:
    """Read a tracking call; null means not given, and without a key each call is its own."""
    says = {name: value for name, value in event.body.items() if value is not None}
    key = says.get("idempotency_key")
    own = f"#{place}" if key is None else key
    return Told(
        "track",
        event.endpoint,
        says.get("location_id"),
        None,
        own.encode(),
        moment(says.get("occurred_at")) or event.received_at,
        event.received_at,
        says,
    )


def once_each(events: Iterable[Event]) -> list[Told]:
    """Return the events in their order; of those with one key, the first received."""
    told: dict[tuple[object, ...], Told] = {}
    received = sorted(enumerate(events), key=lambda pair: pair[1].received_at)
    for place, event in received:
        one = read(event, place)
        endpoint = one.name if event.kind == "track" else None
        told.setdefault((event.kind, one.location, endpoint, one.key), one)
    return sorted(told.values(), key=lambda one: (one.at, KINDS.index(one.kind), one.key))


def as_opportunity(told: Told) -> Told:
    """Return a tracked `deal_closed` with an opportunity as that opportunity's event."""
    if told.name != "conversion" or word(told.says.get("stage")) != "deal_closed":
        return told
    if "opportunity_id" not in told.says:
        return told
    names = {"deal_value": "monetaryValue", "agent_id": "assignedTo", "contact_id": "contactId"}
    says = {new: told.says[old] for old, new in names.items() if old in told.says}
    return Told(
        told.kind,
        "deal_closed",
        told.location,
        told.says["opportunity_id"],
        told.key,
        told.at,
        told.received_at,
        says | {"status": "won"},
    )


def entities(
    told: Iterable[Told], names: Collection[str], **fields: Callable[[object], object]
) -> dict[str, Entity]:
    """Fold a family's events: an absent field says nothing; null, like nonsense, means none."""
    events_of: dict[str, list[Told]] = {}
    for event in told:
        if event.name in names and event.id is not None:
            events_of.setdefault(event.id, []).append(event)
    folded = {}
    for id_, events in events_of.items():
        before = list(takewhile(lambda event: not str(event.name).endswith("Delete"), events))
        state: dict[str, Any] = dict.fromkeys(fields)
        states = []
        for event in before:
            state = state | {f: of(event.says[f]) for f, of in fields.items() if f in event.says}
            states.append(state)
        folded[id_] = Entity(before, states, deleted=len(before) < len(events))
    return folded


def living(folded: Mapping[str, Entity]) -> list[Entity]:
    return [entity for entity in folded.values() if not entity.deleted]


def run_began(opportunity: Entity) -> datetime | None:
    """Return when the present run of one status began, as far as anything tells."""
    place = opportunity.run("status")
    first = opportunity.events[place]
    if first.name == FOUND:
        return moment(first.says.get("lastStatusChangeAt"))
    if place > 0:
        return first.at
    beginnings = {"OpportunityCreate", "OpportunityStatusUpdate", "deal_closed"}
    events = opportunity.events
    told = [event.at for event in events if event.name in beginnings]
    since = [moment(e.says.get("lastStatusChangeAt")) for e in events if e.name == FOUND]
    return next(iter([*told, *(at for at in since if at is not None)]), None)


def is_human_answer(event: Told, machines: Collection[str], sources: Collection[str]) -> bool:
    user, source = text(event.says.get("userId")), word(event.says.get("source"))
    return (
        event.name == "OutboundMessage"
        and user not in {None, *machines}
        and source not in {source.lower() for source in sources}
        and word(event.says.get("messageType")) != "internalcomment"
        and word(event.says.get("status")) not in {"failed", "undelivered"}
    )
