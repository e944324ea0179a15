"""The platform's tracking calls over HTTP: who may send them, what they may hold, where they go."""

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from exporter.api.keys import create_key, revoke_key
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey
from tests.conftest import MakeService, Service, wait_until
from tests.sender import new_database

BASE = "/api/business-metrics/track/"
NOW = datetime.now(UTC).isoformat()
# The least that each call has to say.
LEAST: dict[str, dict[str, Any]] = {
    "conversion": {"contact_id": "lead-1", "stage": "ai_qualified"},
    "agent-activity": {"agent_id": "ann"},
    "property-recommendation": {"recommendation_id": "rec-1"},
    "property-interaction": {"recommendation_id": "rec-1", "interaction_type": "liked"},
    "webhook-start": {},
    "webhook-completion": {"tracking_id": "t-1", "success": True, "location_id": "loc"},
}


@dataclass(frozen=True)
class Caller:
    """Sends calls with a key."""

    service: Service
    token: str | None

    def post(self, call: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.service.url + BASE + call, data=raw, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


async def key_for(
    connection: asyncpg.Connection, scopes: str = "track", locations: str = "*"
) -> str:
    return await create_key(connection, "test", scopes.split(","), locations.split(","))


@pytest.fixture
async def service(make_service: MakeService, database_url: str) -> Service:
    made = make_service(database_url=database_url, kpi_interval="0.3")
    made.start()
    return made


@pytest.mark.parametrize("call", LEAST)
async def test_a_call_is_stored_before_it_is_answered(
    service: Service, connection: asyncpg.Connection, call: str
) -> None:
    caller = Caller(service, await key_for(connection))
    body = {**LEAST[call], "location_id": "loc", "idempotency_key": "k", "more": ["kept"]}
    status, answer = caller.post(call, body, **{"X-Correlation-ID": "mine"})
    assert (status, answer["stored"], answer["duplicate"]) == (200, 1, 0), answer
    row = await connection.fetchrow("SELECT * FROM inbox")
    assert row is not None
    assert (row["source"], row["location_id"], row["event_type"]) == ("platform", "loc", call)
    assert row["correlation_id"] == "mine"
    assert body.items() <= json.loads(row["body"]).items()
    status, answer = caller.post(call, body)
    assert (status, answer["stored"], answer["duplicate"]) == (200, 0, 1)
    if call == "webhook-start":
        # It was given a tracking_id, and is given the same again.
        assert json.loads(row["body"])["tracking_id"] == answer["tracking_id"]
    del body["idempotency_key"]
    if call != "webhook-completion":
        caller.post(call, body)
        caller.post(call, body)
        assert await connection.fetchval("SELECT count(*) FROM inbox") == 3


async def test_a_call_reaches_the_kpis(service: Service, connection: asyncpg.Connection) -> None:
    caller = Caller(service, await key_for(connection))
    told = {"contact_id": "lead-1", "location_id": "loc", "occurred_at": NOW}
    calls = [
        {**told, "stage": "lead_created"},
        {**told, "stage": "Deal_Closed", "deal_value": 250_000, "agent_id": "ann"},
    ]
    assert caller.post("conversion", calls)[0] == 200
    name = 'ghl_revenue{location="loc",window="7d"}'
    await wait_until(lambda: service.metrics().get(name) == 250_000)
    metrics = service.metrics()
    assert metrics['ghl_agent_revenue{location="loc",window="7d",agent="ann"}'] == 250_000
    assert metrics['ghl_leads_created{location="loc",window="7d"}'] == 1


async def test_a_webhook_is_timed_across_restarts_and_copies(
    make_service: MakeService, service: Service, connection: asyncpg.Connection, database_url: str
) -> None:
    token = await key_for(connection)
    status, answer = Caller(service, token).post(
        "webhook-start", {"location_id": "loc", "webhook_type": "contact", "occurred_at": NOW}
    )
    assert status == 200
    service.kill()
    other = make_service(database_url=database_url, kpi_interval="0.3")
    other.start()
    told = {"tracking_id": answer["tracking_id"], "success": True, "occurred_at": NOW}
    told["location_id"] = "loc"
    assert Caller(other, token).post("webhook-completion", told)[0] == 200
    name = 'ghl_webhooks_processed{location="loc",window="7d",source="platform",outcome="success"}'
    await wait_until(lambda: other.metrics().get(name) == 1, 15)


async def test_a_batch_is_taken_whole_or_not_at_all(
    service: Service, connection: asyncpg.Connection
) -> None:
    caller = Caller(service, await key_for(connection))
    good = {"contact_id": "lead-1", "stage": "ai_qualified", "location_id": "loc"}
    status, answer = caller.post("conversion", [good] * 1000)
    assert (status, answer["stored"]) == (200, 1000)
    bad = [good, {**good, "stage": "nothing"}, {**good, "contact_id": ""}, "text"]
    status, answer = caller.post("conversion", bad)
    assert status == 422
    assert {error["field"] for error in answer["errors"]} == {
        "1.stage",
        "2.contact_id",
        "3.body",
    }
    assert caller.post("conversion", [good] * 1001)[0] == 422
    assert caller.post("conversion", [])[0] == 422
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 1000


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("conversion", {"stage": None}, "stage"),
    ("conversion", {"contact_id": 7}, "contact_id"),
    ("conversion", {"contact_id": "x" * 256}, "contact_id"),
    ("conversion", {"contact_id": "a\x00b"}, "contact_id"),
    ("conversion", {"contact_id": "\ud83d"}, "contact_id"),
    ("conversion", {"deal_value": "100"}, "deal_value"),
    ("conversion", {"deal_value": True}, "deal_value"),
    ("conversion", {"occurred_at": "2026-02-01T10:00:00"}, "occurred_at"),
    ("conversion", {"occurred_at": 1_770_000_000}, "occurred_at"),
    ("conversion", {"occurred_at": "0001-01-01T00:00:00Z"}, "occurred_at"),
    ("conversion", {"location_id": None}, "location_id"),
    ("conversion", {"idempotency_key": ""}, "idempotency_key"),
    ("agent-activity", {"response_time_minutes": -1}, "response_time_minutes"),
    ("agent-activity", {"ai_recommendation_used": "yes"}, "ai_recommendation_used"),
    ("property-interaction", {"interaction_type": "bought"}, "interaction_type"),
    ("webhook-completion", {"success": "true"}, "success"),
    ("webhook-completion", {"enrichment_data": []}, "enrichment_data"),
]


