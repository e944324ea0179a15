"""Shape webhooks the way GHL posts them: flat snapshots in an envelope, oddities included."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from random import Random
from types import MappingProxyType
from zoneinfo import ZoneInfo

ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

# fmt: off
FIRST_NAMES = (
    "Ada", "Amir", "Bela", "Bruno", "Chiara", "Dalia", "Devan", "Edda", "Emil", "Farid", "Greta",
    "Hugo", "Ines", "Isha", "Jonas", "Kavya", "Lena", "Luca", "Maya", "Milo", "Nadia", "Nils",
    "Oona", "Pablo", "Priya", "Quinn", "Rohan", "Selma", "Tariq", "Una", "Vera", "Yusuf",
)
LAST_NAMES = (
    "Abel", "Banerjee", "Castel", "Dorn", "Ekberg", "Falk", "Gomes", "Hale", "Ivers", "Jansen",
    "Kapur", "Lindholm", "Marsh", "Nolan", "Ortega", "Pell", "Quist", "Rao", "Sander", "Thorne",
    "Ullman", "Varga", "Weiss", "Yoder", "Zeller",
)
# fmt: on
SOURCES = ("website form", "listing portal", "facebook ads", "google ads", "referral", "open house")
QUESTIONS = (
    "Is the flat still available?",
    "Could we see it this week?",
    "What are the monthly costs?",
    "Thanks, that helps.",
    "We would like to talk about the price.",
    "Can you send the floor plan?",
)
ANSWERS = (
    "Hello {name}, thanks for asking! When would a viewing suit you?",
    "Hi {name}, it is still available. Shall I call you?",
    "{name}, I have two more homes that could fit. May I send them?",
    "Good news, {name}: the owner is open to offers.",
)
HOMES = ("apartment", "town house", "family home", "loft", "building plot")


def digest(*parts: object) -> bytes:
    """Return 16 bytes that depend on nothing but the parts, in every process."""
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=16).digest()


@lru_cache(maxsize=1024)
def make_id(*parts: object) -> str:
    """Return an id like GHL's, 20 letters and digits, that depends on the parts alone."""
    return draw_id(Random(int.from_bytes(digest(*parts))))


def draw_id(rng: Random) -> str:
    """Return the next id like GHL's, 20 letters and digits."""
    return "".join(rng.choices(ALPHANUMERIC, k=20))


def make_uuid(*parts: object) -> str:
    """Return a UUID that depends on the parts alone."""
    return str(uuid.UUID(bytes=digest(*parts), version=4))


VERSION_ID = digest("demo app", "version").hex()[:24]
APP_ID = digest("demo app").hex()[:24]
COMPANY_ID = make_id("demo company")


@dataclass(frozen=True, slots=True)
class Agent:
    """A GHL user who sells; skill from 0 to 1 makes answers faster and deals likelier."""

    id: str
    first_name: str
    last_name: str
    skill: float


@dataclass(frozen=True, slots=True)
class Location:
    """A GHL sub-account, and how its business goes."""

    id: str
    name: str
    time_zone: str
    leads_per_day: float
    agents: tuple[Agent, ...]
    conversion: float
    """Share of leads won by an agent of skill 0.5, roughly."""
    deal_size: float
    """Median value of a deal, in the currency."""
    no_show: float
    """Share of appointments that the lead doesn't come to."""
    currency: str = "USD"
    city: str = "New York"
    country: str = "US"
    phone_prefix: str = "+1212"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook: `event` is what happened, `body` what is posted (its type can be wrong)."""

    at: datetime
    event: str
    location_id: str
    body: dict[str, object]

    @property
    def address_suffix(self) -> str:
        """Last part of the address it comes to: the event where the body names none, else ''."""
        return "" if "type" in self.body else self.event


# A pipeline's stages in order; those with a KPI stage can be mapped by PIPELINE_STAGES.
STAGES: Mapping[str, str | None] = MappingProxyType(
    {
        "new": None,
        "qualified": None,  # the AI platform tells it
        "viewing": None,
        "offer": "offer_submitted",
        "contract": "contract_signed",
    }
)


@lru_cache(maxsize=1024)
def stage_id(location_id: str, stage: str) -> str:
    """Return the pipelineStageId of a stage of `STAGES` in a location."""
    return make_uuid(location_id, "stage", stage)


def pipeline_stages(locations: Sequence[Location]) -> dict[str, str]:
    """Return pipelineStageId -> KPI stage, as the setting PIPELINE_STAGES wants it."""
    stages = [(name, kpi) for name, kpi in STAGES.items() if kpi]
    return {stage_id(place.id, name): kpi for place in locations for name, kpi in stages}


def iso(at: datetime) -> str:
    """Return UTC with milliseconds and Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def deliver(
    at: datetime,
    event: str,
    location_id: str,
    fields: dict[str, object],
    key: str,
    *,
    without: Sequence[str] = (),
) -> Delivery:
    """Put the fields in the envelope; a `type` among them replaces the event's name."""
    body: dict[str, object] = {
        "type": event,
        "locationId": location_id,
        "versionId": VERSION_ID,
        "appId": APP_ID,
        **fields,
        "timestamp": iso(at),
        "webhookId": make_uuid(key),
    }
    for name in without:
        del body[name]
    return Delivery(at, event, location_id, body)


