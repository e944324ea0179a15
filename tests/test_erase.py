"""Erasing a location: nothing of it is left or comes back, and the others are as they were."""

import asyncio
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from exporter.api.keys import create_key
from exporter.database.connect import connect
from exporter.database.locks import REBUILD_LOCK
from exporter.demo.servers import EmbeddedValkey
from exporter.domain.event import InboxEvent
from exporter.erasure.rows import EraseRefusedError, count_rows, erase_location
from exporter.inbox.partitions import create_partitions
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rebuild import rebuild
from exporter.settings import load_settings
from exporter.telemetry.metrics import LiveMetrics
from tests.conftest import MakeService, Service, Signer, wait_until
from tests.projecting import dump, found, project_all, received, store, tracked
from tests.sender import Sender, contact
from tests.test_commands import command
from tests.test_spool import filled

NOW = datetime.now(UTC)
AT = NOW.isoformat()
GONE, KEPT = "gone-Zq7", "kept"


def story(place: str) -> list[InboxEvent]:
    """One event of each kind, about one location."""

    def ghl(kind: str, **fields: Any) -> InboxEvent:
        body = {"type": kind, "locationId": place, "timestamp": AT, **fields}
        body["webhookId"] = f"{place}-{kind}"
        return received(json.dumps(body).encode(), "ghl", NOW)

    def told(call: str, *, place: str | None = place, **fields: Any) -> InboxEvent:
        body = {"location_id": place, "occurred_at": AT, **fields}
        return tracked({k: v for k, v in body.items() if v is not None}, call, NOW)

    won = {"id": "o", "contactId": "c", "status": "won", "monetaryValue": 250, "assignedTo": "ann"}
    open_ = {"id": "p", "locationId": place, "status": "open", "monetaryValue": 9, "updatedAt": AT}
    start = {"appointment": {"id": "x", "contactId": "c", "startTime": AT}}
    tracking = f"t-{len(place)}"
    return [
        ghl("ContactCreate", id="c", dateAdded=AT, email="ada@example.com"),
        ghl("OpportunityCreate", **won),
        ghl("AppointmentCreate", **start),
        ghl("OutboundMessage", contactId="c", userId="ann", messageType="SMS", dateAdded=AT),
        ghl("UserCreate", id="ann", firstName="Ann", lastName="Other"),
        ghl("OpportunityStatusUpdate"),  # without an id: quarantined
        found({**open_, "contactId": "c", "createdAt": AT}, NOW),
        told("conversion", contact_id="c", stage="ai_qualified", ai_score=80),
        told("agent-activity", agent_id="ann", contact_id="c"),
        told("property-recommendation", recommendation_id=f"r-{place}", agent_id="ann"),
        told("property-interaction", recommendation_id=f"r-{place}", interaction_type="liked"),
        told("webhook-start", tracking_id=tracking),
        told(
            "webhook-completion",
            place=None,
            tracking_id=tracking,
            success=True,
            enrichment_data={"phone": f"+1 555 {place}"},
        ),
    ]


async def everything(connection: asyncpg.Connection) -> str:
    """Return every row of every table as text, but for what says that the location was erased."""
    tables = await connection.fetch(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relname NOT IN ('erased_locations', 'audit')"
    )
    rows = []
    for [table] in tables:
        rows += await connection.fetch(f'SELECT t::text FROM "{table}" t')
        if table == "inbox":
            rows += await connection.fetch("SELECT convert_from(body, 'UTF8') FROM inbox")
    return "\n".join(row[0] for row in rows)


def about(dumped: dict[str, list[tuple[Any, ...]]], place: str) -> dict[str, list[Any]]:
    return {name: [row for row in rows if place in row] for name, rows in dumped.items()}


