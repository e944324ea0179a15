"""What callers pass to the client: what is accepted is exactly what is written."""

import logging
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from exporter.api.keys import create_key
from exporter.client import ArgumentError, AsyncClient, Client, ClientError, ConversionStage
from exporter.client.log import log
from exporter.client.values import MAX_ACCESSORY_BYTES
from tests.conftest import MakeService, Service

SEED = random.randrange(2**32)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AN_ID = UUID("12345678-1234-5678-1234-567812345678")


class Colour(Enum):
    RED = "red"


class Word(StrEnum):
    ANN = "ann"


class Number(IntEnum):
    SEVEN = 7


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Collect the client's log lines, whatever other tests did to logging."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Collect()
    before = (log.disabled, log.level, log.propagate)
    log.disabled, log.propagate = False, False
    log.setLevel(logging.WARNING)
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)
    log.disabled, level, log.propagate = before
    log.setLevel(level)


@pytest.fixture
def client() -> Iterator[Client]:
    """A client whose exporter is away."""
    made = Client("http://127.0.0.1:9", "key", location_id="loc")
    yield made
    made.close(0)


@pytest.fixture
async def service(make_service: MakeService, database_url: str) -> AsyncIterator[Service]:
    made = make_service(database_url=database_url, api_requests_per_minute=100_000)
    made.start()
    yield made


@pytest.fixture
async def key(connection: asyncpg.Connection) -> str:
    return await create_key(connection, "platform", ["read", "track"], ["*"])


def queued(client: Client) -> dict[str, Any]:
    """Return the last call as it will be sent."""
    waiting = client._worker._outbox._waiting
    _, body = max(calls[-1] for calls in waiting.values())
    written: dict[str, Any] = orjson.loads(body)
    return written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (250000, 250000),
        (Decimal("250000.10"), 250000.1),
        (Fraction(1, 4), 0.25),
        (Number.SEVEN, 7),
        (2**70, float(2**70)),
        (-0.0, 0),
    ],
)
def test_numbers_are_written_as_numbers(client: Client, value: Any, written: float) -> None:
    assert client.track_conversion_stage("c", "deal_closed", deal_value=value)
    assert queued(client)["deal_value"] == written


def test_numpys_values_are_written_as_pythons(client: Client) -> None:
    np = pytest.importorskip("numpy")
    for value in (
        np.int64(7),
        np.float32(7),
        np.float64(7),
        np.uint8(7),
        np.array(7),
        np.array(7.0),
    ):
        assert client.track_conversion_stage("c", "deal_closed", deal_value=value)
        assert queued(client)["deal_value"] == 7
    assert client.track_agent_activity("ann", "call", np.True_)
    assert queued(client)["ai_recommendation_used"] is True
    assert client.track_agent_activity(np.str_("ann"), contact_id=np.int32(5))
    assert (queued(client)["agent_id"], queued(client)["contact_id"]) == ("ann", "5")
    assert client.track_agent_activity("ann", metadata={"list": np.arange(3)})
    assert queued(client)["metadata"] == {"list": [0, 1, 2]}
    for value in (np.array([7]), np.float64("nan"), np.datetime64("2026-01-01"), np.bool_(True)):
        assert not client.track_conversion_stage("c", "deal_closed", deal_value=value)


def test_nothing_imports_numpy() -> None:
    import subprocess
    import sys

    program = "import sys, exporter.client; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [(AN_ID, str(AN_ID)), (17, "17"), (Colour.RED, "red"), (Word.ANN, "ann"), (Number.SEVEN, "7")],
)
def test_ids_are_written_as_text(client: Client, value: Any, written: str) -> None:
    assert client.track_conversion_stage(value, ConversionStage.AI_QUALIFIED, agent_id=value)
    assert queued(client)["contact_id"] == queued(client)["agent_id"] == written
    assert queued(client)["stage"] == "ai_qualified"
    assert client.track_webhook_start(value, tracking_id=value) == written


@pytest.mark.parametrize(
    "value", [NOON, "2026-03-01T13:00:00+01:00", NOON.astimezone(timezone(timedelta(hours=1)))]
)
def test_moments_are_written_with_their_offset(client: Client, value: Any) -> None:
    assert client.track_agent_activity("ann", occurred_at=value)
    assert datetime.fromisoformat(queued(client)["occurred_at"]) == NOON


cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("occurred_at", NOON.replace(tzinfo=None)), ("occurred_at", date(2026, 3, 1))],
        *[("occurred_at", "2026-03-01T12:00:00"), ("occurred_at", "today"), ("occurred_at", 1.5)],
        *[("contact_id", ""), ("contact_id", b"c"), ("contact_id", 1.5), ("contact_id", True)],
        *[("contact_id", "\ud83d"), ("contact_id", "c" * 256), ("contact_id", "a\0b")],
        *[("contact_id", ["c"]), ("contact_id", cycle), ("contact_id", object())],
        *[("deal_value", "250000"), ("deal_value", True), ("deal_value", float("nan"))],
        *[("deal_value", float("inf")), ("deal_value", 10**400), ("deal_value", Decimal("sNaN"))],
        *[("deal_value", Decimal("1e400")), ("deal_value", b"1"), ("deal_value", 1j)],
        *[("deal_value", -1), ("deal_value", Decimal("-0.01"))],
        *[("ai_score", -1), ("ai_score", 101), ("ai_score", 9999), ("ai_score", cycle)],
        *[("idempotency_key", ""), ("location_id", ""), ("location_id", 0.5)],
        *[("opportunity_id", {"id": 1}), ("agent_id", Ellipsis)],
    ],
)
def test_what_cannot_be_written_is_refused_at_the_call_with_its_name(
    client: Client, said: list[str], argument: str, value: Any
) -> None:
    arguments: dict[str, Any] = {"contact_id": "c", "stage": "deal_closed", argument: value}
    assert client.track_conversion_stage(**arguments) is False
    assert (client.stats.rejected, client.stats.waiting) == (1, 0)
    assert len(said) == 1
    assert f" {argument}: " in said[0]
    client._raise_errors = True
    with pytest.raises(ArgumentError, match=rf"^{argument}: ") as caught:
        client.track_conversion_stage(**arguments)
    assert caught.value.name == argument
    assert isinstance(caught.value, ClientError)


def test_objects_that_raise_when_they_are_read_break_nothing(client: Client) -> None:
    class Hostile(str):
        def __getattribute__(self, name: str) -> Any:
            raise RecursionError(name)

    assert client.track_agent_activity("ann", "call", metadata={"a": Hostile("x"), "b": 1})
    assert not client.track_agent_activity(Hostile("ann"), deal_value=Hostile("1"))


@pytest.mark.parametrize(
    "value",
    [
        *(b"bytes", object(), cycle, float("nan"), "\ud83d", {"a": {1.5: 2}}, Decimal("inf")),
        *("x" * MAX_ACCESSORY_BYTES, orjson.loads("[" * 99 + "]" * 99), lambda: None),
    ],
)
@pytest.mark.parametrize("name", ["metadata", "enrichment_data"])
def test_accessory_data_that_cannot_be_written_is_left_out_of_the_call(
    client: Client, said: list[str], name: str, value: Any
) -> None:
    data = {"good": [Decimal("1.5"), AN_ID, NOON, Word.ANN, {3: None}], "bad": value}
    written = [1.5, str(AN_ID), NOON.isoformat(), "ann", {"3": None}]
    client._raise_errors = True
    arguments: dict[str, Any] = {"tracking_id": "t", "success": True}
    assert client.track_webhook_completion(**{**arguments, name: data})
    assert queued(client)[name] == {"good": written}
    assert len(said) == 1
    assert f"{name}: 'bad' " in said[0]
    # Not even a container.
    assert client.track_webhook_completion(**{**arguments, name: object()})
    assert name not in queued(client)


def test_an_unknown_keyword_is_refused_with_the_nearest_name(
    client: Client, said: list[str]
) -> None:
    assert not client.track_conversion_stage("c", "deal_closed", deal_vale=1)  # type: ignore[call-overload]
    assert not client.track_property_interaction("r", "liked", contact="c")
    assert "deal_vale: track_conversion_stage has no such argument" in said[0]
    assert "did you mean deal_value?" in said[0]
    assert "did you mean contact_id?" in said[1]
    assert client.stats.queued == 0


def test_a_fault_that_repeats_is_logged_once_a_minute(client: Client, said: list[str]) -> None:
    for _ in range(100):
        assert not client.track_agent_activity("")
        assert not client.track_agent_activity("ann", deal_value="x")  # type: ignore[call-overload]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        *[("127.0.0.1:12105", "127.0.0.1:12105"), ("localhost", "localhost"), ("", "http")],
        *[("ftp://host", "ftp"), ("http://", "http"), ("http://h:99999", "99999")],
        *[
            ("http://h/?a=b", "a=b"),
            ("http://a b", "a b"),
            (None, "NoneType"),
            (b"http://h", "bytes"),
        ],
        ("http://me:secret@host", "password"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_wrong_url_is_refused_by_the_constructor(kind: Any, url: Any, shown: str) -> None:
    with pytest.raises(ArgumentError, match=r"^url: ") as caught:
        kind(url, "key")
    assert shown in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"key": ""},
        {"key": "a\nb"},
        {"key": None},
        {"key": "kéy"},
        {"location_id": " "},
        {"location_id": 1.5},
        {"queue_size": -1},
        {"timeout": 0},
        {"timeout": "1"},
    ],
)
def test_other_wrong_options_are_refused_too_without_the_key(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ArgumentError, match=rf"^{name}: ") as caught:
        Client(**{"url": "http://h", "key": "a key", **options})
    assert "kéy" not in str(caught.value)


