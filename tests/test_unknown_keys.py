"""Strangers who guess keys: bounded by their address, noted, and in nobody's way."""

import asyncio
import secrets
import time
from collections import Counter

import aiohttp
import asyncpg

from exporter.api.database import ApiDatabase
from exporter.api.keys import KeyRing, create_key
from tests.conftest import MakeService, Service

READ = "/api/business-metrics/health"
TRACK = "/api/business-metrics/track/conversion"
STRANGERS = 300


def guess() -> str:
    return f"ghlx_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


async def ask(session: aiohttp.ClientSession, url: str, token: str) -> aiohttp.ClientResponse:
    async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
        await answer.read()
        return answer


async def flood(service: Service, tokens: list[str]) -> list[aiohttp.ClientResponse]:
    connector = aiohttp.TCPConnector(limit=32)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*(ask(session, service.url + READ, one) for one in tokens))


async def track(service: Service, token: str) -> int:
    call = {"contact_id": "c", "stage": "ai_qualified", "location_id": "loc"}
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(service.url + TRACK, json=call, headers=headers) as answer,
    ):
        return answer.status


async def test_guesses_are_bounded_by_address_and_a_known_key_works(
    make_service: MakeService, database_url: str, connection: asyncpg.Connection
) -> None:
    token = await create_key(connection, "good", ["read", "track"], ["*"])
    service = make_service(database_url=database_url)
    service.start()
    assert await track(service, token) == 200

    begun = time.monotonic()
    answers = await flood(service, [guess() for _ in range(STRANGERS)])
    # Two minutes' worth at most: a new one may begin in between.
    counts = Counter(answer.status for answer in answers)
    assert set(counts) == {401, 429}
    assert 60 <= counts[401] <= 120
    assert all(
        1 <= int(answer.headers["Retry-After"]) <= 60 for answer in answers if answer.status == 429
    )
    # A token with a known key's id and another secret is a guess too.
    forged = token.rsplit("_", 1)[0] + "_" + secrets.token_urlsafe(32)
    wrong = await flood(service, [forged] * 70)
    assert {answer.status for answer in wrong} <= {401, 429}
    assert await track(service, token) == 200

    refused = [line for line in service.log_lines() if line["event"] == "requests_refused"]
    assert len(refused) == 1
    assert set(refused[0]["counts"]) == {"no_good_key"}
    assert refused[0]["client"] == "127.0.0.1"
    metrics = service.metrics()
    rejected = metrics['ghl_exporter_api_requests_rejected_total{status="429"}']
    assert rejected >= counts[429]

    async def noted() -> list[str]:
        rows = await connection.fetch(
            "SELECT outcome FROM audit WHERE actor = 'client:127.0.0.1' ORDER BY at"
        )
        return [row["outcome"] for row in rows]

    async with asyncio.timeout(10):
        while not {"401", "429"} <= set(await noted()):
            await asyncio.sleep(0.1)
    assert (await noted())[0] == "401"
    # For each minute one of each, however many there were.
    minutes = (time.monotonic() - begun) // 60 + 2
    assert len(await noted()) <= 2 * minutes
    assert forged not in service.log.read_text()


async def test_a_known_key_works_without_postgresql_while_strangers_guess(
    make_service: MakeService, database_url: str, connection: asyncpg.Connection
) -> None:
    token = await create_key(connection, "good", ["track"], ["*"])
    service = make_service(database_url=database_url)
    service.start()
    assert await track(service, token) == 200
    name = str(await connection.fetchval("SELECT current_database()"))
    admin = await asyncpg.connect(database_url, database="postgres")
    try:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        await asyncio.sleep(5.1)  # until the key has to be looked up again
        answers = await flood(service, [guess() for _ in range(STRANGERS)])
        counts = Counter(answer.status for answer in answers)
        assert set(counts) == {503, 429}
        assert counts[503] <= 120
        assert await track(service, token) == 202  # stored in the spool
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await admin.close()


async def test_no_number_of_unknown_keys_makes_a_known_one_forgotten(
    database_url: str, connection: asyncpg.Connection
) -> None:
    token = await create_key(connection, "good", ["read"], ["loc"])
    async with asyncpg.create_pool(database_url, min_size=1, max_size=4) as pool:
        ring = KeyRing(ApiDatabase(pool))
        assert not ring.knows(token)
        assert await ring.find(token) is not None
        for _ in range(20):
            assert not any(await asyncio.gather(*(ring.find(guess()) for _ in range(600))))
        assert ring.knows(token)
        assert len(ring._known) == 1
    # The pool is closed now: PostgreSQL can't be asked.
    assert (await ring.find(token)) is not None


async def test_a_revoked_key_becomes_a_strangers(
    make_service: MakeService, database_url: str, connection: asyncpg.Connection
) -> None:
    token = await create_key(connection, "good", ["track"], ["*"])
    service = make_service(database_url=database_url)
    service.start()
    assert await track(service, token) == 200
    await connection.execute("UPDATE api_keys SET revoked_at = now()")
    await asyncio.sleep(5.1)
    statuses = {await track(service, token) for _ in range(130)}
    assert statuses == {401, 429}
