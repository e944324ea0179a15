"""The first design's calls: as they stood, by position and by name, and never in another tenant."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from exporter.api.keys import create_key
from exporter.client import (
    ArgumentError,
    AsyncClient,
    Client,
    ConversionStage,
    ServiceRegistry,
    create_business_metrics_service,
)
from tests.conftest import MakeService, Service, wait_until

ROOT = Path(__file__).parents[1]
AI = ConversionStage.AI_QUALIFIED


@pytest.fixture
def client() -> Iterator[Client]:
    """A client with a location of its own, which must not be taken where another is meant."""
    made = Client("http://127.0.0.1:9", "key", location_id="mine")
    yield made
    made.close(0)


def last(client: Client | AsyncClient) -> dict[str, Any]:
    """Return the last call as it will be sent, without what it is given by itself."""
    _, body = max(calls[-1] for calls in client._worker._outbox._waiting.values())
    written: dict[str, Any] = orjson.loads(body)
    del written["occurred_at"], written["idempotency_key"]
    return written


LEAD = {"contact_id": "c", "stage": "ai_qualified"}
ACTIVITY = {"agent_id": "ann", "activity_type": "call"}
COMPLETION = {"tracking_id": "t", "success": True}
# Method, positional and named arguments, and what is written (with `mine` where no location is).
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]] = [
    ("conversion_stage", ("c", AI), {}, LEAD),
    ("conversion_stage", ("c", AI, 87, 25000), {}, {**LEAD, "ai_score": 87, "deal_value": 25000}),
    (
        "conversion_stage",
        ("c", "AI_Qualified"),
        {"agent_id": "ann"},
        {**LEAD, "stage": "AI_Qualified", "agent_id": "ann"},
    ),
    ("conversion_stage", ("c", "loc", AI), {}, {**LEAD, "location_id": "loc"}),
    ("conversion_stage", ("c", "loc"), {"stage": AI}, {**LEAD, "location_id": "loc"}),
    (
        "conversion_stage",
        ("c",),
        {"stage": AI, "location_id": "loc"},
        {**LEAD, "location_id": "loc"},
    ),
    (
        "conversion_stage",
        ("c", "loc", AI, 87, "ann", Decimal("9.5"), {"a": 1}),
        {},
        {
            **LEAD,
            "location_id": "loc",
            "ai_score": 87,
            "agent_id": "ann",
            "deal_value": 9.5,
            "metadata": {"a": 1},
        },
    ),
    (
        "lead_conversion",
        ("c", "loc"),
        {"stage": "ai_qualified", "ai_score": 85, "deal_value": 25000},
        {**LEAD, "location_id": "loc", "ai_score": 85, "deal_value": 25000},
    ),
    (
        "lead_conversion",
        ("c", "loc", "ai_qualified", 85),
        {},
        {**LEAD, "location_id": "loc", "ai_score": 85},
    ),
    ("lead_conversion", ("c", "ai_qualified"), {"ai_score": 1}, {**LEAD, "ai_score": 1}),
    ("agent_activity", ("ann", "call"), {}, ACTIVITY),
    ("agent_activity", ("ann", "call", True), {}, {**ACTIVITY, "ai_recommendation_used": True}),
    (
        "agent_activity",
        ("ann", "call"),
        {"ai_usage": False},
        {**ACTIVITY, "ai_recommendation_used": False},
    ),
    ("agent_activity", ("ann",), {"activity": "call"}, ACTIVITY),
    ("agent_activity", ("ann", "loc", "call"), {}, {**ACTIVITY, "location_id": "loc"}),
    (
        "agent_activity",
        ("ann", "loc", "call", "c", 5, 2.5, True),
        {},
        {
            **ACTIVITY,
            "location_id": "loc",
            "contact_id": "c",
            "deal_value": 5,
            "response_time_minutes": 2.5,
            "ai_recommendation_used": True,
        },
    ),
    (
        "agent_performance",
        ("ann", "loc"),
        {"activity": "call", "ai_recommendation_used": True},
        {**ACTIVITY, "location_id": "loc", "ai_recommendation_used": True},
    ),
    ("agent_performance", ("ann", "loc", "call"), {}, {**ACTIVITY, "location_id": "loc"}),
    ("agent_performance", ("ann",), {"activity_type": "call"}, ACTIVITY),
    ("webhook_completion", ("t", True), {}, COMPLETION),
    ("webhook_completion", ("t", True, {"a": 1}), {}, {**COMPLETION, "enrichment_data": {"a": 1}}),
    (
        "webhook_completion",
        ("t", "loc", "c", True, "late", "message", {"a": 1}),
        {},
        {
            **COMPLETION,
            "location_id": "loc",
            "contact_id": "c",
            "error_message": "late",
            "webhook_type": "message",
            "enrichment_data": {"a": 1},
        },
    ),
    (
        "webhook_start",
        ("ContactCreate",),
        {"tracking_id": "t"},
        {"webhook_type": "ContactCreate", "tracking_id": "t"},
    ),
    (
        "webhook_start",
        ("loc", "c", "message"),
        {"tracking_id": "t"},
        {"location_id": "loc", "contact_id": "c", "webhook_type": "message", "tracking_id": "t"},
    ),
    (
        "webhook_start",
        (),
        {"location_id": "loc", "contact_id": "c", "webhook_type": "message", "tracking_id": "t"},
        {"location_id": "loc", "contact_id": "c", "webhook_type": "message", "tracking_id": "t"},
    ),
    (
        "webhook_start",
        ("loc", "c"),
        {"tracking_id": "t"},
        {"location_id": "loc", "contact_id": "c", "tracking_id": "t"},
    ),
    (
        "property_interaction",
        ("r", "liked", "c"),
        {},
        {"recommendation_id": "r", "interaction_type": "liked", "contact_id": "c"},
    ),
]


@pytest.mark.parametrize(("method", "positional", "named", "written"), CALLS)
async def test_each_argument_is_read_as_it_is_meant(
    client: Client,
    method: str,
    positional: tuple[Any, ...],
    named: dict[str, Any],
    written: dict[str, Any],
) -> None:
    client._raise_errors = True
    assert getattr(client, f"track_{method}")(*positional, **named)
    assert last(client) == {"location_id": "mine", **written}
    inside = AsyncClient("http://127.0.0.1:9", "key", location_id="mine", raise_errors=True)
    assert await getattr(inside, f"track_{method}")(*positional, **named)
    assert last(inside) == {"location_id": "mine", **written}
    await inside.close(0)


def test_a_recommendation_without_an_id_gets_one(client: Client) -> None:
    made = client.track_property_recommendation("c", "loc", "p", 0.9, "ann")
    fields = {"contact_id": "c", "property_id": "p", "recommendation_score": 0.9}
    expected = {**fields, "location_id": "loc", "recommendation_id": made}
    assert last(client) == {**expected, "agent_id": "ann"}
    made = client.track_property_recommendation(
        contact_id="c", location_id="loc", property_id="p", recommendation_score=0.9
    )
    assert last(client) == {**expected, "recommendation_id": made}
    assert client.track_property_recommendation("r", property_id="p") is True


def test_a_completion_belongs_to_the_location_of_its_start(client: Client) -> None:
    tracking_id = client.track_webhook_start("loc", "c", "message")
    assert client.track_webhook_completion(tracking_id, True)
    assert last(client)["location_id"] == "loc"
    with client.webhook("message", location_id="other"):
        pass
    assert last(client)["location_id"] == "other"
    assert client.track_webhook_completion("unknown", True)
    assert last(client)["location_id"] == "mine"


@pytest.mark.parametrize(
    ("method", "positional", "named", "argument"),
    [
        # A location, or something else?
        ("agent_performance", ("ann", "loc"), {}, "arguments"),
        ("agent_performance", ("ann", "loc"), {"ai_recommendation_used": True}, "arguments"),
        ("webhook_start", ("loc",), {"contact_id": "c"}, "location_id"),
        ("conversion_stage", ("c", "lead_created"), {"stage": AI}, "location_id"),
        ("conversion_stage", ("c", None, AI), {}, "stage"),
        ("conversion_stage", ("c", "lead_created", "deal_closed"), {}, "ai_score"),
        (
            "agent_activity",
            ("ann", "loc", "call"),
            {"location_id": "other"},
            "ai_recommendation_used",
        ),
        # No stage, no flag.
        ("conversion_stage", ("c", "sold"), {}, "stage"),
        ("conversion_stage", ("c",), {}, "stage"),
        ("conversion_stage", ("c", "loc", "sold"), {}, "stage"),
        ("agent_activity", ("ann", "call", 1), {}, "ai_recommendation_used"),
        ("webhook_completion", ("t", "yes"), {}, "success"),
        ("webhook_completion", ("t",), {}, "success"),
        # Twice, too many, too few.
        (
            "agent_activity",
            ("ann", "call"),
            {"activity": "x", "activity_type": "y"},
            "activity_type",
        ),
        ("agent_activity", ("ann", "call"), {"activity": "call", "location_id": "l"}, "arguments"),
        ("webhook_start", ("l", "c", "x", {}, 5), {}, "arguments"),
        ("agent_activity", (), {}, "agent_id"),
    ],
)
def test_what_leaves_open_what_is_meant_is_refused(
    client: Client, method: str, positional: tuple[Any, ...], named: dict[str, Any], argument: str
) -> None:
    call = getattr(client, f"track_{method}")
    call(*positional, **named)
    assert (client.stats.queued, client.stats.rejected) == (0, 1)
    client._raise_errors = True
    with pytest.raises(ArgumentError) as caught:
        call(*positional, **named)
    assert caught.value.name == argument, caught.value


@pytest.fixture
async def service(make_service: MakeService, database_url: str) -> AsyncIterator[Service]:
    made = make_service(database_url=database_url, kpi_interval="0.3")
    made.start()
    yield made


@pytest.fixture
async def key(connection: asyncpg.Connection) -> str:
    return await create_key(connection, "platform", ["read", "track"], ["*"])


async def test_a_program_of_the_first_design_works(
    service: Service, key: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GHL_EXPORTER_URL", service.url)
    monkeypatch.setenv("GHL_EXPORTER_KEY", key)
    metrics = await create_business_metrics_service(
        redis_url="redis://unused", postgres_url="postgresql://unused"
    )
    tracking_id = await metrics.track_webhook_start("loc", "c", "message")
    await metrics.track_webhook_completion(tracking_id, success=True, enrichment_data={"a": 1})
    await metrics.track_conversion_stage("c", "loc", ConversionStage.LEAD_CREATED, ai_score=87)
    assert await metrics.flush()
    registry = ServiceRegistry(demo_mode=False)
    assert await registry.track_lead_conversion(
        "c", "loc", stage="deal_closed", ai_score=85, deal_value=25000, agent_id="ann"
    )
    assert await registry.track_agent_performance(
        "ann", "loc", activity="deal_closed", ai_recommendation_used=True
    )
    assert registry.business_metrics is not None
    assert await registry.business_metrics.flush()

    async def figured() -> bool:
        return await metrics.calculate_revenue_per_lead("loc", 30) == 25000

    await wait_until(figured)
    assert await metrics.get_executive_dashboard_metrics("loc", 30) is not None
    assert await registry.get_business_dashboard_metrics("loc", 30) is not None
    assert await metrics.get_agent_productivity_metrics("ann", 30) is None  # no location
    for arguments in (("ann", "loc"), ("ann", "loc", 30)):
        agents = await metrics.get_agent_productivity_metrics(*arguments)
        assert agents is not None
        assert agents[0]["ghl_agent_deals_closed"] == 1
    await metrics.close()
    await registry.close()
    places = await connection.fetch("SELECT DISTINCT location_id FROM inbox")
    assert [place for (place,) in places] == ["loc"]
    here = Client(service.url, key, location_id="loc", raise_errors=True)
    assert here.get_agent_productivity_metrics("ann", 30) == agents
    with pytest.raises(ArgumentError, match=r"^days: "):
        here.calculate_revenue_per_lead("loc", "30")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"^location_id: "):
        here.calculate_revenue_per_lead("", 30)
    here.close()


async def test_demo_mode_sends_nothing_and_needs_nothing() -> None:
    registry = ServiceRegistry(demo_mode=True)
    assert registry.business_metrics is None
    assert await registry.track_lead_conversion("c", "loc", stage="deal_closed")
    assert await registry.track_agent_performance("ann", "loc", activity="call")
    assert await registry.get_business_dashboard_metrics("loc") is None
    await registry.close()


async def test_a_factory_without_an_address_says_which_is_missing() -> None:
    with pytest.raises(ArgumentError, match=r"^url: "):
        await create_business_metrics_service("redis://unused")
    with pytest.raises(ArgumentError, match=r"^key: "):
        await create_business_metrics_service(url="http://127.0.0.1:9")


PROGRAM = """
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

