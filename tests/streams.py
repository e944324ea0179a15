"""Random streams of all that comes in: few entities that many events tell of, and every fault.

Where the definitions leave most open, no stream asks: events without a `webhookId`, whose key is a
hash, have an instant of their own; naive times of appointments are wall clocks that exist, and the
`timestamp` of an appointment has an offset; a user has an id; no field stands both outside and
inside of `data`. A redelivery keeps address and bytes. What the platform tracks and back-filling
finds is valid: the receiver refuses the rest. A call without a key has an instant of its own.
"""

import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.oracle_events import APPOINTMENT, CONTACT, OPPORTUNITY, STAGES, Event


@dataclass(frozen=True)
class Delivery:
    """A webhook as it is posted."""

    endpoint: str
    raw: bytes
    received_at: datetime
    kind: str = "ghl"

    @property
    def body(self) -> dict[str, Any] | None:
        """Return what it says, None where that is no JSON object."""
        try:
            body = json.loads(self.raw.decode(), parse_constant=_refuse)
        except ValueError:
            return None
        return body if isinstance(body, dict) else None


@dataclass(frozen=True)
class Stream:
    """Deliveries in the order of arrival, around a `day` that is no ordinary one in some zone."""

    events: list[Delivery]
    zones: dict[str, str]
    settings: dict[str, Any]
    day: date

    def readable(self) -> list[Event]:
        """Return the events for the oracle: an unreadable body has no location and no KPI."""
        return [
            Event(delivery.kind, delivery.endpoint, delivery.body, delivery.received_at)
            for delivery in self.events
            if delivery.body is not None
        ]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


# --- What streams are made of

UTC_ZONE = ZoneInfo("UTC")
INDIA = timezone(timedelta(hours=5, minutes=30))
# Days on which a clock is changed (in Santiago, Cairo and Havana at midnight), and one without.
DAYS = {
    date(2025, 9, 7): "America/Santiago",
    date(2025, 10, 5): "Australia/Lord_Howe",
    date(2025, 10, 26): "Europe/Berlin",
    date(2025, 10, 30): "Africa/Cairo",
    date(2025, 11, 2): "America/New_York",
    date(2026, 1, 1): "UTC",
    date(2026, 3, 8): "America/Havana",
    date(2026, 3, 29): "Europe/Berlin",
    date(2026, 4, 4): "America/Santiago",
    date(2026, 4, 24): "Africa/Cairo",
}
OTHER_ZONES = ("UTC", "Asia/Kolkata", "Pacific/Kiritimati", "America/New_York", "Europe/Berlin")
LOCATIONS = ("loc-1", "loc-2", "loc-3")
CONTACTS = ("lead-1", "lead-1", "lead-1", "lead-2", "Lead-1")
USERS = ("ann", "bob", "dialler")
PIPELINE_STAGES = ("stage-a", "stage-b", "stage-c")
PERSON_NAMES = ("Ann", "Zoë", "\ud83d", "a\udc00b", "a\x00b", "\U0001f600")
SECONDS = (0, 0, 0, 10, 300, 300.001, 900, 900.001, 3600, 3600.001, 43_200, -0.001, -86_400)
KEYS = ("a", "B", "Z", "0", "!", "~", "é", "\uffee", "\U0001f600")

# (family of the fields, name of the event), as often as it shall come
NAMES = (
    *[("contact", name) for name in (*sorted(CONTACT), *sorted(CONTACT - {"ContactDelete"}) * 3)],
    *[("opportunity", name) for name in sorted(OPPORTUNITY)],
    *[("opportunity", name) for name in sorted(OPPORTUNITY - {"OpportunityDelete"})],
    *[("opportunity", "OpportunityStatusUpdate")] * 6,
    *[("appointment", name) for name in sorted(APPOINTMENT)],
    *[("appointment", name) for name in ("AppointmentCreate", "AppointmentUpdate")] * 5,
    *[("message", "OutboundMessage")] * 16,
    *[("message", name) for name in ("InboundMessage", "outboundMessage")],
    *[("user", name) for name in ("UserCreate", "UserUpdate", "UserDelete")],
    *[("contact", name) for name in ("contactcreate", "ContactMerge", "INSTALL", "NoteCreate")],
    *[("opportunity", name) for name in ("OPPORTUNITYDELETE", "InvoicePaid", "LocationUpdate")],
)


