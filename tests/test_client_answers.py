"""Answers that are not the exporter's: nothing is taken for delivered, and nothing is lost."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import asyncpg
import pytest
from aiohttp import web

from exporter.api.keys import create_key
from exporter.client import AsyncClient, ClientError
from exporter.client.log import Throttle, log
from exporter.client.send_queue import Outbox
from exporter.client.sender import Sender
from tests.conftest import MakeService, free_port, wait_until

Handler = Callable[[web.Request], Awaitable[web.Response]]


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Collect the client's warnings, whatever other tests did to logging."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Collect(logging.WARNING)
    before, log.disabled = log.disabled, False
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)
    log.disabled = before


@contextlib.asynccontextmanager
async def serving(handler: Handler, port: int) -> AsyncIterator[list[str]]:
    """Serve all paths by one handler; yields the methods and paths that were asked."""
    asked: list[str] = []

    async def noted(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", noted)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield asked
    finally:
        await runner.cleanup()


def _html(status: int) -> Callable[[], web.Response]:
    return lambda: web.Response(status=status, text="<html>Sign in", content_type="text/html")


def _json(status: int, text: str) -> Callable[[], web.Response]:
    return lambda: web.Response(status=status, text=text, content_type="application/json")


def _redirect(status: int) -> Callable[[], web.Response]:
    return lambda: web.Response(status=status, headers={"Location": "/login"})


STRANGE: dict[str, Callable[[], web.Response]] = {
    **{f"redirect {status}": _redirect(status) for status in (301, 302, 303, 307, 308)},
    **{f"page {status}": _html(status) for status in (200, 202, 400, 404, 405, 413, 422, 502)},
    "empty": lambda: web.Response(status=200),
    "no content": lambda: web.Response(status=204),
    "wrong type": lambda: web.Response(text='{"stored": 1, "duplicate": 0, "spooled": 0}'),
    "cut": _json(200, '{"stored": 1, "dupl'),
    "list": _json(200, "[]"),
    "another service": _json(200, '{"status": "ok"}'),
    "another's count": _json(200, '{"stored": 2, "duplicate": 0, "spooled": 0}'),
    "text for numbers": _json(200, '{"stored": "1", "duplicate": 0, "spooled": 0}'),
    "another's refusal": _json(422, '{"detail": [{"loc": ["body", 0], "msg": "no"}]}'),
    "no retry": lambda: web.Response(status=429, headers={"Retry-After": "soon"}),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_another_ones_answer_is_not_delivery(name: str, said: list[str]) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/login":
            return _json(200, '{"stored": 1, "duplicate": 0, "spooled": 0}')()
        return STRANGE[name]()

    port = free_port()
    async with (
        serving(answer, port) as asked,
        AsyncClient(f"http://127.0.0.1:{port}", "k", location_id="l") as client,
    ):
        client.track_agent_activity("ann")
        await wait_until(lambda: client.stats.retries >= 2)
        stats = client.stats
        assert (stats.sent, stats.rejected, stats.waiting) == (0, 0, 1)
        assert stats.unexpected >= 2
        assert set(asked) == {"POST /api/business-metrics/track/agent-activity"}
        # Once a minute, however often it is tried.
        assert len(said) == 1
        assert "not the exporter's answer" in said[0]
        assert await client.get_health() is None
        assert await client.calculate_revenue_per_lead() is None
        assert await client.get_executive_dashboard_metrics() is None
        assert await client.get_agent_productivity_metrics() is None
        client._raise_errors = True
        with pytest.raises(ClientError, match=r"not the exporter's answer"):
            await client.calculate_revenue_per_lead()
        await client.close(0)


async def test_what_met_a_login_page_is_stored_once_the_exporter_is_back(
    make_service: MakeService, database_url: str, connection: asyncpg.Connection, said: list[str]
) -> None:
    key = await create_key(connection, "platform", ["read", "track"], ["*"])
    service = make_service(database_url=database_url)

    async def login(_: web.Request) -> web.Response:
        raise web.HTTPFound("/login")

    async with AsyncClient(service.url, key, location_id="loc") as client:
        async with serving(login, service.port):
            for number in range(30):
                client.track_agent_activity(f"agent-{number}")
            await wait_until(lambda: client.stats.unexpected >= 2)
        service.start()
        assert await client.flush()
        assert client.stats.sent == 30
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 30


async def test_a_proxy_that_refuses_long_bodies_gets_shorter_ones(said: list[str]) -> None:
    async def answer(request: web.Request) -> web.Response:
        calls = await request.json()
        if len(calls) > 3:
            return _html(413)()
        return _json(200, f'{{"stored": {len(calls)}, "duplicate": 0, "spooled": 0}}')()

    port = free_port()
    async with serving(answer, port):
        client = AsyncClient(f"http://127.0.0.1:{port}", "k", location_id="l")
        for number in range(50):
            client.track_agent_activity(f"agent-{number}")
        assert await client.flush()
        assert (client.stats.sent, client.stats.rejected) == (50, 0)
        await client.close()


async def test_a_refusal_of_the_exporter_drops_the_calls_that_it_names(said: list[str]) -> None:
    """Only a newer exporter refuses what this client accepts."""
    taken: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        agents = [call["agent_id"] for call in await request.json()]
        if "wrong" in agents:
            place = agents.index("wrong")
            errors = f'[{{"field": "{place}.agent_id", "problem": "no"}}]'
            return web.Response(
                status=422,
                text=f'{{"title": "", "status": 422, "detail": "", "errors": {errors}}}',
                content_type="application/problem+json",
            )
        taken.extend(agents)
        return _json(200, f'{{"stored": {len(agents)}, "duplicate": 0, "spooled": 0}}')()

    port = free_port()
    client = AsyncClient(f"http://127.0.0.1:{port}", "k", location_id="l")
    for agent in ("a", "wrong", "b"):
        client.track_agent_activity(agent)
    async with serving(answer, port):
        assert await client.flush()
        await client.close()
    assert taken == ["a", "b"]
    assert (client.stats.sent, client.stats.rejected) == (2, 1)
    assert "refuses calls of agent-activity" in said[0]


async def _hang(_: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def test_a_question_can_be_cancelled_and_the_client_lives_on() -> None:
    port = free_port()
    client = AsyncClient(f"http://127.0.0.1:{port}", "k", location_id="l", timeout=20)
    async with serving(_hang, port) as asked:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.get_health()
        question = asyncio.create_task(client.get_health())
        await wait_until(lambda: len(asked) == 2)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        # One that waits while the client is closed is answered, not cancelled.
        question = asyncio.create_task(client.get_health())
        await wait_until(lambda: len(asked) == 3)
        await client.close(0)
        assert await question is None


async def test_a_cancelled_close_still_ends_and_counts(said: list[str]) -> None:
    port = free_port()
    client = AsyncClient(f"http://127.0.0.1:{port}", "k", location_id="l")
    async with serving(_hang, port):
        client.track_agent_activity("ann")
        worker = client._worker
        closing = asyncio.create_task(client.close(30))
        await asyncio.sleep(0.2)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await wait_until(lambda: worker._thread is None)
    assert (client.stats.waiting, client.stats.dropped) == (0, 1)
    assert said == ["1 call is lost: the exporter did not take them before the end"]
    # It can be used again.
    await client.start()
    assert client.track_agent_activity("ann")
    await client.close(0)


async def test_a_wait_that_is_asked_for_is_bounded() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "99999999"})

    port = free_port()
    sender = Sender(f"http://127.0.0.1:{port}/", "k", Outbox(1), 5.0, Throttle())
    async with serving(answer, port):
        found = await sender._request("GET", "health")
        await sender._session().close()
    assert found.retry_after == 60
