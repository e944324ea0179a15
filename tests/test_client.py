"""The Python client as the platform uses it: what it tells arrives, and it is never in the way."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, get_args

import asyncpg
import pytest

from exporter.api.keys import create_key, revoke_key
from exporter.client import AsyncClient, Client, ClientError
from exporter.client.types import ConversionStage, Interaction, Stage
from exporter.domain.platform_calls import INTERACTIONS
from exporter.domain.stages import STAGES
from tests.conftest import MakeService, Service, wait_until

ABSENCE = float(os.environ.get("ABSENCE", "10"))


@pytest.fixture
async def key(connection: asyncpg.Connection) -> str:
    return await create_key(connection, "platform", ["read", "track"], ["*"])


@pytest.fixture
async def service(make_service: MakeService, database_url: str) -> AsyncIterator[Service]:
    made = make_service(
        database_url=database_url, kpi_interval="0.3", api_requests_per_minute=100_000
    )
    made.start()
    yield made


async def stored(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM inbox")
    return count


async def test_everything_that_the_platform_tells_becomes_a_figure(
    service: Service, connection: asyncpg.Connection, key: str
) -> None:
    async with AsyncClient(service.url, key, location_id="loc") as client:
        async with client.webhook("ContactCreate") as processing:
            processing.enrichment_data = {"budget": 1}
            processing.ai_activated = True
        with pytest.raises(ZeroDivisionError):
            async with client.webhook("ContactCreate"):
                raise ZeroDivisionError
        tracking_id = await client.track_webhook_start("ContactUpdate")
        assert await client.track_webhook_completion(tracking_id, True)
        assert await client.track_conversion_stage("c", "lead_created")
        assert await client.track_lead_conversion(
            "c", "deal_closed", deal_value=900, agent_id="ann"
        )
        client.track_agent_activity("ann", "call", ai_recommendation_used=True)
        client.track_agent_performance("ann", response_time_minutes=2)
        client.track_property_recommendation("r", contact_id="c", recommendation_score=0.9)
        client.track_property_interaction("r", "liked", contact_id="c")
        assert await client.flush()
        assert (client.stats.sent, client.stats.waiting, client.stats.dropped) == (12, 0, 0)
        revenue: Any = None

        async def figured() -> bool:
            nonlocal revenue
            revenue = await client.calculate_revenue_per_lead()
            return revenue is not None

        await wait_until(figured)
        assert revenue == 900
        dashboard = await client.get_executive_dashboard_metrics(days=7)
        assert dashboard is not None
        assert dashboard["ghl_integration"]["webhooks_processed"]["platform"] == {
            "success": 2,
            "failure": 1,
        }
        assert dashboard["ghl_integration"]["contact_enrichment_rate"] == 50
        assert dashboard["property_matching"]["acceptance_rate"] == 100
        summary = await client.get_business_dashboard_metrics()
        assert summary is not None
        agents = await client.get_agent_productivity_metrics("ann")
        assert agents is not None
        assert agents[0]["ghl_agent_deals_closed"] == 1


async def test_the_blocking_client_says_the_same(
    service: Service, connection: asyncpg.Connection, key: str
) -> None:
    def use() -> None:
        with Client(service.url, key, location_id="loc") as client:
            assert client.track_lead_conversion("c", "lead_created")
            with client.webhook("ContactCreate") as processing:
                processing.enrichment_data = {"a": 1}
            assert client.track_webhook_start("x", tracking_id="mine") == "mine"
            assert client.flush()
            assert client.stats.sent == 4
            deadline = time.monotonic() + 10
            while client.get_executive_dashboard_metrics() is None:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert client.get_business_dashboard_metrics() is not None
            assert client.calculate_revenue_per_lead() == 0
            assert client.get_agent_productivity_metrics() is not None

    await asyncio.to_thread(use)
    assert await stored(connection) == 4


async def test_a_wrong_call_is_counted_and_stops_no_other(
    service: Service, connection: asyncpg.Connection, key: str
) -> None:
    async with AsyncClient(service.url, key, location_id="loc") as client:
        assert not await client.track_conversion_stage("c", "sold")  # type: ignore[call-overload]
        assert not client.track_conversion_stage("", "lead_created")
        assert not client.track_conversion_stage("c", "lead_created", more=1)  # type: ignore[call-overload]
        assert not client.track_conversion_stage("c", "ai_qualified", ai_score=float("nan"))
        assert client.track_conversion_stage("c", "lead_created")
        assert await client.flush()
        assert (client.stats.sent, client.stats.rejected) == (1, 4)
    strict = AsyncClient(service.url, key, raise_errors=True)
    with pytest.raises(ClientError, match="location_id"):
        strict.track_conversion_stage("c", "lead_created")
    assert await stored(connection) == 1


async def test_calls_of_locations_that_the_key_may_not_see_are_kept_not_lost(
    service: Service, connection: asyncpg.Connection
) -> None:
    """A key without its scope may be mended; what waits for it is not thrown away."""
    blind = await create_key(connection, "blind", ["read"], ["*"])
    async with AsyncClient(service.url, blind, location_id="loc") as client:
        client.track_conversion_stage("c", "lead_created")
        assert not await client.flush(0.5)
        assert (client.stats.waiting, client.stats.rejected) == (1, 0)
        assert client.stats.retries > 0
        await revoke_key(connection, blind.split("_")[1])


async def test_a_full_queue_drops_and_counts_and_never_raises() -> None:
    client = AsyncClient("http://127.0.0.1:9", "key", location_id="loc", queue_size=2)
    taken = [bool(client.track_agent_activity("ann")) for _ in range(5)]
    assert taken == [True, True, False, False, False]
    assert (client.stats.waiting, client.stats.dropped) == (2, 3)
    assert await client.get_executive_dashboard_metrics() is None
    await client.start()
    await client.close(0.3)
    assert (client.stats.waiting, client.stats.dropped) == (0, 5)
    strict = AsyncClient("http://127.0.0.1:9", "key", location_id="l", queue_size=0)
    strict._raise_errors = True
    with pytest.raises(ClientError, match="full"):
        strict.track_agent_activity("ann")
    with pytest.raises(ClientError):
        await strict.get_executive_dashboard_metrics()


@pytest.mark.slow
async def test_a_time_without_the_exporter_under_load_loses_nothing_and_slows_nobody(
    service: Service, connection: asyncpg.Connection, key: str
) -> None:
    """500 calls a second go on all the while. `ABSENCE=60` makes it a whole minute."""
    slowest = 0.0
    told = 0
    async with AsyncClient(service.url, key, location_id="loc") as client:
        service.stop()
        until = time.monotonic() + ABSENCE
        while time.monotonic() < until:
            for _ in range(10):
                started = time.perf_counter()
                client.track_conversion_stage(
                    f"c-{told}", "lead_created", occurred_at=datetime.now(UTC)
                )
                slowest = max(slowest, time.perf_counter() - started)
                told += 1
            await asyncio.sleep(0.02)
        assert client.stats.dropped == 0
        service.start()
        assert await client.flush(60)
        assert client.stats.sent == told
    print(f"{told} calls; the slowest took {slowest * 1000:.2f} ms to queue")
    assert await stored(connection) == told

    async def counted() -> bool:
        return service.metrics().get('ghl_leads_created{location="loc",window="7d"}') == told

    await wait_until(counted, 60)


def test_the_types_say_what_the_exporter_takes() -> None:
    assert get_args(Stage) == STAGES
    assert tuple(ConversionStage) == STAGES
    assert get_args(Interaction) == INTERACTIONS


def test_whatever_is_passed_and_whenever_nothing_is_raised() -> None:
    client = Client("http://127.0.0.1:9", "a key\n", location_id="loc")
    assert not client.track_agent_activity("ann", occurred_at="today")
    assert not client.track_agent_activity("ann", more=2**70)  # type: ignore[call-overload]
    assert client.get_health() is None
    client.close(0.1)
    assert not client.track_agent_activity("ann")
    assert client.get_business_dashboard_metrics() is None
    assert not client.flush()
    assert (client.stats.rejected, client.stats.dropped) == (2, 1)
