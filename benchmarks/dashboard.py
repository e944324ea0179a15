"""Reading with much behind it: KPI queries, the dashboard over HTTP, a refresh after new events.

    python -m benchmarks.dashboard [--leads 1m] [--locations 20] [--requests 200]

The facts of so many leads, and what belongs to them, are made by SQL in the tables that the
projection writes, spread over a year; the roll-ups are computed from them as ever. Then, each with
its p50, p90 and p99: every KPI's query for one location and the four windows; the dashboard over
HTTP, each a question that nobody has asked, and the same question again; and a refresh of all
locations after 1,000 new events. Beside it the same KPIs computed naively, that is with the days'
roll-ups made from the facts each time.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp
import asyncpg
from rich.console import Console
from rich.table import Table

from benchmarks.refresh import parse_size
from exporter.api.keys import create_key
from exporter.database.connect import connect, create_pool
from exporter.database.migrations import migrate
from exporter.demo.agency import Agency
from exporter.demo.platform import stream
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey
from exporter.demo.traffic import as_received
from exporter.inbox.store import insert_events
from exporter.kpis.definitions import all_kpis
from exporter.kpis.refresh import KpiRefresher, query_kpi
from exporter.kpis.windows import EXPORTED_DAYS, windows
from exporter.projection.fact_settings import FactSettings
from exporter.projection.projector import Projector
from exporter.projection.rollups import ROLLUPS, TouchedCells
from exporter.settings import Settings, load_settings
from exporter.telemetry.metrics import LiveMetrics
from exporter.validate.report import percentile

_DAYS = 365
_FACTS = Path(__file__).with_name("facts.sql")
_PORT = 12199


async def _make_facts(
    connection: asyncpg.Connection, leads: int, locations: int, console: Console
) -> int:
    """Fill the tables of facts, compute the roll-ups, and return how many facts there are."""
    names = [f"location-{number:03}" for number in range(locations)]
    with console.status("making facts") as status:
        for statement in _FACTS.read_text("utf-8").split(";\n"):
            if statement.strip():
                status.update(f"making facts: {statement.strip().splitlines()[-1][:60]}")
                await connection.execute(
                    statement.replace("$LEADS", str(leads))
                    .replace("$LOCATIONS", str(locations))
                    .replace("$DAYS", str(_DAYS))
                )
        today = datetime.now(UTC).date()
        for back in range(_DAYS + 1):
            status.update(f"computing roll-ups: {_DAYS - back} days left")
            cells = {(name, today - timedelta(back)) for name in names}
            await TouchedCells(cells).recompute(connection)
        await connection.execute("VACUUM ANALYZE")
    tables = await connection.fetch(
        "SELECT relname, reltuples::bigint AS rows FROM pg_class WHERE relkind = 'r'"
        " AND relname = ANY($1)",
        [
            "contacts",
            "opportunities",
            "deals",
            "conversion_pipeline",
            "messages",
            "activities",
            "recommendations",
            "interactions",
            "platform_webhooks",
            "webhook_outcomes",
        ],
    )
    return sum(max(row["rows"], 0) for row in tables)


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return (time.perf_counter() - started) * 1000


async def _queries(
    connection: asyncpg.Connection, settings: Settings, rounds: int
) -> dict[str, list[float]]:
    now = datetime.now(UTC)
    chosen = windows(settings, ["location-000"], now=now, days=EXPORTED_DAYS)
    taken: dict[str, list[float]] = {}
    for kpi in all_kpis():
        ask = partial(query_kpi, connection, kpi, chosen, settings=settings, now=now, timeout=60)
        # The first one prepares the statement.
        taken[kpi.name] = [await _timed(ask) for _ in range(rounds + 1)][1:]
    return taken


async def _naive(connection: asyncpg.Connection, settings: Settings, days: int) -> float:
    """Milliseconds of the KPIs of one location and window, with roll-ups made from the facts."""
    now = datetime.now(UTC)
    chosen = windows(settings, ["location-000"], now=now, days=(days,))
    started = time.perf_counter()
    async with connection.transaction():
        for name in ROLLUPS:
            # Found before the real one, by everything that names it.
            await connection.execute(
                f"CREATE TEMP TABLE {name} (LIKE public.{name}) ON COMMIT DROP"
            )
        last: date = chosen[0].last_day
        cells = {("location-000", last - timedelta(back)) for back in range(days)}
        await TouchedCells(cells).recompute(connection)
        for kpi in all_kpis():
            await query_kpi(connection, kpi, chosen, settings=settings, now=now, timeout=60)
    return (time.perf_counter() - started) * 1000


async def _over_http(url: str, key: str, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds of the dashboard, asked anew each time, and of one that was kept."""
    headers = {"Authorization": f"Bearer {key}"}
    today = datetime.now(UTC).date()
    async with aiohttp.ClientSession(url, headers=headers) as session:

        async def ask(until: date) -> float:
            started = time.perf_counter()
            query = {"until": until.isoformat()}
            path = "/api/business-metrics/dashboard/location-000"
            async with session.get(path, params=query) as response:
                await response.read()
                response.raise_for_status()
            return (time.perf_counter() - started) * 1000

        # The first ones open connections and prepare statements.
        for back in range(20):
            await ask(today - timedelta(250 + back))
        fresh = [await ask(today - timedelta(back)) for back in range(requests)]
        kept = [await ask(today) for _ in range(requests * 5)]
    return fresh, kept


