"""One instance leads: whatever is killed, hung or cut off, another one or the same leads again."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import asyncpg
import pytest

from exporter.cache.redis import Cache, open_redis
from exporter.database.connect import connect, create_pool
from exporter.database.locks import LEADER_LOCK
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey
from exporter.kpis.refresh import KpiRefresher
from exporter.publishing.day_figures import DayFigures
from exporter.service.leader import Leader
from exporter.settings import Settings, load_settings
from exporter.support.tasks import end_tasks
from exporter.telemetry.metrics import LiveMetrics, gauge_value
from tests.conftest import MakeService, Service, Signer, wait_until
from tests.sender import GHL_PATH, exchange, head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LEADERS = 5
# Times the leaders: that many leaders lose their database.
ROUNDS = int(os.environ.get("LEADER_KILLS", "200")) // LEADERS
BACK_WITHIN = 10.0
TAKEOVER_WITHIN = 15.0
END_WITHIN = 8.0

HOLDERS = """
SELECT d.datname, l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND l.granted AND l.objid = $1::bigint
"""


@contextlib.asynccontextmanager
async def leading(settings: Settings) -> AsyncIterator[LiveMetrics]:
    """Run a leader with its pool, and hold its end to its bound."""
    metrics = LiveMetrics()
    pool = create_pool(settings, "kpis")
    await pool
    kpis = KpiRefresher(settings, pool, metrics)
    redis = open_redis(settings)
    leader = Leader(settings, pool, kpis, DayFigures(settings, Cache(redis)), metrics)
    task = asyncio.create_task(leader.run())
    yield metrics
    assert await end_tasks([task], within=END_WITHIN), "the leader does not end"
    pool.terminate()
    assert redis is not None
    await redis.aclose()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "own", settings={"max_connections": "200"}) as server:
        yield server


async def _databases(server: EmbeddedPostgres, redis_url: str) -> list[Settings]:
    admin = await asyncpg.connect(server.url())
    settings = []
    for number in range(LEADERS):
        name = f"agency_{number}"
        if number == 0:
            await admin.execute(f"CREATE DATABASE {name}")
            first = await connect(load_settings(database_url=server.url(name)), "test")
            await migrate(first)
            await first.close()
        else:
            await admin.execute(f"CREATE DATABASE {name} TEMPLATE agency_0")
        # Often, so that a kill meets a query of each kind under way.
        settings.append(
            load_settings(database_url=server.url(name), redis_url=redis_url, kpi_interval=0.05)
        )
    await admin.close()
    return settings


async def _connect_after_recovery(server: EmbeddedPostgres) -> asyncpg.Connection:
    """Connect as soon as the server takes connections: the last crash may not be over yet."""
    deadline = time.monotonic() + BACK_WITHIN
    while True:
        try:
            return await asyncpg.connect(server.url())
        except (OSError, asyncpg.CannotConnectNowError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _kill_somehow(server: EmbeddedPostgres, random: Random) -> None:
    """End sessions by hand, crash one (which ends all), or kill the server and start it again."""
    way = random.choice(("sessions", "sessions", "crash", "server"))
    if way == "server":
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        return
    admin = await _connect_after_recovery(server)
    try:
        rows = await admin.fetch(
            "SELECT pid, pg_terminate_backend(CASE WHEN $1 THEN pid END) FROM pg_stat_activity"
            " WHERE application_name LIKE 'ghl-exporter %' ORDER BY pid",
            way == "sessions",
        )
        if way == "crash" and rows:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(rows)["pid"], signal.SIGKILL)
    finally:
        admin.terminate()


async def test_leaders_are_back_after_each_of_many_kills_and_end_when_told_to(
    own_postgres: EmbeddedPostgres, valkey: EmbeddedValkey
) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 2**32))
    print(f"SEED={seed}")
    random = Random(seed)
    slowest = 0.0
    async with contextlib.AsyncExitStack() as stack:
        metrics = [
            await stack.enter_async_context(leading(one))
            for one in await _databases(own_postgres, valkey.url())
        ]

        async def all_lead() -> bool:
            if not all(gauge_value(one.leader) for one in metrics):
                return False
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                admin = await asyncpg.connect(own_postgres.url(), timeout=2)
                try:
                    holders = await admin.fetch(HOLDERS, LEADER_LOCK)
                    # The gauges say what PostgreSQL knows.
                    return len({row["datname"] for row in holders}) == LEADERS
                finally:
                    admin.terminate()
            return False

        await wait_until(all_lead)
        for _ in range(ROUNDS):
            await asyncio.sleep(random.uniform(0, 0.15))
            killed_at = time.monotonic()
            await _kill_somehow(own_postgres, random)
            await wait_until(all_lead, BACK_WITHIN)
            slowest = max(slowest, time.monotonic() - killed_at)
        # They are told to end while their connections die.
        await asyncio.to_thread(own_postgres.kill)
    print(f"{ROUNDS * LEADERS} kills, the slowest return took {slowest:.1f} s")


class Wire:
    """A way to a server that can be cut: then no byte passes, and no connection learns of it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await end_tasks(self._tasks, within=5)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, there[1]]
        for source, target in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._pass_on(source, target))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await self._whole.wait()
                target.write(data)
                await target.drain()
            await self._whole.wait()
        target.close()