from exporter.client import AsyncClient, Client, ConversionStage

def use(client: Client, stage: str) -> None:
    taken: bool = client.track_conversion_stage(uuid4(), ConversionStage.DEAL_CLOSED)
    taken = client.track_conversion_stage("c", "deal_closed", deal_value=Decimal(1), agent_id=5)
    taken = client.track_lead_conversion("c", "loc", stage=stage, ai_score=85, deal_value=25000)
    taken = client.track_agent_activity("ann", "call", True)
    taken = client.track_agent_activity("ann", "call", ai_usage=True)
    taken = client.track_agent_performance("ann", "loc", activity="c", ai_recommendation_used=True)
    key: str = client.track_webhook_start("loc", "c", "message")
    taken = client.track_webhook_completion(key, True, {}, occurred_at=datetime.now(UTC))
    made: str = client.track_property_recommendation("c", "loc", "p", 0.5)
    agents: list[dict[str, object]] | None = client.get_agent_productivity_metrics("ann", 30)

async def use_async(client: AsyncClient) -> None:
    taken: bool = await client.track_conversion_stage("c", "loc", ConversionStage.DEAL_CLOSED)
    key: str = await client.track_webhook_start(webhook_type="x", location_id="loc")
"""
WRONG = """
def wrong(client: Client) -> None:
    client.track_conversion_stage("c", "sold")
    client.track_conversion_stage("c", "deal_closed", deal_vale=1)
    client.track_agent_performance("ann", "loc")
"""


def test_programs_are_checked_by_mypy(tmp_path: Path) -> None:
    def errors(text: str) -> list[str]:
        program = tmp_path / "program.py"
        program.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--config-file=", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return [line for line in done.stdout.splitlines() if "error:" in line]

    assert errors(PROGRAM) == []
    start = PROGRAM.count("\n")
    lines = {int(line.split(":")[1]) - start for line in errors(PROGRAM + WRONG)}
    assert lines == {3, 4, 5}
