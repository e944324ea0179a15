"""An oracle: every KPI, computed anew from all events.

It knows the definitions of the KPIs and nothing of the exporter, and takes the plainest way: no
roll-ups, no increments, no SQL. Sums are fractions, so they are exact.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from functools import partial
from statistics import fmean
from typing import Any
from zoneinfo import ZoneInfo

from tests.oracle_agents import agents
from tests.oracle_events import (
    APPOINTMENT,
    CONTACT,
    FOUND,
    MESSAGE,
    OPPORTUNITY,
    STAGES,
    Entity,
    Event,
    Told,
    as_opportunity,
    entities,
    is_human_answer,
    living,
    moment,
    number,
    once_each,
    run_began,
    text,
    word,
)
from tests.oracle_values import InWindow, Values, auc, correlation, grade, quantile, ratio

ACCEPTING = ("liked", "scheduled")
INTERACTIONS = ("viewed", "liked", "scheduled", "rejected", "shared")


@dataclass(frozen=True)
class Options:
    """The settings that the definitions name."""

    pipeline_stages: Mapping[str, str] = field(default_factory=dict)
    automated_users: Collection[str] = ()
    automated_sources: Collection[str] = ("workflow", "campaign", "bot")
    showing_calendars: Collection[str] = ()
    attribution_days: int = 90
    agent_series_limit: int = 100
    webhook_processing_timeout: int = 10_000


@dataclass(frozen=True)
class Deal:
    """A deal; `at` is None where nobody knows when it closed."""

    contact: str | None
    agent: str | None
    value: Fraction | None
    at: datetime | None


# contact -> stage -> when that was told (empty: at an unknown time)
Reached = Mapping[str, Mapping[str, Collection[datetime]]]


class Facts:
    """What all events of a location come to."""

    def __init__(self, told: Sequence[Told], zone: ZoneInfo, options: Options) -> None:
        self.told = told
        self.options = options
        self.calls = [event for event in told if event.kind == "track"]
        self.contacts = entities(
            [event for event in told if event.kind == "ghl"],
            CONTACT,
            dateAdded=moment,
            assignedTo=text,
        )
        self.gone = {id_ for id_, contact in self.contacts.items() if contact.deleted}
        self.opportunities = entities(
            map(as_opportunity, told),
            {*OPPORTUNITY, FOUND, "deal_closed"},
            status=word,
            contactId=text,
            monetaryValue=number,
            assignedTo=text,
            pipelineStageId=text,
        )
        fields = {"appointmentStatus": word, "contactId": text, "calendarId": text}
        local = partial(moment, naive=zone)
        self.appointments = living(entities(told, APPOINTMENT, startTime=local, **fields))
        self.conversions = [
            (event, word(event.says["stage"])) for event in self.calls if event.name == "conversion"
        ]
        self.created = self._created()
        self.answers = [
            (text(e.says.get("contactId")), moment(e.says.get("dateAdded")) or e.at, e)
            for e in told
            if is_human_answer(e, options.automated_users, options.automated_sources)
        ]
        self.deals = [*self._opportunities_deals(), *self._contacts_deals()]
        self.reached = self._reached()

    def _created(self) -> dict[str, datetime]:
        born: dict[str, list[datetime]] = {}
        for id_, contact in self.contacts.items():
            if contact.states and contact.now["dateAdded"]:
                born.setdefault(id_, []).append(contact.now["dateAdded"])
        for event, stage in self.conversions:
            if stage == "lead_created":
                born.setdefault(event.says["contact_id"], []).append(event.at)
        return {id_: min(times) for id_, times in born.items() if id_ not in self.gone}

    def _opportunities_deals(self) -> Iterable[Deal]:
        for entity in living(self.opportunities):
            if entity.now["status"] == "won":
                owners = [state["assignedTo"] for state in entity.states[entity.run("status") :]]
                agent = next((owner for owner in owners if owner is not None), None)
                value = entity.now["monetaryValue"]
                yield Deal(entity.now["contactId"], agent, value, run_began(entity))

    def _contacts_deals(self) -> Iterable[Deal]:
        ever_won = {
            entity.now["contactId"]
            for entity in self.opportunities.values()
            if any(state["status"] == "won" for state in entity.states)
        }
        told: dict[str, list[Told]] = {}
        for event, stage in self.conversions:
            if stage == "deal_closed" and "opportunity_id" not in event.says:
                told.setdefault(event.says["contact_id"], []).append(event)
        for contact, events in told.items():
            if contact not in ever_won and contact not in self.gone:
                values = [e.says["deal_value"] for e in events if "deal_value" in e.says]
                value = number(values[-1]) if values else None
                yield Deal(contact, events[0].says.get("agent_id"), value, events[0].at)

    def _reached(self) -> Reached:
        reached: list[tuple[str | None, str, datetime | None]] = [
            *((contact, "lead_created", at) for contact, at in self.created.items()),
            *((contact, "human_contacted", at) for contact, at, _ in self.answers),
            *((deal.contact, "deal_closed", deal.at) for deal in self.deals),
        ]
        for event, stage in self.conversions:
            if stage is not None and stage != "deal_closed":
                reached.append((event.says["contact_id"], stage, event.at))
        for entity in self.opportunities.values():
            for event, state in zip(entity.events, entity.states, strict=True):
                if mapped := self.options.pipeline_stages.get(state["pipelineStageId"]):
                    reached.append((entity.now["contactId"], mapped, event.at))
        for entity in self.appointments:
            contact, first = entity.now["contactId"], entity.events[entity.run("appointmentStatus")]
            reached.append((contact, "appointment_scheduled", entity.events[0].at))
            calendars = self.options.showing_calendars
            shows = not calendars or entity.now["calendarId"] in calendars
            if entity.now["appointmentStatus"] == "showed" and shows:
                reached.append((contact, "property_showing", first.at))
        by_contact: dict[str, dict[str, list[datetime]]] = {}
        for contact, stage, at in reached:
            if contact is not None and contact not in self.gone:
                times = by_contact.setdefault(contact, {}).setdefault(stage, [])
                times.extend([] if at is None else [at])
        return by_contact

    def recommendations(self) -> dict[str, Told]:
        """Return the first that was told of each."""
        made: dict[str, Told] = {}
        for event in self.calls:
            if event.name == "property-recommendation":
                made.setdefault(event.says["recommendation_id"], event)
        return made

    def interactions(self) -> list[tuple[str, str, Told]]:
        """Return (recommendation, kind, event)."""
        return [
            (event.says["recommendation_id"], event.says["interaction_type"].lower(), event)
            for event in self.calls
            if event.name == "property-interaction"
        ]

    def activities(self) -> list[Told]:
        return [event for event in self.calls if event.name == "agent-activity"]

    def ai_touches(self) -> list[tuple[str | None, datetime]]:
        """Return (contact, when the AI had a part in what it did)."""
        made = self.recommendations()
        touches: list[tuple[str | None, datetime]] = []
        for contact, stages in self.reached.items():
            if "ai_qualified" in stages:
                touches.append((contact, min(stages["ai_qualified"])))
        for id_, kind, event in self.interactions():
            if kind in ACCEPTING:
                theirs = made[id_].says.get("contact_id") if id_ in made else None
                touches.append((event.says.get("contact_id") or theirs, event.at))
        for event in self.activities():
            if event.says.get("ai_recommendation_used") is True:
                touches.append((event.says.get("contact_id"), event.at))
        return touches

    def first_answers(self) -> dict[str, tuple[datetime, str | None]]:
        """Return, for each lead that has one, its first answer and who gave it."""
        first = {}
        for lead, born in self.created.items():
            after = [(at, e.key, e) for contact, at, e in self.answers if contact == lead]
            later = [answer for answer in after if answer[0] >= born]
            if later:
                at, _, event = min(later, key=lambda answer: answer[:2])
                first[lead] = (at, text(event.says.get("userId")))
        return first


# --- KPIs: none where there is no value


def business(facts: Facts, in_window: InWindow) -> Values:
    leads = {contact for contact, at in facts.created.items() if in_window(at)}
    closed = [deal for deal in facts.deals if in_window(deal.at)]
    values = [deal.value for deal in closed if deal.value is not None]
    revenue = sum(values, Fraction())
    waits = [
        (deal.at - born).total_seconds()
        for deal in closed
        if (born := facts.created.get(deal.contact or "")) and deal.at and deal.at >= born
    ]
    cohort = leads & {deal.contact for deal in facts.deals}
    states = [(entity.now, run_began(entity)) for entity in living(facts.opportunities)]
    ended = [state["status"] for state, at in states if in_window(at)]
    won, lost = ended.count("won"), ended.count("lost")
    waiting = [state for state, _ in states if state["status"] == "open"]
    pipeline = sum((state["monetaryValue"] or 0 for state in waiting), Fraction())
    span = timedelta(days=facts.options.attribution_days)
    touches = facts.ai_touches()
    assisted = [
        deal.value or 0
        for deal in closed
        if deal.contact is not None
        and any(
            contact == deal.contact and deal.at is not None and deal.at - span <= at <= deal.at
            for contact, at in touches
        )
    ]
    ai_revenue = sum(assisted, Fraction())
    held = [a.now["appointmentStatus"] for a in facts.appointments if in_window(a.now["startTime"])]
    missed, kept = held.count("noshow"), held.count("showed")
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
        'ghl_attributed_revenue{attribution="ai_assisted"}': float(ai_revenue),
        'ghl_attributed_revenue{attribution="manual"}': float(revenue - ai_revenue),
        "ghl_win_ratio": ratio(won, won + lost),
        "ghl_open_opportunities": len(waiting),
        "ghl_open_pipeline_value": float(pipeline),
        "ghl_appointment_no_show_ratio": ratio(missed, kept + missed),
    }


def ai_score(facts: Facts, in_window: InWindow) -> Values:
    scores: dict[str, tuple[Fraction, datetime]] = {}
    for event, _ in facts.conversions:
        score = number(event.says.get("ai_score"))
        if score is not None:
            scores.setdefault(event.says["contact_id"], (score, event.at))
    pairs = []
    for lead, born in facts.created.items():
        closes = [deal.at for deal in facts.deals if deal.contact == lead]
        if in_window(born) and lead in scores:
            score, at = scores[lead]
            if all(close is not None and at < close for close in closes):
                pairs.append((score, 1 if closes else 0))
    return {
        "ghl_ai_score_correlation": correlation(pairs),
        "ghl_ai_score_auc": auc(pairs),
    }


def stages(facts: Facts, in_window: InWindow) -> Values:
    result: Values = {}
    for place, stage in enumerate(STAGES):
        there = [
            of for of in facts.reached.values() if in_window(min(of.get(stage, ()), default=None))
        ]
        later = [of for of in there if of.keys() & set(STAGES[place + 1 :])]
        result[f'ghl_stage_contacts{{stage="{stage}"}}'] = len(there)
        if stage != "deal_closed":
            result[f'ghl_stage_conversion_ratio{{stage="{stage}"}}'] = ratio(len(later), len(there))
        if stage == "property_showing":
            offers = [of for of in there if of.keys() & set(STAGES[place + 1 :])]
            result["ghl_showing_to_offer_ratio"] = ratio(len(offers), len(there))
    return result


def speed_to_lead(facts: Facts, in_window: InWindow, now: datetime) -> Values:
    waits, waiting = [], []
    first = facts.first_answers()
    for lead, born in facts.created.items():
        if in_window(born) and lead in first:
            waits.append((first[lead][0] - born).total_seconds())
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


def properties(facts: Facts, in_window: InWindow) -> Values:
    made = [id_ for id_, event in facts.recommendations().items() if in_window(event.at)]
    interactions = facts.interactions()
    accepted = {id_ for id_, kind, _ in interactions if kind in ACCEPTING}
    scheduled = {id_ for id_, kind, _ in interactions if kind == "scheduled"}
    told = facts.recommendations()
    pairs = [
        (score, int(id_ in accepted))
        for id_ in made
        if (score := number(told[id_].says.get("recommendation_score"))) is not None
    ]
    kinds = [kind for _, kind, event in interactions if in_window(event.at)]
    return {
        "ghl_recommendations_made": len(made),
        "ghl_recommendation_acceptance_ratio": ratio(len(accepted & set(made)), len(made)),
        "ghl_match_to_showing_ratio": ratio(len(scheduled & set(made)), len(made)),
        "ghl_recommendation_confidence_correlation": correlation(pairs),
        **{
            f'ghl_property_interactions{{interaction="{kind}"}}': kinds.count(kind)
            for kind in INTERACTIONS
        },
    }


def webhooks(
    facts: Facts, completions: Sequence[Told], in_window: InWindow, now: datetime
) -> Values:
    received = [e for e in facts.told if e.kind == "ghl" and in_window(e.received_at)]
    names = CONTACT | OPPORTUNITY | APPOINTMENT
    failures = len([event for event in received if event.name in names and event.id is None])
    messages = [event for event in received if event.name in MESSAGE]
    failures += len([event for event in messages if text(event.says.get("contactId")) is None])
    successes = len(received) - failures

    limit = timedelta(milliseconds=facts.options.webhook_processing_timeout)
    starts: dict[str, Told] = {}
    for event in facts.calls:
        if event.name == "webhook-start":
            starts.setdefault(event.says["tracking_id"], event)
    ends: dict[str, Told] = {}
    for event in completions:
        ends.setdefault(event.says["tracking_id"], event)
    done = [ends[id_].says for id_ in starts if id_ in ends and in_window(ends[id_].at)]
    ran_out = [
        start
        for id_, start in starts.items()
        if id_ not in ends and start.at + limit <= now and in_window(start.at + limit)
    ]
    good = [says for says in done if says.get("success") is True]
    bad = len(done) - len(good) + len(ran_out)

    def is_enriched(says: Mapping[str, Any]) -> bool:
        found = says.get("enrichment_data")
        empty: tuple[object, ...] = (None, "", [], {})
        return isinstance(found, dict) and any(
            v is not False and v not in empty for v in found.values()
        )

    return {
        'ghl_webhooks_processed{outcome="success",source="receiver"}': successes,
        'ghl_webhooks_processed{outcome="failure",source="receiver"}': failures,
        'ghl_webhook_success_ratio{source="receiver"}': ratio(successes, len(received)),
        'ghl_webhooks_processed{outcome="success",source="platform"}': len(good),
        'ghl_webhooks_processed{outcome="failure",source="platform"}': bad,
        'ghl_webhook_success_ratio{source="platform"}': ratio(len(good), len(good) + bad),
        "ghl_contact_enrichment_ratio": ratio(len(list(filter(is_enriched, good))), len(good)),
        "ghl_ai_activation_ratio": ratio(
            len([says for says in done if says.get("ai_activated") is True]), len(done)
        ),
    }


def kpis(
    events: Iterable[Event],
    *,
    location: str,
    zone: ZoneInfo,
    until: date,
    days: int,
    now: datetime,
    **settings: Any,
) -> dict[str, float]:
    """Return the KPIs of a location and window by metric and labels, those that have a value."""
    options = Options(**settings)

    def window(ends: date) -> Callable[[datetime | None], bool]:
        def holds(at: datetime | None) -> bool:
            return at is not None and 0 <= (ends - at.astimezone(zone).date()).days < days

        return holds

    in_window = window(until)
    told = once_each(events)
    facts = Facts([event for event in told if event.location == location], zone, options)
    completions = [
        event
        for event in told
        if event.name == "webhook-completion" and event.location in (location, None)
    ]
    values: Values = {
        **business(facts, in_window),
        **ai_score(facts, in_window),
        **stages(facts, in_window),
        **speed_to_lead(facts, in_window, now),
        **properties(facts, in_window),
        **webhooks(facts, completions, in_window, now),
        **agents(facts, in_window, window(until - timedelta(days=days))),
    }
    values |= grade(values)
    assert all(value is None or math.isfinite(value) for value in values.values())
    return {kpi: float(value) for kpi, value in values.items() if value is not None}


__all__ = ["Entity", "Event", "kpis"]