def _leads(service: Service) -> bool:
    return service.metrics()["ghl_exporter_leader"] == 1


def _kpi_samples(service: Service) -> int:
    return sum(
        not name.startswith(("ghl_exporter_", "python_", "process_")) for name in service.metrics()
    )


async def _send(service: Service, signer: Signer, number: int) -> None:
    body = json.dumps(
        {
            "type": "ContactCreate",
            "locationId": "north",
            "id": f"lead-{number}",
            "dateAdded": datetime.now(UTC).isoformat(),
            "webhookId": f"hook-{number}",
        }
    ).encode()
    request = head(GHL_PATH, signer.headers(body), length=len(body)) + body
    assert (await exchange(service.port, request)).status == 200


async def _taken_over(
    old: Service, new: Service, signer: Signer, connection: asyncpg.Connection
) -> None:
    """Wait until the other instance leads, projects and publishes."""
    began = time.monotonic()
    await wait_until(lambda: _leads(new), TAKEOVER_WITHIN)
    print(f"taken over after {time.monotonic() - began:.1f} s")
    await _send(new, signer, 2)
    await wait_until(
        lambda: connection.fetchval("SELECT count(*) = 2 FROM contacts"), TAKEOVER_WITHIN
    )
    await wait_until(lambda: _kpi_samples(new))


async def _first_leads(
    make_service: MakeService, signer: Signer, first_url: str, second_url: str
) -> tuple[Service, Service]:
    first = make_service(database_url=first_url)
    first.start()
    await wait_until(lambda: _leads(first))
    # The inbox looks for PostgreSQL at its own times: until then a webhook goes to the spool.
    await wait_until(lambda: first.metrics()["ghl_exporter_database_up"] == 1)
    second = make_service(database_url=second_url)
    second.start()
    await _send(first, signer, 1)
    # Both know of each other by then: whoever loses the lease will not go on publishing alone.
    await wait_until(lambda: _kpi_samples(first))
    await asyncio.sleep(2.5)
    assert not _leads(second)
    assert not _kpi_samples(second)
    return first, second


async def test_a_leader_that_hangs_is_replaced_and_publishes_nothing_when_it_wakes(
    make_service: MakeService, signer: Signer, database_url: str, connection: asyncpg.Connection
) -> None:
    first, second = await _first_leads(make_service, signer, database_url, database_url)
    assert first.process is not None
    first.process.send_signal(signal.SIGSTOP)
    try:
        await _taken_over(first, second, signer, connection)
    finally:
        first.process.send_signal(signal.SIGCONT)
    # Its first answer already: nothing has to be noticed before.
    assert not _leads(first)
    assert not _kpi_samples(first)
    sessions = await connection.fetch(HOLDERS, LEADER_LOCK)
    await asyncio.sleep(1)
    assert await connection.fetch(HOLDERS, LEADER_LOCK) == sessions
    assert _leads(second)
    assert not _leads(first)


async def test_a_leader_that_is_cut_off_is_replaced_and_publishes_nothing_any_more(
    postgres: EmbeddedPostgres,
    make_service: MakeService,
    signer: Signer,
    database_url: str,
    connection: asyncpg.Connection,
) -> None:
    wire = Wire(postgres.port)
    port = await wire.open()
    through = database_url.replace(f":{postgres.port}/", f":{port}/")
    try:
        first, second = await _first_leads(make_service, signer, through, database_url)
        wire.cut()
        await _taken_over(first, second, signer, connection)
        assert not _leads(first)
        assert not _kpi_samples(first)
        wire.mend()
        await asyncio.sleep(1)
        assert _leads(second)
        assert not _leads(first)
        assert not _kpi_samples(first)
    finally:
        await wire.close()


async def test_sigterm_ends_a_service_whose_database_dies_at_the_same_time(
    own_postgres: EmbeddedPostgres, make_service: MakeService
) -> None:
    service = make_service(database_url=own_postgres.url(), kpi_interval="0.05")
    random = Random(7)
    for _ in range(4):
        service.start()
        await wait_until(lambda: _leads(service))
        await asyncio.to_thread(own_postgres.kill)
        await asyncio.sleep(random.uniform(0, 0.2))
        assert await asyncio.to_thread(service.stop) == 0
        await asyncio.to_thread(own_postgres.start)
