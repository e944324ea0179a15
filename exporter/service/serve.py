"""Run the service: event loop, listening socket (inherited or own), a stop that drops nothing."""

import asyncio
import faulthandler
import os
import signal
import time
from typing import Any

import structlog
import uvloop
from aiohttp import web

from exporter import __version__
from exporter.database.availability import Availability
from exporter.database.connect import connect
from exporter.database.migrations import migrate
from exporter.service.app import CONNECTIONS, METRICS_APP, create_app
from exporter.service.sockets import inherited_socket, own_socket
from exporter.settings import Settings
from exporter.support.tasks import end_tasks, ignoring

log = structlog.get_logger()

# Seconds that requests under way get at a stop; each is answered within two.
_GRACE = 5.0
# Seconds in which a connection that was accepted before the stop may still bring its request.
_LAST_REQUESTS = 1.0
# Seconds after which a stop that hangs ends the process, with a traceback of where it hangs.
_STOP_WITHIN = 20.0
# Seconds that a start waits for the first migration. A webhook that waits for the start, in the
# socket's queue, is answered in time all the same: without PostgreSQL it goes to the spool.
_FIRST_MIGRATION = 0.5
_MIGRATE_AGAIN = 2.0  # seconds between two tries


class Migrator:
    """Brings the database up to date as soon as it can be reached."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.availability = Availability("migration", "The database can't be brought up to date")
        self.tried = asyncio.Event()
        """Set once the first attempt has ended, in whatever way."""

    async def run(self) -> None:
        """Try until all migrations are applied."""
        while not self.availability.up:
            with ignoring(Exception, report=self._failed):
                await self._migrate()
                self.availability.found()
            self.tried.set()
            if not self.availability.up:
                await asyncio.sleep(_MIGRATE_AGAIN)

    def _failed(self, error: BaseException) -> None:
        self.availability.failed(error)

    async def _migrate(self) -> None:
        connection = await connect(self._settings, "migrate")
        try:
            for name in await migrate(connection):
                log.info("migrated", migration=name)
        finally:
            connection.terminate()


async def serve_until_stopped(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM or SIGINT (or until `stop` is set)."""
    for fault in settings.faults:
        log.error("setting_unusable", variable=fault.variable, reason=fault.problem)
    for note in settings.notes:
        log.warning("setting_unknown", reason=note)
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    passed_on = inherited_socket()
    listener = passed_on or own_socket("LISTEN_ADDRESS", settings.listen_address)
    metrics_listener = None
    if settings.metrics_address is not None:
        metrics_listener = own_socket("METRICS_ADDRESS", settings.metrics_address)
    # A first connection waits in the socket's queue, for no longer than a sender should.
    migrator = Migrator(settings)
    migration = asyncio.create_task(migrator.run())
    with ignoring(TimeoutError):
        async with asyncio.timeout(_FIRST_MIGRATION):
            await migrator.tried.wait()
    app = create_app(settings, [migrator.availability])
    stopping = False

    async def close_when_stopping(_: web.Request, response: web.StreamResponse) -> None:
        if stopping:
            response.force_close()

    app.on_response_prepare.append(close_when_stopping)
    runner = web.AppRunner(app, shutdown_timeout=_GRACE)
    await runner.setup()
    options: dict[str, Any] = {
        "access_log": None,
        "keepalive_timeout": settings.keepalive_timeout,
        "lingering_time": 1.0,
        "auto_decompress": False,
    }
    address = "{}:{}".format(*listener.getsockname()[:2])
    connections = app[CONNECTIONS]
    listening = [connections.listen(listener, _server_of(runner), **options)]
    runners = [runner]
    if metrics_listener is not None:
        metrics_runner = web.AppRunner(app[METRICS_APP], shutdown_timeout=_GRACE)
        await metrics_runner.setup()
        listening.append(
            connections.listen(metrics_listener, _server_of(metrics_runner), **options)
        )
        runners.append(metrics_runner)
    log.info(
        "serving",
        version=__version__,
        address=address,
        spool=None if settings.fault("spool_path") else str(settings.spool_path),
        connections=connections.limit,
    )
    try:
        await stop.wait()
    finally:
        log.info("stopping")
        # Everything that was answered is on disk: a stop that hangs may be cut short.
        faulthandler.dump_traceback_later(_STOP_WITHIN, exit=True)
        stopping = True
        for one in listening:
            # The next process takes what waits in a socket that was passed on.
            one.stop(accept_waiting=passed_on is None)
        await _wait_for_connections(runner, _LAST_REQUESTS)
        await end_tasks([migration], within=_LAST_REQUESTS)
        for each in runners:
            await each.cleanup()
        faulthandler.cancel_dump_traceback_later()
        log.info("stopped")


def _server_of(runner: web.AppRunner) -> web.Server:
    if runner.server is None:
        raise RuntimeError("the runner is not set up")
    return runner.server


async def _wait_for_connections(runner: web.AppRunner, seconds: float) -> None:
    """Wait until every connection is done: aiohttp would drop a request that is not read yet."""
    until = time.monotonic() + seconds
    await asyncio.sleep(0)  # those that were accepted last are made first
    while runner.server and runner.server.connections and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def run(settings: Settings) -> None:
    """Serve in a new event loop until the process is told to stop."""
    # Whatever the service writes holds customers' data: it is for nobody else.
    os.umask(0o077)
    uvloop.run(serve_until_stopped(settings))
