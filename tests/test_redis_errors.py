"""No error of the Redis client, of whatever class, reaches the leader or an answer."""

import asyncio
from typing import Any

import pytest
import redis.exceptions
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from exporter.cache.redis import Cache
from exporter.demo.servers import EmbeddedValkey
from tests.conftest import MakeService, Signer, free_port, wait_until
from tests.sender import Sender, contact


def every_class(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(every_class(sub) for sub in base.__subclasses__()))


OF_THE_CLIENT = sorted(every_class(redis.exceptions.RedisError), key=lambda one: one.__qualname__)
OTHERS = [TypeError, ValueError, OSError, TimeoutError, AttributeError, RuntimeError, EOFError]


def made(kind: type[BaseException]) -> BaseException:
    for arguments in (("it\nfails",), (), ("it", "fails"), ("a", "b", "c")):
        try:
            return kind(*arguments)
        except (TypeError, ValueError):
            continue
    return kind.__new__(kind)


class Failing(Redis):
    """A client whose pipelines raise."""

    error: BaseException

    def pipeline(self, *arguments: Any, **options: Any) -> Pipeline:
        pipeline = super().pipeline(*arguments, **options)

        async def execute(raise_on_error: bool = True) -> list[Any]:
            await asyncio.sleep(0)
            raise self.error

        pipeline.execute = execute  # type: ignore[method-assign]
        return pipeline


@pytest.mark.parametrize("kind", [*OF_THE_CLIENT, *OTHERS, UnicodeDecodeError])
async def test_every_class_of_error_is_away_and_is_logged_once(kind: type[BaseException]) -> None:
    client = Failing()
    unicode = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    client.error = unicode if kind is UnicodeDecodeError else made(kind)
    cache = Cache(client)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            assert not await cache.look()
        assert await cache.run(lambda pipeline: pipeline.get("x")) is None
        assert await cache.run(lambda pipeline: pipeline.get("x")) is None
    assert not cache.usable
    [reason] = [line["reason"] for line in lines if line["event"] == "redis_unavailable"]
    assert reason
    assert "\n" not in reason
    assert cache.availability.reason == reason
    await client.aclose()


async def test_a_cancellation_is_no_error_of_redis() -> None:
    client = Failing()
    client.error = ConnectionResetError()
    cache = Cache(client)

    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await cache.run(lambda pipeline: pipeline.get("x"))

    task = asyncio.create_task(cancelled())
    await asyncio.wait([task])
    assert task.cancelled()
    await client.aclose()


@pytest.mark.parametrize("query", ["?ssl_cert_reqs=none", "?nonsense=1", "?db=x", "?protocol=9"])
async def test_a_url_with_an_option_that_the_client_refuses_costs_the_leader_nothing(
    make_service: MakeService, database_url: str, valkey: EmbeddedValkey, signer: Signer, query: str
) -> None:
    service = make_service(database_url=database_url, redis_url=valkey.url() + query)
    service.start()
    sender = Sender(service.port, signer)
    await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    for _ in range(6):
        assert service.metrics()["ghl_exporter_leader"] == 1
        assert (await sender.send(contact())).status == 200
        await asyncio.sleep(0.5)
    assert service.metrics()["ghl_exporter_redis_up"] == 0
    log = service.log.read_text()
    assert "task_failed" not in log
    assert "Traceback" not in log
    # Once, with its reason, wherever it was found.
    found = [
        x for x in service.log_lines() if x["event"] in ("redis_unavailable", "setting_unusable")
    ]
    assert len(found) == 1
    assert "Redis is down" in service.get("/")[1].decode()


async def test_redis_that_goes_and_comes_back_is_logged_once_each(
    make_service: MakeService, database_url: str, tmp_path: Any
) -> None:
    port = free_port()
    with EmbeddedValkey(tmp_path / "valkey", port=port) as server:
        service = make_service(database_url=database_url, redis_url=server.url())
        service.start()
        await wait_until(lambda: service.metrics()["ghl_exporter_redis_up"] == 1)
        server.kill()
        await wait_until(lambda: service.metrics()["ghl_exporter_redis_up"] == 0)
        await asyncio.sleep(3.5)
        page = service.get("/")[1].decode()
        assert "Redis is away: slower, never wrong: " in page
        server.start()
        await wait_until(lambda: service.metrics()["ghl_exporter_redis_up"] == 1)
        reasons = [x["reason"] for x in service.log_lines() if x["event"] == "redis_unavailable"]
        assert reasons
        assert len(reasons) == len(set(reasons))
        assert [x for x in service.log_lines() if x["event"] == "redis_available"]
        assert "Redis answers." in service.get("/")[1].decode()