async def test_what_is_not_valid_is_named_and_not_stored(
    service: Service, connection: asyncpg.Connection
) -> None:
    caller = Caller(service, await key_for(connection))
    for call, change, field in WRONG:
        status, answer = caller.post(call, {**LEAST[call], "location_id": "loc", **change})
        assert status == 422, (call, change, answer)
        assert [error["field"] for error in answer["errors"]] == [field], (call, change)
    for raw in (b"", b"{", b"\xff"):
        assert caller.post("conversion", raw)[0] == 400
    for raw in (b"null", b"7", b'"text"'):
        assert caller.post("conversion", raw)[0] == 422
    assert caller.post("nothing", {})[0] == 404
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 0


async def test_what_only_the_lenient_parser_reads_is_kept(
    service: Service, connection: asyncpg.Connection
) -> None:
    caller = Caller(service, await key_for(connection))
    raw = b'{"agent_id": "ann", "location_id": "loc", "more": "\\ud83d", "huge": 1' + b"0" * 50
    assert caller.post("agent-activity", raw + b"}")[0] == 200

    async def projected() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM activities"))

    await wait_until(projected)


async def test_without_a_key_the_api_is_closed_and_says_how_to_open_it(
    service: Service, connection: asyncpg.Connection
) -> None:
    status, answer = Caller(service, None).post("conversion", {})
    assert status == 401
    assert "ghl-exporter keys create" in answer["detail"]
    token = await key_for(connection)
    for wrong in (None, "", "x", token[:-1], token + "x", token.replace("ghlx", "ghl"), "a_b_c"):
        status, answer = Caller(service, wrong).post("conversion", {})
        assert status == 401, wrong
        assert "keys create" not in answer["detail"]