def contact(
    rng: Random, location: Location, added: datetime, owner: Agent | None
) -> dict[str, object]:
    """Snapshot of a new contact."""
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    number = rng.randrange(10_000)
    home = rng.choice(HOMES)
    # A custom field's value can be of any kind.
    wish: object = rng.choice((home, rng.randint(2, 9) * 100_000, [home, "garden"], {"home": home}))
    return {
        "id": draw_id(rng),
        "address1": f"{number % 190 + 1} Example Street",
        "city": location.city,
        "country": location.country,
        "source": rng.choice(SOURCES),
        "dateAdded": iso(added),
        "dnd": False,
        "email": f"{first}.{last}.{number}@example.com".lower(),
        "name": f"{first} {last}",
        "firstName": first,
        "lastName": last,
        "phone": f"{location.phone_prefix}55501{number % 100:02d}",
        "tags": ["new lead"],
        "attachments": [],
        "assignedTo": owner.id if owner else None,
        "customFields": [{"id": make_id(location.id, "wish"), "value": wish}],
    }


def opportunity(
    rng: Random, location: Location, person: dict[str, object], added: datetime, stage: str
) -> dict[str, object]:
    """Snapshot of a new opportunity; owner and value may come later."""
    return {
        "id": draw_id(rng),
        "assignedTo": None,
        "contactId": person["id"],
        "name": f"{person['name']} - {rng.choice(HOMES)}",
        "pipelineId": make_id(location.id, "pipeline"),
        "pipelineStageId": stage,
        "status": "open",
        "dateAdded": iso(added),
    }


def appointment_time(
    rng: Random, zone: ZoneInfo, start: datetime, minutes: int
) -> dict[str, object]:
    """Start and end, written with the local offset, in UTC, or naive (then local)."""
    style = rng.random()
    shown = [at.astimezone(zone) for at in (start, start + timedelta(minutes=minutes))]
    if style < 0.6:
        texts = [at.isoformat() for at in shown]
    elif style < 0.75:
        texts = [iso(at) for at in shown]
    else:
        texts = [at.replace(tzinfo=None).isoformat() for at in shown]
    return {"startTime": texts[0], "endTime": texts[1]}


def appointment(
    rng: Random, location: Location, person: dict[str, object], booked: datetime, agent: Agent
) -> dict[str, object]:
    """Snapshot of a booked viewing, without its time."""
    return {
        "id": draw_id(rng),
        "address": f"{rng.randint(1, 190)} Sample Road, {location.city}",
        "title": f"Viewing with {person['name']}",
        "calendarId": make_id(location.id, "calendar"),
        "contactId": person["id"],
        "appointmentStatus": rng.choice(("new", "confirmed", "confirmed")),
        "assignedUserId": agent.id,
        "users": [agent.id],
        "notes": "",
        "source": rng.choice(("booking_widget", "calendar_page", "third_party")),
        "dateAdded": iso(booked),
        "dateUpdated": iso(booked),
    }