class _Absent:
    """Stands for a field that is left out."""


@dataclass(frozen=True)
class _Moment:
    """Some seconds from one of the stream's instants; `spelling` is how it is written."""

    instant: int
    seconds: float
    spelling: int

    def at(self, instants: Sequence[datetime]) -> datetime:
        return instants[self.instant % len(instants)] + timedelta(seconds=self.seconds)


ABSENT = _Absent()
MOMENTS = tuple(
    _Moment(instant, seconds, spelling)
    for instant in range(4)
    for seconds in SECONDS
    for spelling in range(3)
)
WRONG_TEXTS: Sequence[object] = (0, 7, True, 1.5, [], ["lead-1"], {}, {"id": "lead-1"})
WRONG_NUMBERS: Sequence[object] = ("400000", "x", True, False, [], [1], {}, {"value": 1})
WRONG_TIMES: Sequence[object] = (
    *(0, 1_767_225_600_000, True, [], {}, "soon", "now", "yesterday", "infinity", "epoch"),
    *("2026-02-30T10:00:00Z", "2026-13-01T10:00:00Z", "2026-03-01T25:00:00Z"),
)
UNREADABLE = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b'{"id": NaN}',
    b'{"type": "\xed"}',
)


# --- Fields


def _mostly(
    values: Sequence[object], wrong: Sequence[object] = WRONG_TEXTS, *, share: int = 10
) -> SearchStrategy[Any]:
    """Return one of the values; in 1 of `share` draws absent, null, empty or of the wrong type."""
    spoilt = (*[ABSENT, None, ""] * len(wrong), *wrong)
    often = -(-len(spoilt) * (share - 1) // len(values))
    return st.sampled_from((*[*values] * often, *spoilt))


def _one_of(*strategies: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return one of them, as often as it is given (`st.one_of` takes each once)."""
    return st.sampled_from(strategies).flatmap(lambda strategy: strategy)


def _object(**fields: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields)


CONTACT_ID = _mostly(CONTACTS, share=20)
USER_ID = _mostly(USERS)
ADDED = _mostly(MOMENTS, WRONG_TIMES)
PERSON_NAME = st.sampled_from(PERSON_NAMES)
STATUSES = ("won", "lost", "open", "won", "lost", "open", "WON", "Lost", "abandoned", "pending")
VALUES = (0, 1, 250_000, 400_000, 99.99, 300_000.5, -1, -250.5)
HUGE = (2**53 + 1, 10**18 + 1, 10**21, 1e30)
APPOINTMENT_FIELDS = _object(
    id=_mostly(("app-1", "app-2"), share=20),
    contactId=CONTACT_ID,
    calendarId=_mostly(("viewings", "calls")),
    appointmentStatus=_mostly(("showed", "noshow", "confirmed", "Showed", "NoShow", "new")),
    startTime=_mostly(MOMENTS, WRONG_TIMES),
    assignedUserId=USER_ID,
)
SPOILT_APPOINTMENT: SearchStrategy[Any] = st.sampled_from((ABSENT, None, "", [], "app-1", {}))
FIELDS = {
    "contact": _object(id=CONTACT_ID, dateAdded=ADDED, assignedTo=USER_ID, name=PERSON_NAME),
    "opportunity": _object(
        id=_mostly(("opp-1", "opp-1", "opp-2"), share=20),
        contactId=CONTACT_ID,
        status=_mostly(STATUSES),
        monetaryValue=_mostly((*VALUES, *VALUES, *HUGE), WRONG_NUMBERS),
        assignedTo=USER_ID,
        pipelineStageId=_mostly((*PIPELINE_STAGES, "stage-d")),
        dateAdded=ADDED,
        name=PERSON_NAME,
    ),
    "appointment": _object(appointment=_one_of(*[APPOINTMENT_FIELDS] * 15, SPOILT_APPOINTMENT)),
    "message": _object(
        contactId=CONTACT_ID,
        userId=USER_ID,
        source=_mostly(("app", "app", "app", "app", "workflow", "Campaign", "BOT", "Api")),
        messageType=_mostly(("SMS", "SMS", "Email", "WhatsApp", "InternalComment")),
        status=_mostly(("delivered", "sent", "read", "pending", "FAILED", "Undelivered")),
        dateAdded=_mostly(MOMENTS, WRONG_TIMES, share=2),
        to=st.sampled_from(("+1", ["+1", "+2"])),
    ),
    "user": _object(
        id=st.sampled_from(USERS),
        companyId=st.sampled_from((ABSENT, "company")),
        locations=st.sampled_from((ABSENT, ["loc-of-the-agency"])),
        firstName=PERSON_NAME,
    ),
}


def _maybe(*values: object) -> SearchStrategy[Any]:
    """Return one of the values; in half of the draws it is not given, by absence or by null."""
    return st.sampled_from((*values, *values, *[ABSENT, None] * len(values)))


OPPORTUNITIES = ("opp-1", "opp-1", "opp-2")
RECOMMENDATIONS = st.sampled_from(("rec-1", "rec-2", "rec-3"))
CALLS = {
    "conversion": _object(
        contact_id=st.sampled_from(CONTACTS),
        stage=st.sampled_from((*STAGES, *["deal_closed"] * 6, "lead_created", "ai_qualified")),
        opportunity_id=_maybe(*OPPORTUNITIES),
        deal_value=_maybe(*VALUES),
        agent_id=_maybe(*USERS),
        ai_score=_maybe(0, 1, 0.25, 80),
    ),
    "agent-activity": _object(
        agent_id=st.sampled_from(USERS),
        activity_type=st.sampled_from(("call", "deal_closed")),
        contact_id=_maybe(*CONTACTS),
        response_time_minutes=_maybe(0, 7, 0.5, 61),
        ai_recommendation_used=_maybe(True, False, True),
        deal_value=_maybe(1),
    ),
    "property-recommendation": _object(
        recommendation_id=RECOMMENDATIONS,
        contact_id=_maybe(*CONTACTS),
        agent_id=_maybe(*USERS),
        property_id=_maybe("property-1"),
        recommendation_score=_maybe(0.5, 1),
    ),
    "property-interaction": _object(
        recommendation_id=RECOMMENDATIONS,
        contact_id=_maybe(*CONTACTS),
        interaction_type=st.sampled_from(("viewed", "liked", "scheduled", "rejected", "shared")),
    ),
    "webhook-start": _object(
        tracking_id=st.sampled_from(("t-1", "t-2", "t-3")), webhook_type=_maybe("contact", "deal")
    ),
    "webhook-completion": _object(
        tracking_id=st.sampled_from(("t-1", "t-2", "t-3")),
        success=st.sampled_from((True, True, False)),
        enrichment_data=_maybe({}, {"city": ""}, {"score": 0}, {"a": None, "b": False, "c": []}),
        ai_activated=_maybe(True, False),
    ),
}
BACKFILL = _object(
    id=st.sampled_from(OPPORTUNITIES),
    contactId=_maybe(*CONTACTS),
    status=st.sampled_from(STATUSES),
    monetaryValue=_maybe(*VALUES),
    assignedTo=_maybe(*USERS),
    pipelineStageId=_maybe(*PIPELINE_STAGES),
    updatedAt=st.sampled_from(MOMENTS),
    lastStatusChangeAt=_maybe(*MOMENTS),
)


# --- Deliveries, before they have their place in a stream


@dataclass(frozen=True)
class _Draft:
    """An event: its fields may hold moments, and its timestamp and key may be nonsense."""

    name: str
    family: str
    location: int
    wrong_location: object
    address: tuple[bool, object]
    fields: dict[str, Any]
    wrapped: int
    timestamp: Any
    key: Any
    wait: float


@dataclass(frozen=True)
class _Own:
    """A tracking call, or an opportunity that back-filling found."""

    kind: str
    endpoint: str
    location: int
    fields: dict[str, Any]
    occurred_at: Any
    key: Any
    wait: float


@dataclass(frozen=True)
class _Again:
    """An earlier delivery once more."""

    which: int
    wait: float


@dataclass(frozen=True)
class _Unreadable:
    endpoint: str
    raw: bytes
    wait: float


OWN = "its own"
ADDRESSES = (
    *[(False, OWN)] * 20,
    *[(True, type_) for type_ in (OWN, OWN, "AppointmentCreate", "ContactDelete")],
    *[(True, type_) for type_ in ("OpportunityUpdate", "no", "", None, 7, ABSENT)],
    *[(False, type_) for type_ in (ABSENT, None, "", 7)],
)
WAITS = st.sampled_from((1, 60, 1800, 10_000))


def _drafts(family: str, name: str) -> SearchStrategy[_Draft]:
    return st.builds(
        _Draft,
        name=st.just(name),
        family=st.just(family),
        location=st.sampled_from((0, 0, 0, 1, 2)),
        wrong_location=_mostly((OWN,), share=32),
        address=st.sampled_from(ADDRESSES),
        fields=FIELDS[family],
        wrapped=st.integers(0, 99),
        timestamp=_mostly(MOMENTS, WRONG_TIMES, share=12),
        key=_mostly(KEYS),
        wait=WAITS,
    )


def _own(kind: str, endpoint: str) -> SearchStrategy[_Own]:
    return st.builds(
        _Own,
        kind=st.just(kind),
        endpoint=st.just(endpoint),
        location=st.sampled_from((0, 0, 0, 1, 2)),
        fields=BACKFILL if kind == "backfill" else CALLS[endpoint],
        occurred_at=_maybe(*MOMENTS),
        key=_maybe(*KEYS),
        wait=WAITS,
    )


AGAIN = st.builds(_Again, st.integers(0, 59), WAITS)
DELIVERIES: SearchStrategy[_Draft | _Own | _Again | _Unreadable] = _one_of(
    *[_drafts(family, name) for family, name in NAMES],
    *[_own("track", call) for call in CALLS] * 6,
    *[_own("track", "conversion")] * 10,
    *[_own("backfill", "opportunity")] * 10,
    *[AGAIN] * 6,
    st.builds(_Unreadable, st.sampled_from(("ghl", "ghl/no")), st.sampled_from(UNREADABLE), WAITS),
)


# --- Streams


def _written(value: Any, instants: Sequence[datetime], zone: ZoneInfo | None) -> Any:
    """Leave out what is absent, and write moments; `zone` is that of naive ones, if they may be."""
    if isinstance(value, dict):
        told = {field: of for field, of in value.items() if of is not ABSENT}
        return {field: _written(of, instants, zone) for field, of in told.items()}
    if not isinstance(value, _Moment):
        return value
    return _spelt(value.at(instants), value.spelling, zone)


def _spelt(at: datetime, spelling: int, zone: ZoneInfo | None) -> str:
    if spelling == 2 and zone is not None:
        return at.astimezone(zone).replace(tzinfo=None).isoformat()
    return at.astimezone(INDIA).isoformat() if spelling == 1 else f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"


def _deliver(
    draft: _Draft, place: int, zones: Mapping[str, str], instants: Sequence[datetime]
) -> tuple[str, bytes]:
    """Return address and body of an event; without a webhookId it gets an instant of its own."""
    location = list(zones)[draft.location % len(zones)]
    is_appointment = draft.family == "appointment"
    zone = ZoneInfo(zones[location]) if is_appointment else UTC_ZONE
    fields = _written(draft.fields, instants, zone)
    told = location if draft.wrong_location is OWN else draft.wrong_location
    envelope = {"locationId": told}
    if draft.name == "InvoicePaid":
        envelope = {"altType": "location", "altId": location}
    elif draft.name == "LocationUpdate":
        envelope, fields = {}, {"id": location}
    elif "companyId" in fields:
        envelope = {}
    if draft.wrapped >= 99 and draft.family != "user":
        fields = {"data": (None, [], "data")[place % 3]}
    elif draft.wrapped >= 90 and draft.name != "LocationUpdate":
        fields = {"data": fields}
    key, timestamp = draft.key, draft.timestamp
    if isinstance(key, str) and key:
        key = f"{key}{place}"
    if isinstance(timestamp, _Moment):
        own = timedelta(0) if isinstance(key, str) and key else timedelta(microseconds=place + 1)
        naive = None if is_appointment else UTC_ZONE
        timestamp = _spelt(timestamp.at(instants) + own, timestamp.spelling, naive)
    in_address, type_ = draft.address
    type_ = draft.name if type_ is OWN else type_
    body = {"type": type_, **envelope, **fields, "timestamp": timestamp, "webhookId": key}
    written = {field: value for field, value in body.items() if value is not ABSENT}
    return f"ghl/{draft.name}" if in_address else "ghl", json.dumps(written).encode()


def _deliver_own(
    draft: _Own, place: int, zones: Mapping[str, str], instants: Sequence[datetime]
) -> bytes:
    location = list(zones)[draft.location % len(zones)]
    body = _written(draft.fields, instants, None)
    if draft.kind == "backfill":
        return json.dumps({"locationId": location, **body}).encode()
    key, occurred_at = draft.key, draft.occurred_at
    keyed = isinstance(key, str)
    if isinstance(occurred_at, _Moment):
        own = timedelta(0) if keyed else timedelta(microseconds=place + 1)
        occurred_at = _spelt(occurred_at.at(instants) + own, occurred_at.spelling, None)
    if "tracking_id" in body:
        body["tracking_id"] = f"{location}/{body['tracking_id']}"
    told = {"location_id": location, "occurred_at": occurred_at}
    if draft.endpoint == "webhook-completion" and place % 2:
        del told["location_id"]
    told["idempotency_key"] = f"{key}{place}" if keyed else key
    written = {field: value for field, value in told.items() if value is not ABSENT}
    return json.dumps(body | written).encode()


@st.composite
def _places(draw: DrawFn) -> tuple[date, dict[str, str], list[datetime]]:
    """Draw a day, the locations' zones, and a few instants that many events share."""
    day = draw(st.sampled_from(list(DAYS)))
    others = draw(st.lists(st.sampled_from(OTHER_ZONES), max_size=len(LOCATIONS) - 1))
    zones = dict(zip(LOCATIONS, (DAYS[day], *others), strict=False))
    midnights = [
        datetime.combine(day + timedelta(days=days), time(), ZoneInfo(zone)).astimezone(UTC)
        for days in (0, 1, -1)
        for zone in zones.values()
    ]
    hours = st.integers(0, 23).map(lambda hour: timedelta(hours=hour))
    instants = st.builds(operator.add, st.sampled_from(midnights), hours)
    return day, zones, draw(st.lists(instants, min_size=1, max_size=4))


SETTINGS = _object(
    PIPELINE_STAGES=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(PIPELINE_STAGES, st.sampled_from(STAGES[:-1]))
    ),
    AUTOMATED_USERS=st.sampled_from(([], ["dialler"])),
    AUTOMATED_SOURCES=st.sampled_from(
        (["workflow", "campaign", "bot"], ["api", "campaign"], ["Workflow"])
    ),
    SHOWING_CALENDARS=st.sampled_from(([], ["viewings"])),
    ATTRIBUTION_DAYS=st.sampled_from((1, 90)),
    AGENT_SERIES_LIMIT=st.sampled_from((1, 2, 100)),
    WEBHOOK_PROCESSING_TIMEOUT=st.sampled_from((1, 10_000, 86_400_000)),
)


@st.composite
def streams(draw: DrawFn) -> Stream:
    """Streams of up to 60 webhooks to one, two or three locations."""
    day, zones, instants = draw(_places())
    settings = draw(SETTINGS)
    fewest = draw(st.sampled_from((1, 16, 32)))
    events: list[Delivery] = []
    # Not a whole millisecond: it is never the time that another event tells.
    now = datetime.combine(day - timedelta(days=1), time(microsecond=999), UTC)
    for place, draft in enumerate(draw(st.lists(DELIVERIES, min_size=fewest, max_size=60))):
        now += timedelta(seconds=draft.wait)
        if isinstance(draft, _Draft):
            events.append(Delivery(*_deliver(draft, place, zones, instants), now))
        elif isinstance(draft, _Own):
            raw = _deliver_own(draft, place, zones, instants)
            events.append(Delivery(draft.endpoint, raw, now, draft.kind))
        elif isinstance(draft, _Unreadable):
            events.append(Delivery(draft.endpoint, draft.raw, now))
        elif events:
            earlier = events[draft.which % len(events)]
            events.append(replace(earlier, received_at=now))
    return Stream(events, zones, settings, day)
