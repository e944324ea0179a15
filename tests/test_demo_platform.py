"""The simulated platform: repeatable, cut anywhere, and what it tells the exporter takes."""

from datetime import UTC, datetime, timedelta

from exporter.demo.agency import Agency, Delivery
from exporter.demo.platform import REACTION_HORIZON, PlatformCall, body_of, stream
from exporter.domain import platform_calls
from exporter.domain.call_models import MODELS

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = timedelta(days=5)


def _all(start: datetime, end: datetime) -> list[Delivery | PlatformCall]:
    return list(stream(Agency(seed=1), start, end))


def test_spans_that_meet_give_the_events_of_the_whole() -> None:
    middle = START + timedelta(days=1, hours=7, seconds=3)
    whole = _all(START, START + DAYS)
    assert _all(START, middle) + _all(middle, START + DAYS) == whole
    assert [told.at for told in whole] == sorted(told.at for told in whole)
    assert all(START <= told.at < START + DAYS for told in whole)


def test_every_call_is_one_that_the_exporter_takes_and_every_kind_is_there() -> None:
    calls = [told for told in _all(START, START + DAYS) if isinstance(told, PlatformCall)]
    for call in calls:
        MODELS[call.call].model_validate(body_of(call))
    assert {call.call for call in calls} == set(platform_calls.CALLS)
    keys = [(call.call, call.body["idempotency_key"]) for call in calls]
    assert len(set(keys)) == len(keys)
    interactions = {c.body["interaction_type"] for c in calls if "interaction_type" in c.body}
    assert interactions == set(platform_calls.INTERACTIONS)


def test_what_follows_from_a_webhook_follows_within_the_horizon() -> None:
    """A span that begins a horizon later tells nothing of what came before."""
    made = {
        call.body["recommendation_id"]: call.at
        for call in _all(START, START + DAYS)
        if isinstance(call, PlatformCall) and call.call == platform_calls.PROPERTY_RECOMMENDATION
    }
    done = [
        call
        for call in _all(START, START + DAYS)
        if isinstance(call, PlatformCall) and call.call == platform_calls.PROPERTY_INTERACTION
    ]
    known = [call for call in done if call.body["recommendation_id"] in made]
    assert len(known) > 100
    for call in known:
        assert call.at - made[call.body["recommendation_id"]] < REACTION_HORIZON