async def _refreshes(
    connection: asyncpg.Connection, settings: Settings, rounds: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of the projection of 1,000 new events, and of a refresh after it."""
    start = datetime.now(UTC) - timedelta(days=rounds + 2)
    coming = iter(stream(Agency(seed=1), start, datetime.now(UTC)))
    projector = Projector(connection, FactSettings.from_settings(settings), LiveMetrics(), 1000)
    projected, refreshed = [], []
    async with create_pool(settings, "bench") as pool:
        refresher = KpiRefresher(settings, pool, LiveMetrics())
        for number in range(rounds + 1):
            batch = [as_received(next(coming)) for _ in range(1000)]
            await insert_events(connection, batch)
            one = await _timed(projector.step)
            other = await _timed(refresher.refresh)
            if len(refresher.snapshot.kpis) != len(all_kpis()):
                raise RuntimeError("a KPI failed")
            if number:
                projected.append(one)
                refreshed.append(other)
    return projected, refreshed


def _serve(settings: dict[str, str], directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "exporter", "serve"],
        env={**os.environ, **settings, "LISTEN_ADDRESS": f"127.0.0.1:{_PORT}"},
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def _measure(options: argparse.Namespace, console: Console, directory: Path) -> None:
    with EmbeddedPostgres(directory) as postgres, EmbeddedValkey(directory) as valkey:
        settings = load_settings(_env_file=None, database_url=postgres.url())
        connection = await connect(settings, "bench")
        await migrate(connection)
        facts = await _make_facts(connection, options.leads, options.locations, console)
        queries = await _queries(connection, settings, options.rounds)
        naive = min([await _naive(connection, settings, 30) for _ in range(3)])
        projected, refreshed = await _refreshes(connection, settings, options.rounds)
        key = await create_key(connection, "bench", ["read"], ["*"])
        service = _serve(
            {
                "DATABASE_URL": postgres.url(),
                "REDIS_URL": valkey.url(),
                "SPOOL_PATH": str(directory / "spool.sqlite3"),
                "DASHBOARD_CACHE_TTL": "600",
                "API_REQUESTS_PER_MINUTE": "1000000",
                "KPI_INTERVAL": "600",
            },
            directory,
        )
        try:
            url = f"http://127.0.0.1:{_PORT}"
            await _until_ready(url)
            # Its first refresh is over then.
            await asyncio.sleep(5)
            fresh, kept = await _over_http(url, key, options.requests)
        finally:
            service.terminate()
            service.wait(20)
        await connection.close()
    together = [sum(each) for each in zip(*queries.values(), strict=True)]
    slowest = max(queries, key=lambda name: percentile(queries[name], 0.9))
    table = Table(
        title=f"{options.leads:,} leads, {facts:,} facts, {options.locations} locations; ms"
    )
    for head in ("what", "p50", "p90", "p99"):
        table.add_column(head, justify="left" if head == "what" else "right")
    for what, values in (
        (f"KPI query, the slowest: {slowest} (1 location, 4 windows)", queries[slowest]),
        (
            "all KPI queries of 1 location, 4 windows",
            together,
        ),
        ("dashboard over HTTP, computed", fresh),
        ("dashboard over HTTP, kept in Redis", kept),
        ("projection of 1,000 new events", projected),
        ("refresh of all locations after them", refreshed),
    ):
        cells = [f"{percentile(values, share):,.1f}" for share in (0.5, 0.9, 0.99)]
        table.add_row(what, *cells)
    console.print(table)
    half = percentile(fresh, 0.5)
    console.print(f"naively from the facts, 1 location, 30 days: {naive:,.0f} ms")
    console.print(f"ratio  dashboard computed / naive: {half / naive:.3f}")
    console.print(f"ratio  dashboard kept / computed: {percentile(kept, 0.5) / half:.3f}")


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession(url) as session:
        for _ in range(200):
            try:
                async with session.get("/-/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise RuntimeError("the service does not start")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leads", type=parse_size, default=1_000_000, help="10k, 1m (1m)")
    parser.add_argument("--locations", type=int, default=20)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ghl-exporter-dashboard-") as directory:
        asyncio.run(_measure(options, Console(width=110), Path(directory)))


if __name__ == "__main__":
    main()
