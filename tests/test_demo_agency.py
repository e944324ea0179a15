"""The simulated agency: repeatable, in order, shaped like GHL's webhooks, plausible."""

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.demo.agency import (
    DEFAULT_LOCATIONS,
    DEMO_PIPELINE_STAGES,
    DEMO_TIME_ZONES,
    HORIZON,
    Agency,
    Delivery,
    pipeline_stages,
)

START = datetime(2026, 2, 20, 7, 30, tzinfo=UTC)
END = START + timedelta(days=30)
# New York and Kolkata, as far apart as it gets, and quiet enough for many runs.
QUIET = tuple(replace(DEFAULT_LOCATIONS[place], leads_per_day=2) for place in (0, 3))


def body_of(delivery: Delivery) -> dict[str, Any]:
    return delivery.body


def contact_of(delivery: Delivery) -> Any:
    body = body_of(delivery)
    if delivery.event.startswith("Contact"):
        return body["id"]
    return body.get("appointment", body).get("contactId")


def humanly_answered(delivery: Delivery) -> bool:
    body = body_of(delivery)
    return (
        delivery.event == "OutboundMessage"
        and "userId" in body
        and body["messageType"] != "InternalComment"
        and body["status"] != "failed"
    )


@pytest.fixture(scope="module")
def month() -> list[Delivery]:
    """A month of the default agency."""
    return list(Agency().deliveries(START, END))


@pytest.fixture(scope="module")
def stories(month: list[Delivery]) -> dict[str, list[Delivery]]:
    """What happened to each contact that was created in the month, by contact id."""
    found: dict[str, list[Delivery]] = {}
    for delivery in month:
        person = contact_of(delivery)
        if delivery.event == "ContactCreate":
            found[person] = [delivery]
        elif person in found:
            found[person].append(delivery)
    return found


@pytest.fixture(scope="module")
def chats() -> list[Delivery]:
    agency = Agency()
    return [agency.chatter(START + timedelta(seconds=n), n) for n in range(600)]


# --- Repeatable ---------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    # A year and a bit, so that clocks go forward and back in it.
    first=st.integers(0, 400 * 86_400_000),
    spans=st.lists(st.integers(0, 5 * 86_400_000), min_size=2, max_size=3),
)
def test_spans_that_meet_give_the_events_of_the_whole(
    seed: int, first: int, spans: list[int]
) -> None:
    agency = Agency(seed=seed, locations=QUIET)
    cuts = [START + timedelta(milliseconds=first)]
    for span in spans:
        cuts.append(cuts[-1] + timedelta(milliseconds=span))
    parts = [event for a, b in pairwise(cuts) for event in agency.deliveries(a, b)]
    assert parts == list(agency.deliveries(cuts[0], cuts[-1]))


