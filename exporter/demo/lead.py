"""Live a lead's life: first contact, messages, opportunity, viewings, and how it ends."""

import math
from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import NamedTuple

from exporter.demo import payloads
from exporter.demo.payloads import Agent, Location, stage_id

HORIZON = timedelta(days=75)
"""A lead has no events later than this after its creation."""
TICK = timedelta(milliseconds=1)
DAY = timedelta(days=1)
OPENS, CLOSES = 8, 20
"""Opening hours in local time; closed on Sundays."""


class Event(NamedTuple):
    at: datetime
    name: str
    fields: dict[str, object]


class Lead:
    """One lead's life: steps are planned in any order, then played in order of time."""

    def __init__(self, location: Location, rng: Random, added: datetime) -> None:
        self.location, self.rng, self.added, self.zone = location, rng, added, location.zone
        self.steps: list[tuple[datetime, int, str, tuple[str, ...], dict[str, object]]] = []
        self.agent = rng.choice(location.agents)
        self.born = added + self._span(0.3, 4)
        owned = rng.random() < 0.6
        self.person = payloads.contact(rng, location, added, self.agent if owned else None)
        self._plan("contact", self.born, "ContactCreate", self.person)
        if not owned and rng.random() < 0.93:
            owner: dict[str, object] = {"assignedTo": self.agent.id}
            self._plan("contact", self.born + self._span(10, 1200), "ContactUpdate", owner)
        won = self._sell(self._converse())
        self._rarities(won)

    def play(self) -> list[Event]:
        """Return all events in order, each with the snapshot it carries."""
        events: list[Event] = []
        states: dict[str, dict[str, object]] = {}
        clock, gone = self.added, set[str]()
        for planned, _, entity, names, changes in sorted(self.steps):
            if entity in gone or "contact" in gone:
                continue
            if planned - self.added >= HORIZON:
                break
            # A snapshot holds lists that the next one shares: nobody changes them in place.
            state = states[entity] = {**states.get(entity, {}), **changes} if entity else changes
            at = planned
            for name in names:
                # Strictly later each time, so that no snapshot is newer than a later event.
                clock = max(at, clock + TICK)
                events.append(Event(clock, name, _appointed(self.rng, name, state)))
                at = clock + self._span(0.01, 0.6)
            if names[0].endswith("Delete"):
                gone.add(entity)
        return events

    def _span(self, low: float, high: float) -> timedelta:
        """Draw a span between two numbers of seconds, in whole milliseconds."""
        return timedelta(milliseconds=int(1000 * self.rng.uniform(low, high)))

    def _plan(
        self, entity: str, at: datetime, names: str, fields: dict[str, object] | None = None
    ) -> None:
        """Let events (names parted by blanks) happen, with new values of the entity's fields."""
        # GHL tells milliseconds, and the order of events must be the one their timestamps tell.
        at = max(at.replace(microsecond=at.microsecond // 1000 * 1000), self.born)
        self.steps.append((at, len(self.steps), entity, tuple(names.split()), fields or {}))

    def _open(self, at: datetime) -> datetime:
        """Return the moment itself in opening hours, else one soon after the next opening."""
        local = at.astimezone(self.zone)
        if OPENS <= local.hour < CLOSES and local.weekday() < 6:
            return at
        day = local.date() + (DAY if local.hour >= OPENS else timedelta())
        day += DAY if day.weekday() == 6 else timedelta()
        opening = datetime.combine(day, time(OPENS), self.zone).astimezone(UTC)
        return max(opening, at) + self._span(0, 5400)

    def _say(self, at: datetime, user: Agent | None = None, *, comment: bool = False) -> None:
        """Plan an outbound message; without a user it is a workflow's."""
        added = max(at - self._span(0, 0.8), self.born)
        said = payloads.message(
            self.rng, self.person, added, outbound=True, user=user, comment=comment
        )
        if user and not comment and self.rng.random() < 0.02:
            said["status"] = "failed"
            self._say(at + self._span(60, 600), user)
        self._plan("", at, "OutboundMessage", said)

    def _hear(self, at: datetime) -> None:
        heard = payloads.message(self.rng, self.person, at, outbound=False)
        self._plan("", at + self._span(0, 0.8), "InboundMessage", heard)

    def _converse(self) -> datetime | None:
        """Plan the messages; return when a human first answered."""
        rng, agent, slow = self.rng, self.agent, 1 - self.agent.skill
        if rng.random() < 0.92:
            self._say(self.born + self._span(5, 40))
        if rng.random() < 0.5:
            self._hear(self.born + self._span(30, 5400))
        if rng.random() < 0.05:
            self._say(self.born + self._span(120, 7200), agent, comment=True)
        if rng.random() < 0.04 + 0.28 * slow:
            return None
        minutes = 3 * 40**slow * rng.lognormvariate(0, 0.8)
        # Some agents carry the phone home; the rest answer once the office has opened.
        start = self.born if rng.random() < 0.15 else self._open(self.born)
        answer = start + timedelta(milliseconds=int(60_000 * min(minutes, 4000)))
        colleague = rng.random() < 0.08
        self._say(answer, rng.choice(self.location.agents) if colleague else agent)
        at = answer
        while rng.random() < 0.33:
            self._hear(at + self._span(120, 40_000))
            at = self._open(at + self._span(40_000, 300_000))
            self._say(at, agent)
        if rng.random() < 0.12:
            self._plan(
                "", at + self._span(30, 900), "NoteCreate", payloads.note(rng, self.person, at)
            )
        if rng.random() < 0.12:
            job = payloads.task(rng, self.person, at, agent)
            done = {**job, "completed": True}
            self._plan("", at + self._span(30, 900), "TaskCreate", job)
            self._plan("", at + self._span(1000, 400_000), "TaskComplete", done)
        return answer

    def _sell(self, answer: datetime | None) -> bool:
        """Plan the opportunity, if any, up to its end; return whether it is ever won."""
        rng, place, agent = self.rng, self.location, self.agent
        chance = place.conversion * (0.5 + agent.skill) * 1.15 if answer else 0.0
        if answer and answer - self.added > timedelta(hours=1):
            chance *= 0.85
        won = rng.random() < chance
        if not won and rng.random() > (0.4 if answer else 0.12):
            return False
        days = min(max(rng.lognormvariate(math.log(16), 0.7), 3.2), 59)
        value = round(place.deal_size * rng.lognormvariate(0, 0.45) / 50) * 50
        at = self._open(answer or self.born) + self._span(60, 9000)
        added = at - (self._span(60, 360) if rng.random() < 0.1 else self._span(0.2, 2))
        first = payloads.opportunity(
            rng, place, self.person, max(added, self.born), stage_id(place.id, "new")
        )
        if rng.random() < 0.7:
            first |= {"assignedTo": agent.id, "source": self.person["source"]}
        else:
            self._change(at + self._span(30, 900), "AssignedTo", assignedTo=agent.id)
        if rng.random() < 0.5:
            first["monetaryValue"] = max(1000, round(value * rng.uniform(0.7, 1.3), -3))
        self._plan("opportunity", at, "OpportunityCreate OpportunityUpdate", first)

        reached = 1.0 if won else rng.random() ** 2
        for share, stage in (
            (0.06, "qualified"),
            (0.2, "viewing"),
            (0.6, "offer"),
            (0.9, "contract"),
        ):
            if share > reached:
                break
            due = self.added + timedelta(days=days * share * rng.uniform(0.85, 1.1))
            at = self._open(max(due, at + self._span(300, 1800)))
            if stage != "viewing" or rng.random() < 0.3:
                self._change(at, "Stage", pipelineStageId=stage_id(place.id, stage))
            if stage == "qualified" and rng.random() < 0.4:
                tags: dict[str, object] = {"tags": ["new lead", "qualified"]}
                self._plan("contact", at + self._span(1, 5), "ContactTagUpdate", tags)
            elif stage == "viewing":
                at = self._meet(at, days)
            elif stage == "offer" and rng.random() < 0.97:
                self._change(at + self._span(20, 280), "MonetaryValue", monetaryValue=value)
        due = self.added + timedelta(days=days)
        self._finish(self._open(max(due, at + self._span(1800, 9000))), won=won)
        return won

    def _change(self, at: datetime, what: str, **fields: object) -> None:
        """Plan a change of the opportunity: GHL sends two events for each."""
        names = [f"Opportunity{what}Update", "OpportunityUpdate"]
        self._plan("opportunity", at, " ".join(names[:: self.rng.choice((1, 1, 1, -1))]), fields)

    def _meet(self, at: datetime, days: float, tries: int = 2) -> datetime:
        """Plan a viewing, with a second one if the lead stays away; return when it is over."""
        rng, thing = self.rng, f"appointment {tries}"
        gap = timedelta(days=rng.uniform(0.05, 0.15) * days)
        start = self._open(at + max(gap, timedelta(hours=3)))
        start += timedelta(minutes=30 - start.minute % 30, seconds=-start.second)
        start = start.replace(microsecond=0)
        booked = payloads.appointment(rng, self.location, self.person, at, self.agent)
        when = payloads.appointment_time(rng, self.zone, start, 45)
        self._plan(thing, at + self._span(0.2, 2), "AppointmentCreate", {**booked, **when})
        if rng.random() < 0.08:
            start += DAY * rng.choice((1, 1, 2))
            moved = payloads.appointment_time(rng, self.zone, start, 45)
            self._plan(thing, at + self._span(900, 7000), "AppointmentUpdate", moved)
        fate = rng.random()
        if fate < 0.07:  # nobody ever says how it went
            return start
        over = start + self._span(3000, 9000)
        missed = fate < 0.17 or fate < 0.17 + 0.83 * self.location.no_show
        status = "cancelled" if fate < 0.17 else "noshow" if missed else "showed"
        told = start - self._span(600, 3000) if status == "cancelled" else over
        outcome: dict[str, object] = {
            "appointmentStatus": status,
            "dateUpdated": payloads.iso(told),
        }
        self._plan(thing, told, "AppointmentUpdate", outcome)
        if status == "cancelled" and rng.random() < 0.15:
            self._plan(thing, told + self._span(60, 600), "AppointmentDelete")
        if missed and tries > 1 and rng.random() < 0.6:
            return self._meet(self._open(over + self._span(600, 90_000)), days, tries - 1)
        return over

    def _finish(self, at: datetime, *, won: bool) -> None:
        """Plan the end, and now and then what comes after it."""
        rng, luck = self.rng, self.rng.random()
        if not won and luck < 0.25:  # stays open for ever
            return
        status = "won" if won else "lost" if luck < 0.85 else "abandoned"
        self._change(at, "Status", status=status)
        if rng.random() < 0.03:
            again = self._open(at + self._span(80_000, 500_000))
            self._change(again, "Status", status="open")
            end = "won" if won and rng.random() < 0.6 else "lost"
            self._change(self._open(again + self._span(80_000, 500_000)), "Status", status=end)
        if rng.random() < 0.012:
            gone = at + self._span(3000, 300_000)
            self._plan("opportunity", gone, "OpportunityDelete OpportunityUpdate")

    def _rarities(self, won: bool) -> None:
        rng, at = self.rng, self.born + self._span(4000, 1_500_000)
        if rng.random() < 0.02:
            self._hear(at)
            self._plan("contact", at + self._span(1, 3), "ContactDndUpdate", {"dnd": True})
        if not won and rng.random() < 0.009:
            self._plan("contact", at + self._span(60, 90_000), "ContactDelete")


def _appointed(rng: Random, name: str, state: dict[str, object]) -> dict[str, object]:
    """Nest an appointment's fields; some updates call themselves a Create, as GHL's samples do."""
    if not name.startswith("Appointment"):
        return state
    nested: dict[str, object] = {"appointment": state}
    wrong = name == "AppointmentUpdate" and rng.random() < 0.04
    return {"type": "AppointmentCreate", **nested} if wrong else nested