async def test_a_key_tracks_only_where_it_may(
    service: Service, connection: asyncpg.Connection
) -> None:
    call = {"contact_id": "lead-1", "stage": "ai_qualified"}
    reader = Caller(service, await key_for(connection, "read"))
    assert reader.post("conversion", {**call, "location_id": "loc-a"})[0] == 403
    one = Caller(service, await key_for(connection, "track", "loc-a"))
    assert one.post("conversion", {**call, "location_id": "loc-a"})[0] == 200
    assert one.post("conversion", {**call, "location_id": "loc-b"})[0] == 403
    both = [{**call, "location_id": "loc-a"}, {**call, "location_id": "loc-b"}]
    assert one.post("conversion", both)[0] == 403
    admin = Caller(service, await key_for(connection, "admin", "loc-a,loc-b"))
    assert admin.post("conversion", both)[0] == 200
    # A completion without a location is of the key's own, and of several it has to say which: two
    # tenants can have the same tracking_id.
    done = {"tracking_id": "t-1", "success": True}
    assert one.post("webhook-completion", done)[0] == 200
    assert admin.post("webhook-completion", done)[0] == 422
    everywhere = Caller(service, await key_for(connection))
    status, problem = everywhere.post("webhook-completion", done)
    assert (status, "location_id" in problem["detail"]) == (422, True)
    stored = "SELECT location_id FROM inbox WHERE event_type = 'webhook-completion'"
    assert [row[0] for row in await connection.fetch(stored)] == ["loc-a"]


async def test_a_revoked_key_ends_within_seconds(
    service: Service, connection: asyncpg.Connection
) -> None:
    token = await key_for(connection)
    caller = Caller(service, token)
    call = {**LEAST["conversion"], "location_id": "loc"}
    assert caller.post("conversion", call)[0] == 200
    assert await revoke_key(connection, token.split("_")[1])
    await wait_until(lambda: caller.post("conversion", call)[0] == 401, 15)
    assert not await revoke_key(connection, token.split("_")[1])


async def test_secrets_are_not_kept(connection: asyncpg.Connection) -> None:
    token = await key_for(connection)
    row = await connection.fetchrow("SELECT t::text FROM api_keys t")
    assert row is not None
    assert token.split("_", 2)[2] not in row[0]


async def test_while_postgresql_is_away_calls_wait_in_the_spool(
    make_service: MakeService, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with EmbeddedPostgres(tmp_path_factory.mktemp("away")) as server:
        from tests.conftest import make_template

        await make_template(server)
        url = await new_database(server)
        connection = await asyncpg.connect(url)
        token = await key_for(connection)
        await connection.close()
        service = make_service(database_url=url)
        service.start()
        caller = Caller(service, token)
        call = {**LEAST["conversion"], "location_id": "loc"}
        assert caller.post("conversion", call)[0] == 200
        server.kill()
        await asyncio.sleep(6)  # longer than a key is remembered without asking
        status, answer = caller.post("conversion", [call] * 3)
        assert (status, answer["spooled"]) == (202, 3), answer
        assert Caller(service, "ghlx_unknown_key").post("conversion", call)[0] == 503
        server.start()
        connection = await asyncpg.connect(url)

        async def drained() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM inbox") == 4)

        await wait_until(drained, 15)
        await connection.close()


async def test_a_key_that_calls_too_often_waits_over_all_copies(
    make_service: MakeService,
    database_url: str,
    connection: asyncpg.Connection,
    valkey: EmbeddedValkey,
) -> None:
    token, other = await key_for(connection), await key_for(connection)
    copies = [
        make_service(database_url=database_url, redis_url=valkey.url(), api_requests_per_minute=40)
        for _ in range(2)
    ]
    for copy in copies:
        copy.start()
    call = {**LEAST["conversion"], "location_id": "loc"}
    statuses = []
    # More than two minutes' worth: a new one may begin in between.
    for number in range(100):
        statuses.append(Caller(copies[number % 2], token).post("conversion", call)[0])
    assert set(statuses) == {200, 429}
    assert statuses[:40] == [200] * 40
    assert Caller(copies[0], other).post("conversion", call)[0] == 200


async def test_without_redis_each_copy_counts_for_itself(
    make_service: MakeService, database_url: str, connection: asyncpg.Connection
) -> None:
    token = await key_for(connection)
    service = make_service(
        database_url=database_url, redis_url="redis://127.0.0.1:1", api_requests_per_minute=20
    )
    service.start()
    call = {**LEAST["conversion"], "location_id": "loc"}
    statuses = [Caller(service, token).post("conversion", call)[0] for _ in range(60)]
    assert statuses[:20] == [200] * 20
    assert 429 in statuses