def test_a_cut_at_the_very_moment_of_an_event_neither_loses_nor_doubles_it() -> None:
    agency = Agency(locations=QUIET)
    whole = list(agency.deliveries(START, START + timedelta(days=3)))
    for event in whole[:: max(1, len(whole) // 5)]:
        before = list(agency.deliveries(START, event.at))
        assert before + list(agency.deliveries(event.at, START + timedelta(days=3))) == whole


def test_another_process_tells_the_same_story() -> None:
    code = (
        "import hashlib, json; from datetime import datetime, timedelta, UTC\n"
        "from dataclasses import replace; from exporter.demo.agency import *\n"
        "quiet = [replace(place, leads_per_day=2) for place in DEFAULT_LOCATIONS]\n"
        "start = datetime(2026, 2, 20, tzinfo=UTC)\n"
        "told = Agency(seed=3, locations=quiet).deliveries(start, start + timedelta(days=2))\n"
        "print(hashlib.sha256(json.dumps([d.body for d in told]).encode()).hexdigest())\n"
    )
    told = {
        subprocess.check_output(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": salt}, text=True
        )
        for salt in ("1", "2")
    }
    quiet = [replace(place, leads_per_day=2) for place in DEFAULT_LOCATIONS]
    start = datetime(2026, 2, 20, tzinfo=UTC)
    here = Agency(seed=3, locations=quiet).deliveries(start, start + timedelta(days=2))
    text = json.dumps([delivery.body for delivery in here])
    assert told == {hashlib.sha256(text.encode()).hexdigest() + "\n"}


def test_another_seed_tells_another_story() -> None:
    ids = [
        {
            delivery.body["webhookId"]
            for delivery in Agency(seed=seed, locations=QUIET).deliveries(START, END)
        }
        for seed in (1, 2)
    ]
    assert ids[0] and not ids[0] & ids[1]


def test_a_late_span_knows_the_old_leads() -> None:
    # Few leads live for long, so this takes more of them.
    agency = Agency(locations=[replace(DEFAULT_LOCATIONS[0], leads_per_day=40)])
    late = START + timedelta(days=90)
    whole = agency.deliveries(START, late + timedelta(days=20))
    assert list(agency.deliveries(late, late + timedelta(days=20))) == [
        event for event in whole if event.at >= late
    ]


def test_a_life_ends_within_the_horizon() -> None:
    born: dict[str, datetime] = {}
    longest = timedelta()
    for event in Agency(locations=QUIET).deliveries(START, START + 6 * HORIZON):
        if event.event == "ContactCreate":
            born[body_of(event)["id"]] = event.at
        longest = max(longest, event.at - born.get(contact_of(event), event.at))
    assert timedelta(days=45) < longest < HORIZON


def test_a_location_is_the_same_whoever_its_neighbours_are() -> None:
    alone = list(Agency(locations=QUIET[:1]).deliveries(START, END))
    together = Agency(locations=QUIET).deliveries(START, END)
    assert alone == [event for event in together if event.location_id == QUIET[0].id]


def test_a_long_span_is_read_lazily() -> None:
    endless = Agency(locations=QUIET).deliveries(START, datetime(2999, 1, 1, tzinfo=UTC))
    assert len(list(islice(endless, 50))) == 50


# --- Shaped like GHL's --------------------------------------------------------------------------


def test_events_come_in_order_and_inside_the_span(month: list[Delivery]) -> None:
    times = [delivery.at for delivery in month]
    assert times == sorted(times)
    assert times[0] >= START and times[-1] < END
    assert all(at.tzinfo is UTC for at in times)


def test_no_webhook_id_comes_twice(month: list[Delivery], chats: list[Delivery]) -> None:
    told = [delivery.body["webhookId"] for delivery in month + chats + list(Agency().setup(START))]
    assert len(set(told)) == len(told)


def test_every_body_is_json_in_the_envelope(month: list[Delivery], chats: list[Delivery]) -> None:
    for delivery in month + chats + list(Agency().setup(START)):
        body = body_of(delivery)
        assert json.loads(json.dumps(body, allow_nan=False)) == body
        assert list(body)[-2:] == ["timestamp", "webhookId"]
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", body["webhookId"])
        assert body["timestamp"].endswith("Z")
        assert datetime.fromisoformat(body["timestamp"]) == delivery.at
        assert re.fullmatch(r"[A-Za-z0-9]{20}", delivery.location_id)
        assert body.get("locationId", delivery.location_id) == delivery.location_id
        if delivery.event == "InvoicePaid":
            assert not {"type", "locationId"} & set(body)
            assert (body["altType"], body["altId"]) == ("location", delivery.location_id)
            assert delivery.address_suffix == "InvoicePaid"
        else:
            assert delivery.address_suffix == ""
            # As in GHL's own samples, an appointment's update can call itself a Create.
            said, event = body["type"], delivery.event
            assert said == event or (event, said) == ("AppointmentUpdate", "AppointmentCreate")


def test_every_family_is_there(month: list[Delivery], chats: list[Delivery]) -> None:
    changes = ("Status", "Stage", "MonetaryValue", "AssignedTo")
    assert {delivery.event for delivery in month} == {
        *(f"Contact{what}" for what in ("Create", "Update", "Delete", "DndUpdate", "TagUpdate")),
        *(f"Opportunity{what}" for what in ("Create", "Update", "Delete")),
        *(f"Opportunity{what}Update" for what in changes),
        *(f"Appointment{what}" for what in ("Create", "Update", "Delete")),
        *("InboundMessage", "OutboundMessage", "NoteCreate", "TaskCreate", "TaskComplete"),
    }
    assert {delivery.event for delivery in chats} == {
        *("InboundMessage", "OutboundMessage", "ContactTagUpdate", "NoteCreate", "TaskCreate"),
        *("InvoicePaid", "ConversationUnreadUpdate"),
    }
    setup = Counter(delivery.event for delivery in Agency().setup(START))
    agents = sum(len(place.agents) for place in DEFAULT_LOCATIONS)
    assert setup == {"LocationCreate": 4, "INSTALL": 4, "UserCreate": agents + 4}


def test_the_oddities_are_there(month: list[Delivery]) -> None:
    outbound = [body_of(event) for event in month if event.event == "OutboundMessage"]
    assert {type(body["to"]) for body in outbound} == {str, list}
    assert {"messageId" in body for body in outbound} == {True, False}
    assert {"SMS", "sms", "InternalComment"} <= {body["messageType"] for body in outbound}
    created = [body_of(event) for event in month if event.event == "OpportunityCreate"]
    assert {"monetaryValue" in body for body in created} == {True, False}
    assert None in {body["assignedTo"] for body in created}
    booked = [body_of(event) for event in month if event.event == "AppointmentCreate"]
    zones = Counter(body["appointment"]["startTime"][19:][:1] for body in booked)
    assert {"", "+", "-", "."} == set(zones)  # naive, two offsets, milliseconds with Z
    wishes = [body_of(event)["customFields"][0] for event in month if "Contact" in event.event]
    assert {type(wish["value"]) for wish in wishes} == {str, int, list, dict}


def test_each_change_of_an_opportunity_is_told_twice(stories: dict[str, list[Delivery]]) -> None:
    volatile = {"type", "timestamp", "webhookId"}
    for story in stories.values():
        deals = [event for event in story if event.event.startswith("Opportunity")]
        for one, two in zip(deals[::2], deals[1::2], strict=False):
            assert "OpportunityUpdate" in {one.event, two.event} and one.event != two.event
            told = [{k: v for k, v in x.body.items() if k not in volatile} for x in (one, two)]
            assert told[0] == told[1]


def test_nothing_rises_after_its_deletion(stories: dict[str, list[Delivery]]) -> None:
    deleted = 0
    for story in stories.values():
        names = [event.event for event in story]
        if "ContactDelete" in names:
            assert names[-1] == "ContactDelete"
        if "OpportunityDelete" in names:
            deals = [name for name in names if name.startswith("Opportunity")]
            # The Update is the Delete's own second event.
            assert deals[deals.index("OpportunityDelete") + 1 :] in ([], ["OpportunityUpdate"])
            deleted += 1
    assert deleted


def test_nobody_is_spoken_to_before_the_contact_exists(
    month: list[Delivery], stories: dict[str, list[Delivery]]
) -> None:
    seen: set[str] = set()
    for delivery in month:
        person = contact_of(delivery)
        if person in stories and delivery.event == "ContactCreate":
            assert person not in seen
        seen.add(person)
    for story in stories.values():
        born = story[0]
        added = datetime.fromisoformat(body_of(born)["dateAdded"])
        assert timedelta(0) <= born.at - added < timedelta(seconds=5)
        for event in story:
            told = body_of(event).get("dateAdded")
            assert told is None or added <= datetime.fromisoformat(told) <= event.at


# --- Plausible ----------------------------------------------------------------------------------


def test_the_figures_of_each_location_are_plausible(month: list[Delivery]) -> None:
    conversions = {}
    for place in DEFAULT_LOCATIONS:
        status: dict[str, str] = {}
        value: dict[str, float] = {}
        leads, closed, shown = 0, set(), Counter[str]()
        for event in month:
            body = body_of(event)
            if event.location_id != place.id:
                continue
            leads += event.event == "ContactCreate"
            if event.event.startswith("Opportunity"):
                if event.event == "OpportunityStatusUpdate" and body["status"] == "won":
                    closed.add(body["id"])
                status[body["id"]] = body["status"]
                value[body["id"]] = body.get("monetaryValue", 0)
            if event.event == "AppointmentUpdate":
                shown[body["appointment"]["appointmentStatus"]] += 1
        deals = [deal for deal in closed if status[deal] == "won"]
        conversions[place.name] = len(deals) / leads
        assert 45 <= leads / 30 <= 75
        assert 0.05 <= conversions[place.name] <= 0.30
        assert 1000 <= sum(value[deal] for deal in deals) / leads <= 5500
        assert 4000 <= statistics.mean(value[deal] for deal in deals) <= 40_000
        assert 0.05 <= shown["noshow"] / (shown["noshow"] + shown["showed"]) <= 0.45
    weakest = min(conversions, key=conversions.__getitem__)
    assert weakest == "Canyon Light Realty"


def test_some_leads_wait_and_some_are_never_answered(stories: dict[str, list[Delivery]]) -> None:
    waits: dict[str, list[float]] = defaultdict(list)
    old, unanswered = 0, 0
    for story in stories.values():
        answers = [event for event in story if humanly_answered(event)]
        if answers:
            waits[story[0].location_id].append((answers[0].at - story[0].at).total_seconds())
        if story[0].at < END - timedelta(days=7):
            old += 1
            unanswered += not answers
    assert 0.08 <= unanswered / old <= 0.25
    everyone = [wait for place in waits.values() for wait in place]
    deciles = statistics.quantiles(everyone, n=10)
    assert deciles[0] < 600 and 900 < deciles[4] < 7200 and deciles[8] > 20_000
    medians = {place: statistics.median(found) for place, found in waits.items()}
    assert max(medians, key=medians.__getitem__) == DEFAULT_LOCATIONS[1].id


def test_only_stages_that_can_be_mapped_are_mapped(month: list[Delivery]) -> None:
    stages = {"offer_submitted", "contract_signed"}
    assert set(DEMO_PIPELINE_STAGES.values()) == stages
    assert pipeline_stages(DEFAULT_LOCATIONS) == DEMO_PIPELINE_STAGES
    assert len(DEMO_PIPELINE_STAGES) == len(stages) * len(DEFAULT_LOCATIONS)
    assert set(DEMO_PIPELINE_STAGES) <= {body_of(event).get("pipelineStageId") for event in month}
    assert set(DEMO_TIME_ZONES) == {event.location_id for event in month}


# --- Chatter ------------------------------------------------------------------------------------


def test_chatter_is_repeatable_and_about_leads_that_exist() -> None:
    agency = Agency(locations=QUIET)
    known: dict[str, Delivery] = {}
    for event in agency.deliveries(START - HORIZON, START):
        if event.event.startswith("Contact"):
            known[body_of(event)["id"]] = event
    for n in range(60):
        event = agency.chatter(START, n)
        assert event == Agency(locations=QUIET).chatter(START, n)
        assert event.at == START
        person = contact_of(event) or body_of(event).get("contactDetails", {}).get("id")
        if person:  # a task can lack it
            assert known[person].event != "ContactDelete"
        if event.event == "ContactTagUpdate":
            volatile = {"type", "timestamp", "webhookId", "tags"}
            old, new = known[person].body, event.body
            assert {k: v for k, v in new.items() if k not in volatile} == {
                k: v for k, v in old.items() if k not in volatile
            }


def test_chatter_never_counts_as_an_answer(chats: list[Delivery]) -> None:
    sent = [body_of(event) for event in chats if event.event == "OutboundMessage"]
    assert sent and all(body["source"] == "workflow" and "userId" not in body for body in sent)


def test_chatter_needs_a_lead() -> None:
    deserted = [replace(DEFAULT_LOCATIONS[0], leads_per_day=0)]
    assert list(Agency(locations=deserted).deliveries(START, END)) == []
    with pytest.raises(LookupError, match="no leads"):
        Agency(locations=deserted).chatter(START, 0)


def test_a_moment_without_zone_and_an_empty_agency_are_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Agency().deliveries(START.replace(tzinfo=None), END)
    with pytest.raises(ValueError, match="location"):
        Agency(locations=())
