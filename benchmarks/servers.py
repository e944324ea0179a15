"""The receiver with another inbox behind it: what the real one is measured beside.

Run as a process of its own: `python -m benchmarks.servers KIND`, set up by the environment as the
service is.
"""

import asyncio
import contextlib
import signal
import sys
from typing import Any

import uvloop
from aiohttp import web

from benchmarks.load import pin
from exporter.database.connect import create_pool
from exporter.domain.event import InboxEvent
from exporter.http.body import BodyReader
from exporter.http.refusal_log import RefusalLog
from exporter.inbox.inbox import Outcome
from exporter.inbox.store import insert_events
from exporter.receiver.handlers import Receiver
from exporter.receiver.signature import ED25519_HEADER, Verifier
from exporter.settings import Settings, load_settings
from exporter.settings.values import host_and_port
from exporter.support.logs import configure_logs
from exporter.telemetry.metrics import LiveMetrics


class StoresNothing:
    """Says of every event that it is stored."""

    async def accept(
        self, event: InboxEvent, *, database_until: float, spool_until: float
    ) -> Outcome:
        """Store nothing."""
        return Outcome.STORED


class InsertsEach:
    """Stores each event with a statement and a commit of its own."""

    def __init__(self, settings: Settings) -> None:
        # As many connections as served best in trials.
        self._pool = create_pool(settings.model_copy(update={"database_pool_size": 8}), "bench")

    async def accept(
        self, event: InboxEvent, *, database_until: float, spool_until: float
    ) -> Outcome:
        """Store one event."""
        async with self._pool.acquire() as connection:
            new = await insert_events(connection, [event])
        return Outcome.STORED if new else Outcome.DUPLICATE

    async def open(self, _: web.Application) -> None:
        """Connect."""
        await self._pool


def verify_only(settings: Settings) -> web.Application:
    """Read the body, check its signature, answer: no key, no metric, no log."""
    verifier = Verifier.from_pem(settings.ghl_public_keys, accept_rsa=False)

    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        verifier.check(body, request.headers.getall(ED25519_HEADER, ()), ())
        return web.Response(body=b'{"status":"stored"}', content_type="application/json")

    app = web.Application()
    app.router.add_post("/webhooks/ghl", handler)
    return app


def receiver(settings: Settings, inbox: Any) -> web.Application:
    """Put the real receiver before an inbox."""
    app = web.Application()
    app.router.add_routes(
        Receiver(settings, inbox, LiveMetrics(), BodyReader(settings), RefusalLog()).routes()
    )
    return app


def make(kind: str, settings: Settings) -> web.Application:
    """Make the server of a kind: `verify`, `nothing` or `insert`."""
    if kind == "verify":
        return verify_only(settings)
    if kind == "nothing":
        return receiver(settings, StoresNothing())
    inserting = InsertsEach(settings)
    app = receiver(settings, inserting)
    app.on_startup.append(inserting.open)
    return app


async def _serve(kind: str) -> None:
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    host, port = host_and_port(settings.listen_address)
    runner = web.AppRunner(make(kind, settings), access_log=None, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(3):
            await runner.cleanup()


if __name__ == "__main__":
    pin(0)
    uvloop.run(_serve(sys.argv[1]))
