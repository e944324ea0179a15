"""Redis: the day's figures are there as absolute values; gone or flushed, they come back."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from exporter.demo.servers import EmbeddedValkey
from exporter.domain.event import InboxEvent
from tests.conftest import MakeService, wait_until
from tests.projecting import received, store, tracked

NOW = datetime.now(UTC)
TODAY = NOW.date()


def _ghl(kind: str, key: str, **fields: object) -> InboxEvent:
    at = NOW.isoformat()
    body = {"type": kind, "locationId": "a", "timestamp": at, "webhookId": key, **fields}
    return received(json.dumps(body).encode(), "ghl", NOW)


def _told(call: str, **fields: object) -> InboxEvent:
    return tracked({"location_id": "a", "occurred_at": NOW.isoformat(), **fields}, call, NOW)


@pytest.fixture
async def valkey_of_its_own(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedValkey, Redis]]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        redis = Redis.from_url(server.url(), decode_responses=True)
        yield server, redis
        await redis.aclose()


async def test_the_days_figures_are_absolute_and_come_back_after_a_flush(
    make_service: MakeService,
    connection: asyncpg.Connection,
    database_url: str,
    valkey_of_its_own: tuple[EmbeddedValkey, Redis],
) -> None:
    server, redis = valkey_of_its_own
    await store(
        connection,
        [
            _ghl("ContactCreate", "1", id="c", dateAdded=NOW.isoformat()),
            _ghl("ContactCreate", "1", id="c", dateAdded=NOW.isoformat()),
            _ghl(
                "OpportunityCreate",
                "2",
                id="o",
                contactId="c",
                status="won",
                monetaryValue=250.5,
                assignedTo="ann",
            ),
            _told("property-recommendation", recommendation_id="r", recommendation_score=0.5),
            _told("property-interaction", recommendation_id="r", interaction_type="liked"),
            _told("webhook-start", tracking_id="t"),
            _told(
                "webhook-completion",
                tracking_id="t",
                success=True,
                occurred_at=(NOW + timedelta(seconds=2)).isoformat(),
            ),
        ],
    )
    service = make_service(database_url=database_url, redis_url=server.url())
    service.start()
    expected = {
        f"webhooks_received:a:{TODAY}": 2,
        f"webhooks_successful:a:{TODAY}": 2,
        f"webhook_processing_time:a:{TODAY}": 2,
        f"conversions:lead_created:a:{TODAY}": 1,
        f"conversions:offer_submitted:a:{TODAY}": 0,
        f"revenue:a:{TODAY}": 250.5,
        f"agent_deals:a:ann:{TODAY}": 1,
        f"property_interactions:liked:a:{TODAY}": 1,
        f"property_interactions:shared:a:{TODAY}": 0,
    }

    async def all_there() -> bool:
        values = await redis.mget(list(expected))
        return [None if v is None else float(v) for v in values] == list(expected.values())

    await wait_until(all_there)
    assert 0 < await redis.ttl(f"revenue:a:{TODAY}") <= 120
    # They come after the figures.
    await wait_until(lambda: redis.exists("property_rec:a:r"))
    recommendation = json.loads(await redis.get("property_rec:a:r") or "null")
    assert (recommendation["location_id"], recommendation["score"]) == ("a", 0.5)
    assert 29 * 86_400 < await redis.ttl("property_rec:a:r") <= 30 * 86_400

    await redis.flushall()
    await wait_until(all_there)
    await wait_until(lambda: redis.exists("property_rec:a:r"))

    # The deal is lost again: nothing is left of it, also where a key was per agent.
    lost = {"id": "o", "contactId": "c", "status": "lost"}
    await store(connection, [_ghl("OpportunityStatusUpdate", "3", **lost)])
    del expected[f"agent_deals:a:ann:{TODAY}"]
    expected |= {f"revenue:a:{TODAY}": 0, f"webhooks_received:a:{TODAY}": 3}
    expected[f"webhooks_successful:a:{TODAY}"] = 3

    async def mended() -> bool:
        gone = await redis.get(f"agent_deals:a:ann:{TODAY}") in (None, "0")
        return gone and await all_there()

    await wait_until(mended)


async def test_redis_may_stop_and_start_while_the_service_works(
    make_service: MakeService, connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        service = make_service(database_url=database_url, redis_url=server.url())
        service.start()
        await store(connection, [_ghl("ContactCreate", "1", id="c", dateAdded=NOW.isoformat())])
        redis = Redis.from_url(server.url(), decode_responses=True)
        name = f"webhooks_received:a:{TODAY}"

        async def counted(number: int) -> bool:
            return await redis.get(name) == str(number)

        await wait_until(lambda: counted(1))
        await redis.aclose()
        server.kill()
        await store(connection, [_ghl("ContactCreate", "2", id="d", dateAdded=NOW.isoformat())])
        leads = 'ghl_leads_created{location="a",window="1d"}'
        await wait_until(lambda: service.metrics().get(leads) == 2)
        await asyncio.to_thread(server.start)
        redis = Redis.from_url(server.url(), decode_responses=True)
        await wait_until(lambda: counted(2), 20)
        await redis.aclose()