async def test_a_deal_value_of_any_kind_of_number_becomes_revenue(
    service: Service, key: str, connection: asyncpg.Connection
) -> None:
    """A trailing slash, and a key with its line's end, are fine."""
    async with AsyncClient(service.url + "/", key + "\n", location_id=AN_ID) as client:
        assert client.track_conversion_stage("c", "deal_closed", deal_value=Decimal("250000.00"))
        assert await client.flush()
        assert (client.stats.sent, client.stats.rejected) == (1, 0)
    body = await connection.fetchval("SELECT body FROM inbox")
    assert orjson.loads(body)["deal_value"] == 250000


def _values(rng: random.Random) -> list[Any]:
    """Values of all kinds that callers have, sensible and not, in any order."""
    length = rng.choice((1, 3, 90, 300))
    codes = (rng.choice((rng.randrange(32, 127), rng.randrange(0x110000))) for _ in range(length))
    text = "".join(map(chr, codes))
    size = rng.choice((1e-9, 1, 100, 1e6, 1e300))
    values = [
        *(text, text[:3], "", "deal_closed", "liked", Word.ANN, Colour.RED, Number.SEVEN, AN_ID),
        *(rng.randrange(-5, 200), rng.randrange(2**80), -(2**63), 10**30, 10**400),
        *(rng.random() * size, -rng.random() * size, Decimal(rng.random() * size), Fraction(1, 3)),
        *(float("nan"), float("inf"), Decimal("NaN"), Decimal("1E+500"), 1j, True, False, None),
        *(NOON, NOON.replace(tzinfo=None), NOON.isoformat(), "2026-03-01 12:00", date(2026, 1, 1)),
        *(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), "20260301T120000Z"),
        *(NOON.replace(tzinfo=timezone(timedelta(seconds=rng.randrange(-86399, 86399)))),),
        *(b"bytes", [1], (), {}, {"a": rng.random()}, {"\ud800": 1}, {text: text}, cycle, object()),
        *({1, 2}, [[[[]]]], len),
    ]
    try:
        import numpy as np
    except ImportError:
        pass
    else:
        values += [np.int8(5), np.float32(0.1), np.array(3), np.array([3]), np.str_("n"), np.True_]
        values += [np.float64("nan"), np.datetime64("2026-01-01T00:00"), np.uint64(2**64 - 1)]
    rng.shuffle(values)
    return values


CALLS: dict[str, list[str]] = {
    "track_webhook_start": ["webhook_type", "tracking_id", "contact_id"],
    "track_webhook_completion": [
        *("tracking_id", "success", "enrichment_data", "ai_activated", "contact_id"),
        *("error_message", "webhook_type"),
    ],
    "track_conversion_stage": [
        *("contact_id", "stage", "ai_score", "agent_id", "deal_value", "opportunity_id"),
    ],
    "track_agent_activity": [
        *("agent_id", "activity_type", "contact_id", "response_time_minutes"),
        *("ai_recommendation_used", "deal_value"),
    ],
    "track_property_recommendation": [
        *("recommendation_id", "contact_id", "property_id", "agent_id", "recommendation_score"),
    ],
    "track_property_interaction": ["recommendation_id", "interaction_type", "contact_id"],
}
GOOD: dict[str, Any] = {
    **{"tracking_id": "t", "success": True, "contact_id": "c", "stage": "deal_closed"},
    **{"agent_id": "ann", "recommendation_id": "r", "interaction_type": "liked"},
}


async def test_all_that_is_accepted_is_stored_whatever_is_passed(
    service: Service, key: str, connection: asyncpg.Connection
) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    accepted = refused = 0
    async with AsyncClient(service.url, key, location_id="loc") as client:
        for _ in range(150):
            for method, names in CALLS.items():
                values = _values(rng)
                every = [*names, "occurred_at", "metadata", "location_id"]
                wild = rng.sample(every, rng.choice((1, 1, 2)))
                arguments = {name: GOOD[name] for name in names if name in GOOD}
                arguments |= {name: rng.choice(values) for name in wild}
                before = client.stats.queued
                getattr(client, method)(**arguments)
                accepted += client.stats.queued > before
                refused += client.stats.queued == before
        assert await client.flush(60)
        stats = client.stats
    assert (stats.sent, stats.rejected, stats.dropped) == (accepted, refused, 0)
    assert min(accepted, refused) > 100
    assert await connection.fetchval("SELECT count(*) FROM inbox") == accepted
