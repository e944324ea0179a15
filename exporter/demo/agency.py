"""Simulate a real-estate agency on GHL: the same seed always makes the same webhooks.

Nothing is remembered between calls. A lead's whole life follows from the seed, its location, its
local day and its number on that day, and lasts at most `HORIZON`, so the events of any span of
time are those of the leads born in it or within `HORIZON` before.
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from random import Random

from exporter.demo import payloads
from exporter.demo.lead import HORIZON, TICK, Event, Lead
from exporter.demo.payloads import (
    Agent,
    Delivery,
    Location,
    deliver,
    digest,
    make_id,
    pipeline_stages,
)

__all__ = [
    "DEFAULT_LOCATIONS",
    "DEMO_CURRENCIES",
    "DEMO_LOCATION_NAMES",
    "DEMO_PIPELINE_STAGES",
    "DEMO_SETTINGS",
    "DEMO_TIME_ZONES",
    "HORIZON",
    "Agency",
    "Agent",
    "Delivery",
    "Location",
    "pipeline_stages",
]

DAY = timedelta(days=1)
# Leads for each hour of the local day, and for each weekday from Monday, relative to each other.
# fmt: off
HOUR_WEIGHTS = (
    2, 1, 1, 1, 1, 2, 4, 8, 13, 17, 18, 16, 13, 12, 13, 14, 15, 17, 20, 21, 18, 13, 8, 4,
)
# fmt: on
DAY_WEIGHTS = (1.15, 1.1, 1.05, 1.05, 1.0, 0.95, 0.7)


def _team(members: str) -> tuple[Agent, ...]:
    """Read agents from "First Last skill, ..."."""
    rows = [member.split() for member in members.split(", ")]
    return tuple(Agent(make_id("agent", a, b), a, b, float(skill)) for a, b, skill in rows)


DEFAULT_LOCATIONS = (
    Location(
        id=make_id("location", "New York"),
        name="Harbor Lane Homes",
        time_zone="America/New_York",
        leads_per_day=66,
        agents=_team(
            "Mara Quill 0.95, Theo Brandt 0.8, Anika Shore 0.7, Caleb Finch 0.65, "
            "Rosa Delmar 0.5, Owen Pryce 0.45, Tessa Holm 0.3"
        ),
        conversion=0.145,
        deal_size=23_000,
        no_show=0.15,
    ),
    Location(
        id=make_id("location", "Los Angeles"),
        name="Canyon Light Realty",
        time_zone="America/Los_Angeles",
        leads_per_day=58,
        agents=_team("Jude Arroyo 0.55, Carmen Vale 0.35, Brock Tillman 0.2, Skye Monroe 0.1"),
        # The weak one: slow answers, many no-shows, few deals.
        conversion=0.1,
        deal_size=17_000,
        no_show=0.36,
        city="Los Angeles",
        phone_prefix="+1213",
    ),
    Location(
        id=make_id("location", "Berlin"),
        name="Uferblick Immobilien",
        time_zone="Europe/Berlin",
        leads_per_day=54,
        agents=_team(
            "Lotte Kranz 0.9, Henrik Vogt 0.75, Selin Aydin 0.7, Matthis Rohde 0.55, Ilka Stein 0.4"
        ),
        conversion=0.13,
        deal_size=14_000,
        no_show=0.12,
        currency="EUR",
        city="Berlin",
        country="DE",
        phone_prefix="+4930",
    ),
    Location(
        id=make_id("location", "Kolkata"),
        name="Banyan Court Estates",
        time_zone="Asia/Kolkata",
        leads_per_day=62,
        agents=_team(
            "Ishaan Mitra 0.92, Leela Bose 0.85, Arjun Sarkar 0.7, Nandini Pal 0.66, "
            "Rahul Deb 0.6, Mira Lahiri 0.5, Kabir Dutta 0.42, Tara Ghoshal 0.25"
        ),
        conversion=0.15,
        deal_size=9_500,
        no_show=0.2,
        city="Kolkata",
        country="IN",
        phone_prefix="+9133",
    ),
)

DEMO_PIPELINE_STAGES = pipeline_stages(DEFAULT_LOCATIONS)
DEMO_TIME_ZONES = {place.id: place.time_zone for place in DEFAULT_LOCATIONS}
DEMO_LOCATION_NAMES = {place.id: place.name for place in DEFAULT_LOCATIONS}
DEMO_CURRENCIES = {place.id: place.currency for place in DEFAULT_LOCATIONS}
# What a service has to be set to for this agency.
DEMO_SETTINGS: dict[str, object] = {
    "TIME_ZONES": DEMO_TIME_ZONES,
    "LOCATION_NAMES": DEMO_LOCATION_NAMES,
    "CURRENCIES": DEMO_CURRENCIES,
    "PIPELINE_STAGES": DEMO_PIPELINE_STAGES,
    "KPI_INTERVAL": "5",
    # The history waits as one: larger steps are quicker.
    "PROJECTION_BATCH_SIZE": "4000",
}
# Kinds of harmless events, and how often each comes.
CHATTER = {
    "InboundMessage": 30,
    "OutboundMessage": 15,
    "ContactTagUpdate": 15,
    "ConversationUnreadUpdate": 25,
    "NoteCreate": 6,
    "TaskCreate": 6,
    "InvoicePaid": 3,
}


class Agency:
    """An endless, repeatable source of the webhooks of a few locations."""

    def __init__(self, *, seed: int = 1, locations: Sequence[Location] = DEFAULT_LOCATIONS) -> None:
        if not locations:
            raise ValueError("an agency needs a location")
        self.seed, self.locations = seed, tuple(locations)
        # Chatter returns to the same few leads again and again.
        self._recent = lru_cache(maxsize=1024)(self._life)

    def setup(self, at: datetime) -> Iterator[Delivery]:
        """Yield what installing the app tells: locations, installs, managers, agents."""
        at = _utc(at)
        for place in self.locations:
            told: list[tuple[str, dict[str, object], Sequence[str]]] = [
                ("LocationCreate", payloads.sub_account(place), ["locationId"]),
                ("INSTALL", payloads.install(place), ()),
                ("UserCreate", payloads.manager(place), ["locationId"]),
                *(("UserCreate", payloads.user(agent), ()) for agent in place.agents),
            ]
            for number, (event, fields, without) in enumerate(told):
                key = f"{self.seed}|setup|{place.id}|{number}"
                yield deliver(at, event, place.id, fields, key, without=without)
                at += TICK

    def deliveries(self, start: datetime, end: datetime) -> Iterator[Delivery]:
        """Yield all business events with start <= at < end, in order of time.

        The first one costs a look back over `HORIZON`; after that leads are made day by day as
        the iterator advances, so a live demo reads one long span slowly.
        """
        return self._stream(_utc(start), _utc(end))

    def chatter(self, at: datetime, n: int) -> Delivery:
        """Return the n-th harmless event at a moment, about a lead of the last days.

        It changes no business KPI: nothing is created but notes, tasks and invoices, no owner or
        status changes, and what goes out is a workflow's.
        """
        at = _utc(at)
        key = f"{self.seed}|chatter|{at.isoformat()}|{n}"
        rng = Random(int.from_bytes(digest(key)))
        place = rng.choice(self.locations)
        person = self._someone(rng, place, at)
        agent = rng.choice(place.agents)
        fields: dict[str, object]
        match event := rng.choices(tuple(CHATTER), tuple(CHATTER.values()))[0]:
            case "InboundMessage" | "OutboundMessage":
                outbound = event == "OutboundMessage"
                fields = payloads.message(rng, person, at, outbound=outbound)
            case "ContactTagUpdate":
                fields = {**person, "tags": ["new lead", rng.choice(payloads.SOURCES)]}
            case "NoteCreate":
                fields = payloads.note(rng, person, at)
            case "TaskCreate":
                fields = payloads.task(rng, person, at, agent)
            case "ConversationUnreadUpdate":
                fields = payloads.unread(rng, person)
            case _:
                fields = payloads.invoice(rng, place, person, at)
                return deliver(at, event, place.id, fields, key, without=["type", "locationId"])
        return deliver(at, event, place.id, fields, key)

    def _stream(self, start: datetime, end: datetime) -> Iterator[Delivery]:
        waiting: list[tuple[datetime, str, int, Location, Event]] = []
        # A day more on either side: a local day begins up to 14 h before or 12 h after UTC's.
        day, last = (start - HORIZON).date() - DAY, end.date() + DAY
        while day <= last:
            for place in self.locations:
                for index in range(self._count(place, day)):
                    key = self._key(place, day, index)
                    for number, event in enumerate(self._life(place, day, index)):
                        if start <= event.at < end:
                            heapq.heappush(waiting, (event.at, key, number, place, event))
            day += DAY
            # No lead of `day` or later is born before this.
            settled = datetime.combine(day, time(), UTC) - timedelta(hours=14)
            while waiting and (waiting[0][0] < settled or day > last):
                at, key, number, place, event = heapq.heappop(waiting)
                yield deliver(at, event.name, place.id, event.fields, f"{key}|{number}")

    def _key(self, place: Location, day: date, index: int) -> str:
        return f"{self.seed}|{place.id}|{day.isoformat()}|{index}"

    def _count(self, place: Location, day: date) -> int:
        """Return how many leads a location gets on a local day."""
        rng = Random(int.from_bytes(digest(self._key(place, day, -1))))
        mean = place.leads_per_day * DAY_WEIGHTS[day.weekday()]
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))

    def _life(self, place: Location, day: date, index: int) -> list[Event]:
        """Return all events of one lead, in order."""
        rng = Random(int.from_bytes(digest(self._key(place, day, index))))
        hour = rng.choices(range(24), HOUR_WEIGHTS)[0]
        local = datetime.combine(day, time(hour), place.zone)
        added = local.astimezone(UTC) + timedelta(milliseconds=rng.randrange(3_600_000))
        return Lead(place, rng, added).play()

    def _someone(self, rng: Random, place: Location, at: datetime) -> dict[str, object]:
        """Return a recent lead's snapshot as it is at that moment."""
        today, first = at.astimezone(place.zone).date(), rng.randrange(3)
        for back in range(first, HORIZON.days):
            day = today - back * DAY
            count = self._count(place, day)
            for index in rng.sample(range(count), count):
                told = [
                    event
                    for event in self._recent(place, day, index)
                    if event.at <= at and event.name.startswith("Contact")
                ]
                if told and told[-1].name != "ContactDelete":
                    return told[-1].fields
        raise LookupError(f"location {place.id} has no leads around {at}")


def _utc(at: datetime) -> datetime:
    """Return the moment in UTC, whole milliseconds; refuse a naive one."""
    if at.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
