"""One instance leads: whatever is killed, hung or cut off, another one or the same leads again."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import asyncpg
import pytest

from exporter.cache.figures import DayFigures
from exporter.cache.redis import Cache
from exporter.database.connect import connect, create_pool
from exporter.database.locks import LEADER_LOCK
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres
from exporter.kpis.refresh import KpiRefresher
from exporter.leader import Leader
from exporter.live.metrics import LiveMetrics, gauge_value
from exporter.settings import Settings, load_settings
from exporter.tasks import end_tasks
from tests.conftest import wait_until

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
    leader = Leader(settings, pool, kpis, DayFigures(settings, Cache(None)), metrics)
    task = asyncio.create_task(leader.run())
    yield metrics
    assert await end_tasks([task], within=END_WITHIN), "the leader does not end"
    pool.terminate()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "own", settings={"max_connections": "200"}) as server:
        yield server


async def _databases(server: EmbeddedPostgres) -> list[Settings]:
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
        settings.append(load_settings(database_url=server.url(name), kpi_interval=0.05))
    await admin.close()
    return settings


async def _kill_somehow(server: EmbeddedPostgres, random: Random) -> None:
    """End sessions by hand, crash one (which ends all), or kill the server and start it again."""
    way = random.choice(("sessions", "sessions", "crash", "server"))
    if way == "server":
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        return
    admin = await asyncpg.connect(server.url())
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
    own_postgres: EmbeddedPostgres,
) -> None:
    seed = int(os.environ.get("SEED", time.time_ns() % 2**32))
    print(f"SEED={seed}")
    random = Random(seed)
    slowest = 0.0
    async with contextlib.AsyncExitStack() as stack:
        metrics = [
            await stack.enter_async_context(leading(one)) for one in await _databases(own_postgres)
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
