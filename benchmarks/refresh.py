"""One KPI refresh after 1,000 new events, with ever more history behind it, in one run.

    python -m benchmarks.refresh [--sizes 10k 1m 5m] [--rounds 5] [--events 1000]

The simulated agency's history grows in one database, through the inbox and the projection, from
the oldest day on. At each size, rounds of new events are stored, and then timed: their projection,
the refresh of every KPI for every location and window, and beside it the same KPIs computed
naively, that is with the windows' roll-ups made from the facts each time. Medians count.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from exporter.database.connect import connect, create_pool
from exporter.database.migrations import migrate
from exporter.demo.agency import DEMO_PIPELINE_STAGES, DEMO_TIME_ZONES, Agency, Delivery
from exporter.demo.servers import EmbeddedPostgres
from exporter.demo.traffic import as_received
from exporter.inbox.partitions import create_partitions
from exporter.inbox.store import insert_events
from exporter.kpis.definitions import all_kpis
from exporter.kpis.refresh import KpiRefresher, query_kpi
from exporter.kpis.windows import windows
from exporter.projection.fact_settings import FactSettings
from exporter.projection.projector import Projector
from exporter.projection.rollups import ROLLUPS, TouchedCells
from exporter.settings import Settings, load_settings
from exporter.telemetry.metrics import LiveMetrics

_STORE_BATCH = 2000
_LONGEST_WINDOW = 90
# What the agency sends on a mean day; the history begins early enough for the largest size.
_EVENTS_A_DAY = 2250
_SUFFIXES = {"k": 1_000, "m": 1_000_000}


@dataclass
class Timings:
    """Seconds of each round at one size of history."""

    events: int
    first_day: str
    last_day: str
    projection: list[float] = field(default_factory=list)
    refresh: list[float] = field(default_factory=list)
    naive: list[float] = field(default_factory=list)


class History:
    """A database whose history grows."""

    def __init__(self, settings: Settings, connection: asyncpg.Connection, size: int) -> None:
        self._settings = settings
        self._connection = connection
        self.start = datetime.now(UTC) - timedelta(days=size / _EVENTS_A_DAY + 30)
        agency = Agency(seed=1)
        self._coming: Iterator[Delivery] = iter(
            agency.deliveries(self.start, datetime.now(UTC) + timedelta(days=3650))
        )
        self._setup = list(agency.setup(self.start))
        self._projector = Projector(
            connection, FactSettings.from_settings(settings), LiveMetrics(), _STORE_BATCH
        )
        self.events = 0
        self.reached = self.start

    async def open(self) -> None:
        """Make the partitions, and store what installing the app tells."""
        await create_partitions(self._connection, self.start.date())
        await self._store(self._setup)

    async def _store(self, deliveries: list[Delivery]) -> None:
        await insert_events(self._connection, [as_received(one) for one in deliveries])
        self.events += len(deliveries)
        self.reached = deliveries[-1].at

    async def store(self, count: int) -> None:
        """Store the next events."""
        await self._store(await asyncio.to_thread(lambda: list(islice(self._coming, count))))

    async def project(self) -> None:
        """Project everything stored."""
        while await self._projector.step():
            pass

    async def grow(self, size: int, bar: Progress) -> None:
        """Go on until the history has `size` events, and let PostgreSQL tidy up."""
        task = bar.add_task(f"history {size:,}", total=size, completed=self.events)
        analyze_at = 2 * _STORE_BATCH
        while (missing := size - self.events) > 0:
            await self.store(min(_STORE_BATCH, missing))
            await self.project()
            bar.update(task, completed=self.events)
            # Tables grow faster here than the server looks at them by itself.
            if self.events >= analyze_at:
                analyze_at = self.events * 2
                await self._connection.execute("ANALYZE")
        await self._connection.execute("VACUUM ANALYZE")
        await self._connection.execute("CHECKPOINT")


async def _naive(connection: asyncpg.Connection, settings: Settings, at: datetime) -> None:
    """Compute every KPI with roll-ups made from the facts, for the days of the windows."""
    locations = list(DEMO_TIME_ZONES)
    chosen = windows(settings, locations, now=datetime.now(UTC), until=at.date())
    days = [at.date() - timedelta(days=back) for back in range(_LONGEST_WINDOW)]
    cells = {(location, day) for location in locations for day in days}
    async with connection.transaction():
        for name in ROLLUPS:
            # Found before the real one, by everything that names it.
            await connection.execute(
                f"CREATE TEMP TABLE {name} (LIKE public.{name}) ON COMMIT DROP"
            )
        await TouchedCells(cells).recompute(connection)
        for kpi in all_kpis():
            await query_kpi(
                connection, kpi, chosen, settings=settings, now=datetime.now(UTC), timeout=60
            )


async def _measure(options: argparse.Namespace, console: Console, directory: Path) -> None:
    results: list[Timings] = []
    with EmbeddedPostgres(directory) as postgres:
        settings = load_settings(
            _env_file=None,
            database_url=postgres.url(),
            time_zones=DEMO_TIME_ZONES,
            pipeline_stages=DEMO_PIPELINE_STAGES,
        )
        connection = await connect(settings, "bench")
        version = await connection.fetchval("SHOW server_version")
        await migrate(connection)
        history = History(settings, connection, max(options.sizes))
        await history.open()
        async with create_pool(settings, "bench") as pool:
            refresher = KpiRefresher(settings, pool, LiveMetrics())
            with _progress(console) as bar:
                for size in options.sizes:
                    await history.grow(size, bar)
                    results.append(await _rounds(history, refresher, connection, settings, options))
        await connection.close()
    _print(console, results, options, version)


async def _rounds(
    history: History,
    refresher: KpiRefresher,
    connection: asyncpg.Connection,
    settings: Settings,
    options: argparse.Namespace,
) -> Timings:
    timings = Timings(history.events, f"{history.start:%Y-%m-%d}", f"{history.reached:%Y-%m-%d}")
    # The first of each warms caches and connections.
    for number in range(options.rounds + 1):
        await history.store(options.events)
        began = time.perf_counter()
        await history.project()
        projected = time.perf_counter()
        snapshot = await refresher.refresh(until=history.reached.date())
        refreshed = time.perf_counter()
        await _naive(connection, settings, history.reached)
        ended = time.perf_counter()
        if len(snapshot.kpis) != len(all_kpis()):
            raise RuntimeError("a KPI failed")
        if number:
            timings.projection.append(projected - began)
            timings.refresh.append(refreshed - projected)
            timings.naive.append(ended - refreshed)
    return timings


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _print(
    console: Console, results: list[Timings], options: argparse.Namespace, version: str
) -> None:
    def milliseconds(values: list[float]) -> str:
        return f"{median(values) * 1000:,.0f}"

    table = Table(
        title=f"{len(DEMO_TIME_ZONES)} locations, windows of 1, 7, 30 and 90 days;"
        f" medians of {options.rounds} rounds, ms"
    )
    for column in (
        "history, events",
        "from",
        "until",
        f"project {options.events:,}",
        "refresh",
        "both",
        "naive refresh",
    ):
        table.add_column(column, justify="right")
    for one in results:
        both = [a + b for a, b in zip(one.projection, one.refresh, strict=True)]
        table.add_row(
            f"{one.events:,}",
            one.first_day,
            one.last_day,
            milliseconds(one.projection),
            milliseconds(one.refresh),
            milliseconds(both),
            milliseconds(one.naive),
        )
    console.print(table)
    console.print(f"PostgreSQL {version}, fsync on")
    first = results[0]
    for one in results[1:]:
        for what in ("projection", "refresh"):
            ratio = median(getattr(one, what)) / median(getattr(first, what))
            console.print(f"ratio  {what} at {one.events:,} / at {first.events:,}: {ratio:.2f}")
    for one in results:
        ratio = median(one.refresh) / median(one.naive)
        console.print(f"ratio  refresh / naive refresh at {one.events:,}: {ratio:.2f}")


def parse_size(text: str) -> int:
    """Read 10k, 1m or a plain number."""
    number, suffix = text.lower(), 1
    if number[-1:] in _SUFFIXES:
        number, suffix = number[:-1], _SUFFIXES[number[-1]]
    return round(float(number) * suffix)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes",
        type=parse_size,
        nargs="+",
        default=[10_000, 1_000_000, 5_000_000],
        help="events of history, growing: 10k 1m 5m",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1000, help="new ones in each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ghl-exporter-refresh-") as directory:
        asyncio.run(_measure(options, Console(width=110), Path(directory)))


if __name__ == "__main__":
    main()
