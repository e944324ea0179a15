"""The oracle gives the values that were computed by hand, and survives whatever GHL may send."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings

from exporter.kpis.definitions import answered_kpis
from tests.conftest import SHARED, needs_shared
from tests.oracle import Event, kpis
from tests.streams import Stream, streams

METRICS = {metric.name for kpi in answered_kpis() for metric in kpi.metric}
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def cases() -> list[Any]:
    """Return the hand-computed cases."""
    found = [json.loads(path.read_text()) for path in sorted((SHARED / "cases").glob("*.json"))]
    return [pytest.param(case, id=case["name"]) for case in found]


def events_of(case: dict[str, Any]) -> list[Event]:
    return [
        Event(
            event["kind"],
            event["endpoint"],
            event["body"],
            datetime.fromisoformat(event["received_at"]),
        )
        for event in case["events"]
    ]


def check(case: dict[str, Any], events: Sequence[Event]) -> None:
    for location, expected in case["expected"].items():
        values = kpis(
            events,
            location=location,
            zone=ZoneInfo(case["time_zone"]),
            until=date.fromisoformat(case["until"]),
            days=case["days"],
            now=NOW,
            **{name.lower(): value for name, value in case.get("settings", {}).items()},
        )
        assert {kpi: values[kpi] for kpi in expected if kpi in values} == pytest.approx(
            {kpi: value for kpi, value in expected.items() if value is not None}, rel=1e-9, abs=0
        )


@needs_shared
@pytest.mark.parametrize("case", cases())
def test_gives_the_values_of_a_case(case: dict[str, Any]) -> None:
    check(case, events_of(case))


@needs_shared
@pytest.mark.parametrize("case", cases())
def test_gives_the_values_of_a_case_in_any_order(case: dict[str, Any]) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    shuffle = random.Random(seed).shuffle
    events = events_of(case)
    arrivals = sorted(event.received_at for event in events)
    for _ in range(20):
        shuffle(events)
        check(
            case,
            [
                replace(event, received_at=arrival)
                for event, arrival in zip(events, arrivals, strict=True)
            ],
        )


@needs_shared
def test_there_are_cases() -> None:
    assert len(cases()) >= 21


@settings(deadline=None)
@given(streams())
def test_survives_every_stream(stream: Stream) -> None:
    for location, zone in stream.zones.items():
        for days in (1, 3, 30):
            values = kpis(
                stream.readable(),
                location=location,
                zone=ZoneInfo(zone),
                until=stream.day + timedelta(days=days // 3),
                days=days,
                now=NOW,
                **{name.lower(): value for name, value in stream.settings.items()},
            )
            assert {kpi.partition("{")[0] for kpi in values} <= METRICS
            assert all(isfinite(value) for value in values.values())


@settings(deadline=None)
@given(streams())
def test_streams_arrive_one_by_one(stream: Stream) -> None:
    assert all(first.received_at < second.received_at for first, second in pairwise(stream.events))