def message(
    rng: Random,
    person: dict[str, object],
    added: datetime,
    *,
    outbound: bool,
    user: Agent | None = None,
    comment: bool = False,
) -> dict[str, object]:
    """Fields of a message: by the lead, by an agent, or (outbound without user) by a workflow."""
    # The case of values varies from event to event.
    kind = "InternalComment" if comment else rng.choice(("SMS", "SMS", "sms", "Email", "WhatsApp"))
    text = rng.choice(ANSWERS if outbound else QUESTIONS).format(name=person["firstName"])
    fields: dict[str, object] = {
        "attachments": [],
        "body": "Seems serious, let us call soon." if comment else text,
        "contactId": person["id"],
        "contentType": "text/plain",
        "conversationId": f"{person['id']}"[::-1],
        "dateAdded": iso(added),
        "direction": "outbound" if outbound else "inbound",
        "messageType": kind,
        "status": rng.choice(("delivered", "delivered", "Delivered", "sent")),
    }
    if outbound:
        fields["source"] = "app" if user else "workflow"
        fields["to"] = [person["email"]] if kind == "Email" else person["phone"]
    if user:
        fields["userId"] = user.id
    if rng.random() < 0.9:
        fields["messageId"] = draw_id(rng)
    return fields


def note(rng: Random, person: dict[str, object], added: datetime) -> dict[str, object]:
    """Fields of a note; it names no user."""
    return {
        "id": draw_id(rng),
        "body": f"Looks for a {rng.choice(HOMES)}.",
        "contactId": person["id"],
        "dateAdded": iso(added),
    }


def task(
    rng: Random, person: dict[str, object], added: datetime, agent: Agent
) -> dict[str, object]:
    """Fields of a task; some lack contact and body."""
    fields: dict[str, object] = {
        "id": draw_id(rng),
        "assignedTo": agent.id,
        "dateAdded": iso(added),
        "dueDate": iso(added + timedelta(days=rng.randint(1, 7))),
        "title": f"Call {person['name']}",
    }
    if rng.random() < 0.8:
        fields |= {"contactId": person["id"], "body": "Ask about budget and dates."}
    return fields


def unread(rng: Random, person: dict[str, object]) -> dict[str, object]:
    """Fields of a conversation's new count of unread messages."""
    return {
        "id": f"{person['id']}"[::-1],
        "contactId": person["id"],
        "unreadCount": rng.randint(0, 4),
        "inbox": True,
        "starred": False,
        "deleted": False,
    }


def invoice(
    rng: Random, location: Location, person: dict[str, object], paid: datetime
) -> dict[str, object]:
    """Fields of a paid invoice for a small fee; its location is `altId`."""
    fee = rng.randint(5, 40) * 10
    return {
        "_id": f"{rng.getrandbits(96):024x}",
        "status": "paid",
        "liveMode": True,
        "amountPaid": fee,
        "altId": location.id,
        "altType": "location",
        "name": "Valuation fee",
        "invoiceNumber": str(rng.randint(1000, 9999)),
        "currency": location.currency,
        "contactDetails": {name: person[name] for name in ("id", "name", "email")},
        "total": fee,
        "amountDue": 0,
        "createdAt": iso(paid - timedelta(days=3)),
        "updatedAt": iso(paid),
    }


def user(agent: Agent) -> dict[str, object]:
    """Fields of a new user."""
    return {
        "id": agent.id,
        "firstName": agent.first_name,
        "lastName": agent.last_name,
        "email": f"{agent.first_name}.{agent.last_name}@agency.example.com".lower(),
        "role": "user",
        "permissions": {"contactsEnabled": True, "opportunitiesEnabled": True},
    }


def manager(location: Location) -> dict[str, object]:
    """Fields of a new user of the whole agency: a company and locations, no `locationId`."""
    return {
        "id": make_id(location.id, "manager"),
        "companyId": COMPANY_ID,
        "firstName": "Office",
        "lastName": location.city,
        "email": f"office.{location.id}@agency.example.com".lower(),
        "role": "admin",
        "locations": [location.id],
    }


def sub_account(location: Location) -> dict[str, object]:
    """Fields of a new location: its id is `id`."""
    return {
        "id": location.id,
        "companyId": COMPANY_ID,
        "name": location.name,
        "email": f"hello.{location.id}@agency.example.com".lower(),
    }


def install(location: Location) -> dict[str, object]:
    """Fields of the app's installation."""
    return {"companyId": COMPANY_ID, "companyName": "Demo Agency", "planId": None}
