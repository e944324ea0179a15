"""An oracle: the KPIs that GHL's webhooks alone tell, computed anew from all events.

It knows the definitions of the KPIs and nothing of the exporter, and takes the plainest way: no
roll-ups, no increments, no SQL. Sums are fractions, so they are exact.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from fractions import Fraction
from functools import partial
from itertools import takewhile
from math import isfinite
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

# fmt: off
METRICS = frozenset((
    "ghl_leads_created", "ghl_deals_closed", "ghl_revenue", "ghl_revenue_per_lead",
    "ghl_lead_conversion_ratio", "ghl_average_deal_size", "ghl_time_to_conversion_seconds",
    "ghl_stage_contacts", "ghl_stage_conversion_ratio", "ghl_win_ratio",
    "ghl_appointment_no_show_ratio", "ghl_open_pipeline_value", "ghl_open_opportunities",
    "ghl_first_response_seconds", "ghl_first_response_within_ratio",
    "ghl_leads_never_answered_ratio", "ghl_webhooks_processed", "ghl_webhook_success_ratio",
))
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
NO_FACTS = {
    "UserCreate", "UserUpdate", "UserDelete", "INSTALL", "NoteCreate", "InvoicePaid",
    "LocationCreate", "LocationUpdate",
}
# An address names an event only where GHL has one of that name.
EVENTS = CONTACT | OPPORTUNITY | APPOINTMENT | MESSAGE | NO_FACTS
# fmt: on


@dataclass(frozen=True)
class Event:
    """What is delivered: `endpoint` is `ghl`, or `ghl/<EventName>` where the address names it."""

    kind: str
    endpoint: str
    body: dict[str, Any]
    received_at: datetime


@dataclass(frozen=True)
class Told:
    """An event, read: `id` is the entity's, `says` are the entity's fields."""

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


def read(event: Event) -> Told:
    data = event.body.get("data")
    says = (data if isinstance(data, dict) else {}) | event.body
    address, type_ = event.endpoint.partition("/")[2], text(says.get("type"))
    name = address if address in EVENTS else type_ or address
    is_location = name in {"LocationCreate", "LocationUpdate"}
    location = text(says.get("id" if is_location else "locationId"))
    if location is None and says.get("altType") == "location":
        location = text(says.get("altId"))
    hashed = hashlib.sha256(json.dumps([name, event.body]).encode()).hexdigest()
    key = (text(says.get("webhookId")) or hashed).encode("utf-8", "surrogatepass")
    at = moment(says.get("timestamp")) or event.received_at
    if name in APPOINTMENT:
        says = says["appointment"] if isinstance(says.get("appointment"), dict) else {}
    return Told(name, location, text(says.get("id")), key, at, event.received_at, says)


def once_each(events: Iterable[Event]) -> list[Told]:
    """Return the events in their order; of those with one key, the first received."""
    told: dict[bytes, Told] = {}
    for event in sorted(map(read, events), key=lambda event: event.received_at):
        told.setdefault(event.key, event)
    return sorted(told.values(), key=lambda event: (event.at, event.key))


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
    """Return when the present run of `won` or `lost` began, as far as anything tells."""
    place = opportunity.run("status")
    if place > 0:
        return opportunity.events[place].at
    beginnings = {"OpportunityCreate", "OpportunityStatusUpdate"}
    return next((event.at for event in opportunity.events if event.name in beginnings), None)


def is_human_answer(event: Told, machines: Collection[str], sources: Collection[str]) -> bool:
    user, source = text(event.says.get("userId")), word(event.says.get("source"))
    return (
        event.name == "OutboundMessage"
        and user not in {None, *machines}
        and source not in {source.lower() for source in sources}
        and word(event.says.get("messageType")) != "internalcomment"
        and word(event.says.get("status")) not in {"failed", "undelivered"}
    )


# --- KPIs: none where there is no value

Created = Mapping[str, datetime]
Answered = Collection[tuple[str | None, datetime]]
# contact -> stage -> when that was told (empty: at an unknown time)
Reached = Mapping[str, Mapping[str, Collection[datetime]]]
InWindow = Callable[[datetime | None], bool]
Values = dict[str, float | None]


def ratio(part: Fraction | int, whole: int) -> float | None:
    return float(Fraction(part) / whole) if whole else None


def quantile(values: Collection[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def business(created: Created, opportunities: Sequence[Entity], in_window: InWindow) -> Values:
    leads = {contact for contact, at in created.items() if in_window(at)}
    states = [(entity.now, run_began(entity)) for entity in opportunities]
    won = [(state, at) for state, at in states if state["status"] == "won"]
    closed = [(deal, at) for deal, at in won if at is not None and in_window(at)]
    lost = [state for state, at in states if state["status"] == "lost" and in_window(at)]
    waiting = [state for state, _ in states if state["status"] == "open"]
    pipeline = sum((state["monetaryValue"] or 0 for state in waiting), Fraction())
    values = [deal["monetaryValue"] for deal, _ in closed if deal["monetaryValue"] is not None]
    revenue = sum(values, Fraction())
    times = [(created.get(deal["contactId"]), at) for deal, at in closed]
    waits = [(at - born).total_seconds() for born, at in times if born is not None and at >= born]
    cohort = leads & {deal["contactId"] for deal, _ in won}
    return {
        "ghl_leads_created": len(leads),
        "ghl_deals_closed": len(closed),
        "ghl_revenue": float(revenue),
        "ghl_revenue_per_lead": ratio(revenue, len(leads)),
        'ghl_lead_conversion_ratio{basis="period"}': ratio(len(closed), len(leads)),
        'ghl_lead_conversion_ratio{basis="cohort"}': ratio(len(cohort), len(leads)),
        "ghl_average_deal_size": ratio(revenue, len(values)),
        'ghl_time_to_conversion_seconds{statistic="mean"}': fmean(waits) if waits else None,
        'ghl_time_to_conversion_seconds{statistic="median"}': quantile(waits, 0.5),
        'ghl_time_to_conversion_seconds{statistic="p90"}': quantile(waits, 0.9),
        "ghl_win_ratio": ratio(len(closed), len(closed) + len(lost)),
        "ghl_open_opportunities": len(waiting),
        "ghl_open_pipeline_value": float(pipeline),
    }


def stages(reached: Reached, in_window: InWindow) -> Values:
    result: Values = {}
    for place, stage in enumerate(STAGES):
        there = [of for of in reached.values() if in_window(min(of.get(stage, ()), default=None))]
        later = [of for of in there if of.keys() & set(STAGES[place + 1 :])]
        result[f'ghl_stage_contacts{{stage="{stage}"}}'] = len(there)
        if stage != "deal_closed":
            result[f'ghl_stage_conversion_ratio{{stage="{stage}"}}'] = ratio(len(later), len(there))
    return result


def speed_to_lead(
    created: Created, answers: Answered, in_window: InWindow, now: datetime
) -> Values:
    waits, waiting = [], []
    for lead, born in created.items():
        after = [at for contact, at in answers if contact == lead and at >= born]
        if in_window(born) and after:
            waits.append((min(after) - born).total_seconds())
        elif in_window(born):
            waiting.append((now - born).total_seconds())
    result: Values = {
        'ghl_first_response_seconds{statistic="median"}': quantile(waits, 0.5),
        'ghl_first_response_seconds{statistic="p90"}': quantile(waits, 0.9),
    }
    for limit in (300, 900, 3600):  # the last one is also that of the leads never answered
        within = len([wait for wait in waits if wait <= limit])
        overdue = len([age for age in waiting if age >= limit])
        share = ratio(within, len(waits) + overdue)
        result[f'ghl_first_response_within_ratio{{limit_seconds="{limit}"}}'] = share
    result["ghl_leads_never_answered_ratio"] = ratio(overdue, len(waits) + overdue)
    return result


def webhooks(told: Iterable[Told], in_window: InWindow) -> Values:
    received = [event for event in told if in_window(event.received_at)]
    names = CONTACT | OPPORTUNITY | APPOINTMENT
    failures = len([event for event in received if event.name in names and event.id is None])
    messages = [event for event in received if event.name in MESSAGE]
    failures += len([event for event in messages if text(event.says.get("contactId")) is None])
    successes = len(received) - failures
    return {
        'ghl_webhooks_processed{outcome="success",source="receiver"}': successes,
        'ghl_webhooks_processed{outcome="failure",source="receiver"}': failures,
        'ghl_webhook_success_ratio{source="receiver"}': ratio(successes, len(received)),
    }


def kpis(
    events: Iterable[Event],
    *,
    location: str,
    zone: ZoneInfo,
    until: date,
    days: int,
    now: datetime,
    pipeline_stages: Mapping[str, str] = {},
    automated_users: Collection[str] = (),
    automated_sources: Collection[str] = ("workflow", "campaign", "bot"),
    showing_calendars: Collection[str] = (),
) -> dict[str, float]:
    """Return the KPIs of a location and window by metric and labels, those that have a value."""

    def in_window(at: datetime | None) -> bool:
        return at is not None and 0 <= (until - at.astimezone(zone).date()).days < days

    told = [event for event in once_each(events) if event.location == location]
    contacts = entities(told, CONTACT, dateAdded=moment)
    opportunities = entities(
        told, OPPORTUNITY, status=word, contactId=text, monetaryValue=number, pipelineStageId=text
    )
    local = partial(moment, naive=zone)
    fields = {"appointmentStatus": word, "contactId": text, "calendarId": text}
    appointments = living(entities(told, APPOINTMENT, startTime=local, **fields))
    answers = [
        (text(event.says.get("contactId")), moment(event.says.get("dateAdded")) or event.at)
        for event in told
        if is_human_answer(event, automated_users, automated_sources)
    ]
    born = {id_: contact.now["dateAdded"] for id_, contact in contacts.items() if contact.states}
    created = {id_: at for id_, at in born.items() if at is not None and not contacts[id_].deleted}

    reached: list[tuple[str | None, str, datetime | None]] = [
        *((contact, "lead_created", at) for contact, at in created.items()),
        *((contact, "human_contacted", at) for contact, at in answers),
    ]
    for entity in opportunities.values():
        if not entity.deleted and entity.now["status"] == "won":
            reached.append((entity.now["contactId"], "deal_closed", run_began(entity)))
        for event, state in zip(entity.events, entity.states, strict=True):
            if stage := pipeline_stages.get(state["pipelineStageId"]):
                reached.append((entity.now["contactId"], stage, event.at))
    for entity in appointments:
        contact, first = entity.now["contactId"], entity.events[entity.run("appointmentStatus")]
        reached.append((contact, "appointment_scheduled", entity.events[0].at))
        shows = not showing_calendars or entity.now["calendarId"] in showing_calendars
        if entity.now["appointmentStatus"] == "showed" and shows:
            reached.append((contact, "property_showing", first.at))
    by_contact: dict[str, dict[str, list[datetime]]] = {}
    for contact, stage, at in reached:
        if contact is not None and not (contact in contacts and contacts[contact].deleted):
            times = by_contact.setdefault(contact, {}).setdefault(stage, [])
            times.extend([] if at is None else [at])

    held = [a.now["appointmentStatus"] for a in appointments if in_window(a.now["startTime"])]
    missed, kept = held.count("noshow"), held.count("showed")
    values = {
        **business(created, living(opportunities), in_window),
        **stages(by_contact, in_window),
        "ghl_appointment_no_show_ratio": ratio(missed, kept + missed),
        **speed_to_lead(created, answers, in_window, now),
        **webhooks(told, in_window),
    }
    return {kpi: value for kpi, value in values.items() if value is not None}
