"""The agency's AI platform: what it makes of each webhook, and tells the exporter.

Like the agency it remembers nothing: what follows from a webhook follows from its id alone, and at
most `REACTION_HORIZON` later, so that spans of time that meet give the calls of the whole.
"""

import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple

from exporter.demo.agency import Agency
from exporter.demo.payloads import Delivery, digest, iso, make_id
from exporter.domain import platform_calls

REACTION_HORIZON = timedelta(days=3)
_PROCESSED = frozenset({"ContactCreate", "OpportunityCreate", "AppointmentCreate"})


class PlatformCall(NamedTuple):
    """A tracking call at its moment. `body` has everything but `occurred_at`, which is `at`."""

    at: datetime
    call: str
    body: dict[str, Any]


def stream(agency: Agency, start: datetime, end: datetime) -> Iterator[Delivery | PlatformCall]:
    """Yield webhooks and tracking calls with start <= at < end, in order of time."""
    skills = {agent.id: agent.skill for place in agency.locations for agent in place.agents}
    waiting: list[tuple[datetime, int, PlatformCall]] = []
    number = 0
    for delivery in agency.deliveries(start - REACTION_HORIZON, end):
        while waiting and waiting[0][0] <= delivery.at:
            yield heapq.heappop(waiting)[2]
        if delivery.at >= start:
            yield delivery
        for call in _reactions(delivery, skills):
            if start <= call.at < end:
                number += 1
                heapq.heappush(waiting, (call.at, number, call))
    while waiting:
        yield heapq.heappop(waiting)[2]


def _reactions(delivery: Delivery, skills: dict[str, float]) -> Iterator[PlatformCall]:
    """Yield what the platform tells because of one webhook."""
    body: dict[str, Any] = delivery.body
    name = delivery.event
    key = str(body.get("webhookId"))
    rng = Random(int.from_bytes(digest("platform", key)))
    told = _Told(delivery.at, delivery.location_id, key)
    if name in _PROCESSED:
        yield from _process(told, rng, name)
    if name == "ContactCreate":
        skill = skills.get(str(body.get("assignedTo")), 0.5)
        contact_id = str(body.get("id"))
        if rng.random() < 0.3:
            yield told.scored(rng, contact_id, 18 + 25 * skill)
        if rng.random() < 0.4:
            yield from _recommend(told, rng, contact_id, body.get("assignedTo"), skill)
    elif name == "OpportunityCreate" and rng.random() < 0.45:
        skill = skills.get(str(body.get("assignedTo")), 0.5)
        yield told.scored(rng, str(body.get("contactId")), 50 + 30 * skill)
    elif name == "OutboundMessage" and body.get("userId") and rng.random() < 0.5:
        agent_id = str(body["userId"])
        uses_ai = rng.random() < 0.25 + 0.5 * skills.get(agent_id, 0.5)
        fields = {
            "agent_id": agent_id,
            "activity_type": "message",
            "contact_id": body.get("contactId"),
            "ai_recommendation_used": uses_ai,
        }
        yield told.call(platform_calls.AGENT_ACTIVITY, timedelta(seconds=1), fields)


class _Told:
    """Makes calls about one webhook, each with a key of its own."""

    def __init__(self, at: datetime, location_id: str, key: str) -> None:
        self._at = at
        self._location_id = location_id
        self._key = key
        self._count = 0

    def call(self, call: str, after: timedelta, fields: dict[str, Any]) -> PlatformCall:
        self._count += 1
        given = {name: value for name, value in fields.items() if value is not None}
        key = f"{self._key}-{self._count}"
        return PlatformCall(
            self._at + after,
            call,
            {"location_id": self._location_id, "idempotency_key": key, **given},
        )

    def new_id(self, what: str, number: int = 0) -> str:
        """Return an id that follows from the webhook."""
        return make_id(what, self._key, number)

    def scored(self, rng: Random, contact_id: str, middle: float) -> PlatformCall:
        score = round(min(max(rng.gauss(middle, 15), 1), 99))
        fields = {"contact_id": contact_id, "stage": "ai_qualified", "ai_score": score}
        return self.call(platform_calls.CONVERSION, timedelta(seconds=rng.uniform(1, 30)), fields)


def _process(told: _Told, rng: Random, name: str) -> Iterator[PlatformCall]:
    """Yield a processing's start, and mostly its completion."""
    tracking_id = told.new_id("processing")
    begin = timedelta(milliseconds=rng.randrange(20, 200))
    start = {"tracking_id": tracking_id, "webhook_type": name}
    yield told.call(platform_calls.WEBHOOK_START, begin, start)
    if rng.random() < 0.004:  # it hung, and nobody ever told
        return
    seconds = timedelta(seconds=min(rng.lognormvariate(-1, 0.7), 30))
    found = {"budget": rng.randrange(100, 900) * 1000} if rng.random() < 0.78 else {}
    completion = {
        "tracking_id": tracking_id,
        "success": rng.random() < 0.993,
        "enrichment_data": found,
        "ai_activated": rng.random() < 0.62,
    }
    yield told.call(platform_calls.WEBHOOK_COMPLETION, begin + seconds, completion)


def _recommend(
    told: _Told, rng: Random, contact_id: str, agent_id: object, skill: float
) -> Iterator[PlatformCall]:
    """Yield recommended properties, and what the contact did with them."""
    for number in range(rng.randint(1, 3)):
        recommendation_id = told.new_id("recommendation", number)
        score = min(max(rng.gauss(0.62, 0.16), 0.05), 0.99)
        made = timedelta(minutes=rng.uniform(1, 240))
        yield told.call(
            platform_calls.PROPERTY_RECOMMENDATION,
            made,
            {
                "recommendation_id": recommendation_id,
                "contact_id": contact_id,
                "agent_id": agent_id,
                "property_id": told.new_id("property", number),
                "recommendation_score": round(score, 3),
            },
        )
        likes = rng.random() < score * (0.45 + 0.35 * skill)
        done = ["viewed"] if likes or rng.random() < 0.7 else []
        if likes:
            done += ["liked", *(["scheduled"] if rng.random() < 0.4 else [])]
        elif rng.random() < 0.25:
            done.append("rejected")
        if rng.random() < 0.06:
            done.append("shared")
        at = made
        for interaction in done:
            at += timedelta(minutes=rng.uniform(2, 900))
            fields = {
                "recommendation_id": recommendation_id,
                "contact_id": contact_id,
                "interaction_type": interaction,
            }
            yield told.call(platform_calls.PROPERTY_INTERACTION, at, fields)


def body_of(call: PlatformCall) -> dict[str, Any]:
    """Return the call's body as it is sent."""
    return {**call.body, "occurred_at": iso(call.at)}
