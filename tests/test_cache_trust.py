"""Whoever can write to Redis changes no answer and breaks none: what is kept there is sealed."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp.test_utils import TestClient
from redis.asyncio import Redis

from exporter.api.keys import create_key
from exporter.cache.redis import Cache
from exporter.cache.seal import Seal
from exporter.database.connect import create_pool
from exporter.demo.servers import EmbeddedValkey
from exporter.service.app import create_app
from exporter.settings import load_settings
from tests.projecting import project_all, received, store

PATH = "/api/business-metrics/revenue-metrics"
ANSWERS = "ghl_exporter:answer:*"


def _event(location: str, contact: str) -> Any:
    body = {"type": "ContactCreate", "locationId": location, "id": contact}
    return received(json.dumps(body).encode(), "ghl", datetime.now(UTC))


class Asker:
    """Asks the service, and reads and writes Redis behind its back."""

    def __init__(self, client: TestClient[Any, Any], key: str, redis: Redis) -> None:
        self.client = client
        self.key = key
        self.redis = redis

    async def ask(self, location: str = "a", **query: int) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.key}"}
        asked = {name: str(value) for name, value in query.items()}
        async with self.client.get(f"{PATH}/{location}", params=asked, headers=headers) as response:
            body = await response.read()
            assert response.status == 200, body
            found: dict[str, Any] = json.loads(body)
            return found

    async def read(self, name: bytes) -> bytes:
        value = await self.redis.get(name)
        assert isinstance(value, bytes)
        return value

    async def kept(self) -> list[bytes]:
        return [name async for name in self.redis.scan_iter(ANSWERS)]


@pytest.fixture
async def asker(
    connection: asyncpg.Connection,
    database_url: str,
    valkey: EmbeddedValkey,
    tmp_path: Path,
    aiohttp_client: Any,
) -> AsyncIterator[Asker]:
    settings = load_settings(
        database_url=database_url,
        redis_url=valkey.url(),
        spool_path=tmp_path / "spool.sqlite3",
        dashboard_cache_ttl="300",
    )
    await store(connection, [_event("a", "c"), _event("b", "d")])
    await project_all(connection, settings)
    key = await create_key(connection, "all", ["read"], ["*"])
    redis = Redis.from_url(valkey.url())
    await redis.flushall()
    yield Asker(await aiohttp_client(create_app(settings)), key, redis)
    await redis.aclose()


async def _garbage(redis: Redis, name: bytes, _: bytes) -> None:
    await redis.set(name, b"\xff\x00garbage")


async def _empty(redis: Redis, name: bytes, _: bytes) -> None:
    await redis.set(name, b"")


async def _truncated(redis: Redis, name: bytes, sealed: bytes) -> None:
    await redis.set(name, sealed[: len(sealed) // 2])


async def _head_alone(redis: Redis, name: bytes, sealed: bytes) -> None:
    await redis.set(name, sealed[:41])


async def _forged(redis: Redis, name: bytes, sealed: bytes) -> None:
    await redis.set(name, b'{"location_id": "a", "figures": {"ghl_revenue": 1e9}}')


async def _forged_behind_a_seal(redis: Redis, name: bytes, sealed: bytes) -> None:
    await redis.set(name, sealed[:41] + b'{"location_id": "a", "figures": {"ghl_revenue": 1e9}}')


async def _made_younger(redis: Redis, name: bytes, sealed: bytes) -> None:
    later = int(time.time() * 1000 + 1000).to_bytes(8, "big")
    await redis.set(name, sealed[:1] + later + sealed[9:])


async def _other_version(redis: Redis, name: bytes, sealed: bytes) -> None:
    await redis.set(name, b"\x02" + sealed[1:])


async def _a_list(redis: Redis, name: bytes, _: bytes) -> None:
    await redis.delete(name)
    await redis.rpush(name, "x")


async def _a_hash(redis: Redis, name: bytes, _: bytes) -> None:
    await redis.delete(name)
    await redis.hset(name, "x", "y")


Tamper = Callable[[Redis, bytes, bytes], Awaitable[None]]


@pytest.mark.parametrize(
    "tamper",
    [
        _garbage,
        _empty,
        _truncated,
        _head_alone,
        _forged,
        _forged_behind_a_seal,
        _made_younger,
        _other_version,
        _a_list,
        _a_hash,
    ],
)
async def test_what_was_tampered_with_is_computed_and_kept_anew(
    asker: Asker, tamper: Tamper
) -> None:
    first = await asker.ask()
    assert await asker.ask() == first, "it is kept"
    [name] = await asker.kept()
    sealed = await asker.read(name)
    await tamper(asker.redis, name, sealed)
    second = await asker.ask()
    assert second["figures"] == first["figures"]
    assert second["generated_at"] != first["generated_at"]
    assert await asker.ask() == second, "the cache is not turned off by it"


async def test_every_byte_is_authenticated(asker: Asker) -> None:
    first = await asker.ask()
    [name] = await asker.kept()
    sealed = await asker.read(name)
    for position in range(0, len(sealed), max(1, len(sealed) // 60)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        await asker.redis.set(name, bytes(changed))
        answer = await asker.ask()
        assert answer["figures"] == first["figures"]
        assert answer["generated_at"] != first["generated_at"], position


async def test_an_answer_is_no_answer_to_another_question(asker: Asker) -> None:
    theirs = await asker.ask("b")
    [of_b] = await asker.kept()
    mine = await asker.ask("a", days=3)
    [of_a] = [name for name in await asker.kept() if name != of_b]
    await asker.redis.set(of_a, await asker.read(of_b))
    answer = await asker.ask("a", days=3)
    assert (answer["location_id"], answer["period_days"]) == ("a", 3)
    assert answer["figures"] == mine["figures"]
    assert await asker.ask("b") == theirs


async def test_an_answer_is_not_taken_after_its_time(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = create_pool(load_settings(database_url=database_url), "test")
    async with pool:
        seal, other = Seal(pool), Seal(pool)
        assert await seal.load()
        assert await other.load(), "instances share the key"
        sealed = seal.close("question", b"content")
        assert other.open("question", sealed, 15) == b"content"
        now = time.time()
        for later, expected in ((14, b"content"), (16, None), (1e6, None), (-60, None)):
            monkeypatch.setattr(time, "time", lambda later=later: now + later)
            assert seal.open("question", sealed, 15) == expected, later


async def test_without_the_key_nothing_is_kept_or_taken(
    asker: Asker, connection: asyncpg.Connection
) -> None:
    await connection.execute("ALTER TABLE cache_key RENAME TO elsewhere")
    first = await asker.ask()
    assert await asker.kept() == []
    assert (await asker.ask())["generated_at"] != first["generated_at"]


async def test_a_counter_that_is_no_number_costs_only_its_count(asker: Asker) -> None:
    await asker.ask()
    [name] = [name async for name in asker.redis.scan_iter("ghl_exporter:rate:*")]
    for write in (asker.redis.set(name, "x"), asker.redis.set(name, str(2**63 - 1))):
        await write
        first = await asker.ask()
        assert await asker.ask() == first, "the cache is not turned off by it"
    await asker.redis.delete(name)
    await asker.redis.rpush(name, "x")
    first = await asker.ask()
    assert await asker.ask() == first


async def test_a_wrong_type_is_one_that_is_not_there(valkey: EmbeddedValkey) -> None:
    redis = Redis.from_url(valkey.url())
    await redis.flushall()
    await redis.rpush("a-list", "x")
    cache = Cache(redis)

    def fill(pipeline: Any) -> None:
        pipeline.get("a-list")
        pipeline.get("none")

    assert await cache.run(fill) == [None, None]
    assert cache.usable
    await redis.aclose()