async def test_nothing_is_left_and_nothing_comes_back(
    connection: asyncpg.Connection, database_url: str
) -> None:
    settings = load_settings(database_url=database_url)
    await create_partitions(connection)
    await store(connection, [*story(GONE), *story(KEPT)])
    await project_all(connection, settings)
    before = await dump(connection)
    filled_tables = [name for name, rows in about(before, GONE).items() if rows]
    assert len(filled_tables) >= len(before) - 3, set(before) - set(filled_tables)
    counted = await count_rows(connection, GONE)

    erased = await erase_location(connection, GONE)
    assert erased.rows == counted.rows
    assert GONE not in await everything(connection)
    assert about(await dump(connection), KEPT) == about(before, KEPT)

    # Replayed, drained from a spool, imported: all goes by the same insert.
    await store(connection, [*story(GONE), received(contact(locationId=GONE), "ghl", NOW)])
    await project_all(connection, settings)
    assert GONE not in await everything(connection)
    assert about(await dump(connection), KEPT) == about(before, KEPT)

    reader = await connect(settings, "test")
    report = await rebuild(connection, reader, FactSettings.from_settings(settings))
    await reader.close()
    assert sum(report.differences.values()) == 0
    assert about(await dump(connection), KEPT) == about(before, KEPT)
    assert (await erase_location(connection, GONE)).rows == {}


async def test_a_rebuild_and_an_erasure_keep_out_of_each_others_way(
    connection: asyncpg.Connection, database_url: str
) -> None:
    settings = load_settings(database_url=database_url)
    await store(connection, story(GONE))
    other = await connect(settings, "test")
    await other.execute("SELECT pg_advisory_lock($1)", REBUILD_LOCK)
    with pytest.raises(EraseRefusedError, match="rebuild"):
        await erase_location(connection, GONE)
    assert await connection.fetchval("SELECT count(*) FROM erased_locations") == 0
    await other.close()


def delete(service: Service, place: str, key: str, query: str = "") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{service.url}/api/business-metrics/locations/{place}{query}",
        headers={"Authorization": f"Bearer {key}"},
        method="DELETE",
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_while_the_service_runs_under_load(  # noqa: PLR0915 - one story
    make_service: MakeService,
    connection: asyncpg.Connection,
    database_url: str,
    valkey: EmbeddedValkey,
    signer: Signer,
) -> None:
    redis = Redis.from_url(valkey.url(), decode_responses=True)
    await redis.flushall()
    service = make_service(
        database_url=database_url, redis_url=valkey.url(), dashboard_cache_ttl="300"
    )
    service.start()
    admin = await create_key(connection, "admin", ["admin"], ["*"])
    sender = Sender(service.port, signer)
    await store(connection, [*story(GONE), *story(KEPT)])
    headers = {"Authorization": f"Bearer {admin}"}
    dashboard = f"/api/business-metrics/dashboard/{GONE}"
    await wait_until(lambda: service.get(dashboard, headers)[0] == 200)
    await sender.send(contact(locationId=GONE, id="c-live"))
    await sender.send(contact(locationId=KEPT, id="c-live"))
    await wait_until(lambda: f'"{GONE}"' in service.get("/metrics")[1].decode())
    await wait_until(lambda: redis.exists(f"revenue:{GONE}:{NOW.date()}"))
    await redis.set(f"session:{GONE}:other", "of another program")

    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for place in (GONE, KEPT):
                await sender.send(contact(locationId=place, id=f"c-{number}"))

    loading = [asyncio.create_task(load()) for _ in range(3)]
    await asyncio.sleep(0.5)
    status, answer = await asyncio.to_thread(delete, service, GONE, admin, "?dry_run=true")
    assert (status, answer["dry_run"]) == (200, True)
    assert await connection.fetchval("SELECT count(*) FROM erased_locations") == 0
    status, answer = await asyncio.to_thread(delete, service, GONE, admin)
    assert status == 200, answer
    assert answer["rows"]["contacts"] > 0
    assert answer["problem"] is None
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*loading)
    assert {answer.status for answer in sender.answers} == {200}

    async def projected() -> bool:
        return not await connection.fetchval("SELECT count(*) FROM inbox_pending")

    await wait_until(projected)
    assert GONE not in await everything(connection)
    kept = {key for place, key, _ in sender.ledger if place == KEPT}
    stored = "SELECT count(*) FROM inbox WHERE location_id = $1 AND correlation_id <> 'test'"
    assert await connection.fetchval(stored, KEPT) == len(kept)
    assert service.get(dashboard, headers)[0] == 404, "no cached answer outlives it"
    await wait_until(lambda: f'"{GONE}"' not in service.get("/metrics")[1].decode())

    async def keys_of_it() -> list[str]:
        keys = [key async for key in redis.scan_iter()]
        return [key for key in keys if GONE in key]

    async def only_the_others() -> bool:
        return await keys_of_it() == [f"session:{GONE}:other"]

    await wait_until(only_the_others)
    await wait_until(lambda: redis.exists(f"revenue:{KEPT}:{NOW.date()}"))
    await sender.send(contact(locationId=GONE))
    assert sender.answers[-1].json()["status"] == "duplicate"
    assert f'"{GONE}"' not in service.get("/metrics")[1].decode()
    await redis.aclose()

    async def audited() -> bool:
        query = "SELECT count(*) FROM audit WHERE location_id = $1 AND action LIKE 'DELETE %'"
        return bool(await connection.fetchval(query, GONE) == 2)

    await wait_until(audited)


async def test_what_waits_in_a_spool_is_dropped(
    make_service: MakeService, connection: asyncpg.Connection, database_url: str
) -> None:
    service = make_service(database_url=database_url)
    await filled(service.directory / "spool.sqlite3", [*story(GONE)[:3], *story(KEPT)[:2]])
    await erase_location(connection, GONE)
    service.start()
    await wait_until(lambda: service.metrics().get("ghl_exporter_spool_events") == 0)
    rows = await connection.fetch("SELECT location_id FROM inbox")
    assert [row[0] for row in rows] == [KEPT, KEPT]
    assert service.metrics()["ghl_exporter_spool_set_aside_events"] == 0


async def test_only_an_admin_of_the_location_may_erase_it(
    make_service: MakeService, connection: asyncpg.Connection, database_url: str
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    await store(connection, story(GONE))
    for scopes, places in ((["read", "track"], ["*"]), (["admin"], [KEPT])):
        key = await create_key(connection, "test", scopes, places)
        for query in ("", "?dry_run=true"):
            assert delete(service, GONE, key, query)[0] == 403
    assert delete(service, GONE, "nothing")[0] == 401
    key = await create_key(connection, "test", ["admin"], [GONE])
    assert delete(service, GONE, key, "?dry_run=perhaps")[0] == 422
    assert await connection.fetchval("SELECT count(*) FROM inbox") == len(story(GONE))
    assert delete(service, GONE, key)[0] == 200
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 0


async def test_the_command(connection: asyncpg.Connection, database_url: str) -> None:
    await store(connection, story(GONE))
    await project_all(connection, load_settings())
    dry = command("erase", GONE, "--dry-run", database_url=database_url)
    assert (dry.returncode, "would be deleted" in dry.stdout) == (0, True), dry.stderr
    assert "contacts: 1" in dry.stdout
    refused = command("erase", GONE, database_url=database_url)
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert await connection.fetchval("SELECT count(*) FROM contacts") == 1
    done = command("erase", GONE, "--yes", database_url=database_url)
    assert done.returncode == 0, done.stderr
    assert GONE not in await everything(connection)
    audit = "SELECT count(*) FROM audit WHERE location_id = $1 AND action = 'erase'"
    assert await connection.fetchval(audit, GONE) == 1
    lifted = command("erase", GONE, "--accept-again", database_url=database_url)
    assert (lifted.returncode, "stored again" in lifted.stdout) == (0, True)
    await store(connection, story(GONE))
    await project_all(connection, load_settings())
    assert await connection.fetchval("SELECT count(*) FROM contacts") == 1


async def test_a_redis_that_is_away_is_said_and_erasing_again_is_possible(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await store(connection, story(GONE))
    done = command(
        "erase", GONE, "--yes", database_url=database_url, redis_url="redis://:pw@127.0.0.1:1"
    )
    assert done.returncode == 1
    assert "Redis could not be cleaned" in done.stderr
    assert "pw" not in done.stderr
    assert GONE not in await everything(connection)


def test_live_series_of_an_erased_location_go_and_stay_away() -> None:
    metrics = LiveMetrics(locations=frozenset({KEPT}))

    def series() -> set[str]:
        return {
            sample.labels["location"]
            for family in metrics.registry.collect()
            for sample in family.samples
            if "location" in sample.labels
        }

    metrics.receive(GONE)
    metrics.finish(GONE, "ContactCreate", "success")
    assert GONE in series()
    metrics.forget_locations(frozenset({GONE}))
    metrics.receive(GONE)
    metrics.finish(GONE, "ContactCreate", "success")
    metrics.create_location_children([GONE])
    assert GONE not in series()
    metrics.forget_locations(frozenset())
    metrics.receive(GONE)
    assert {GONE, KEPT} <= series()
