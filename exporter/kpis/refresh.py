"""Refresh the KPI snapshot: every KPI on its own, with a time-out, keeping its last values."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import structlog

from exporter.database.connect import Connection
from exporter.kpis.definitions import OPTIONS, KpiFile, all_kpis
from exporter.kpis.snapshot import EMPTY, Rendered, Snapshot, render
from exporter.kpis.windows import EXPORTED_DAYS, Window, windows
from exporter.live.metrics import LiveMetrics
from exporter.settings import Settings

log = structlog.get_logger()

# Queries at one time: more would take PostgreSQL from the webhooks.
_CONCURRENCY = 2


async def query_kpi(
    connection: Connection,
    kpi: KpiFile,
    chosen: list[Window],
    *,
    settings: Settings,
    now: datetime,
    timeout: float,
) -> list[asyncpg.Record]:
    """Run one KPI's query for some windows. `timeout` is in seconds."""
    options = settings.model_dump(mode="json", include=set(OPTIONS))
    columns: list[list[Any]] = [list(column) for column in zip(*chosen, strict=True)]
    records: list[asyncpg.Record] = await connection.fetch(
        kpi.query, *(columns or [[], [], [], []]), now, options, timeout=timeout
    )
    return records


async def reported_locations(connection: Connection, settings: Settings) -> tuple[list[str], int]:
    """Return the locations that have series, and how many more there are than the limit."""
    if settings.ghl_location_id:
        return sorted(settings.ghl_location_id), 0
    limit = settings.location_series_limit
    rows = await connection.fetch(
        "SELECT location_id FROM locations ORDER BY first_seen, location_id LIMIT $1", limit
    )
    cut = 0
    if len(rows) == limit:
        cut = await connection.fetchval("SELECT count(*) FROM locations") - limit
    return [row["location_id"] for row in rows], cut


class KpiRefresher:
    """Holds the snapshot and makes the next one."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool, metrics: LiveMetrics) -> None:
        self._settings = settings
        self._pool = pool
        self._metrics = metrics
        self._snapshot: Snapshot = EMPTY
        self._may_publish: Callable[[], bool] = lambda: True
        self.refreshed_at: datetime | None = None
        metrics.kpi_interval.set(settings.kpi_interval)
        metrics.create_kpi_children([kpi.name for kpi in all_kpis()])

    def publish_while(self, condition: Callable[[], bool]) -> None:
        """Show the snapshot only while a condition holds: that this instance leads."""
        self._may_publish = condition

    @property
    def snapshot(self) -> Snapshot:
        """The KPIs that may be shown now."""
        return self._snapshot if self._may_publish() else EMPTY

    def forget(self) -> None:
        """Publish no KPIs: another instance does."""
        self._snapshot = EMPTY
        self.refreshed_at = None

    async def refresh(
        self, *, until: date | None = None, days: tuple[int, ...] = EXPORTED_DAYS
    ) -> Snapshot:
        """Compute every KPI and swap the snapshot in. A KPI that fails keeps its last values.

        Raises what the pool raises where the database is away.
        """
        now = datetime.now(UTC)
        async with self._pool.acquire(timeout=self._settings.kpi_timeout) as connection:
            locations, cut = await reported_locations(connection, self._settings)
        if cut:
            self._metrics.label_values_cut.labels("location").inc(cut)
        chosen = windows(self._settings, locations, now=now, until=until, days=days)
        slots = asyncio.Semaphore(_CONCURRENCY)

        async def one(kpi: KpiFile) -> tuple[str, Rendered | None]:
            async with slots:
                return kpi.name, await self._refresh_one(kpi, chosen, now)

        results = await asyncio.gather(*(one(kpi) for kpi in all_kpis()))
        fresh = {name: rendered for name, rendered in results if rendered is not None}
        self._snapshot = Snapshot({**self._snapshot.kpis, **fresh}).prepare()
        if fresh:
            self.refreshed_at = now
        return self._snapshot

    async def _refresh_one(
        self, kpi: KpiFile, chosen: list[Window], now: datetime
    ) -> Rendered | None:
        timeout = min(kpi.timeout or self._settings.kpi_timeout, self._settings.kpi_timeout)
        started = time.monotonic()
        try:
            async with self._pool.acquire(timeout=timeout) as connection:
                rows = await query_kpi(
                    connection, kpi, chosen, settings=self._settings, now=now, timeout=timeout
                )
            rendered = render(kpi, rows, self._settings.agent_series_limit)
        except Exception as error:  # one KPI's fault is not the others'
            self._metrics.kpi_failures.labels(kpi.name).inc()
            log.warning("kpi_failed", kpi=kpi.name, error=repr(error))
            return None
        finally:
            self._metrics.kpi_duration.labels(kpi.name).set(time.monotonic() - started)
        self._metrics.kpi_last_success.labels(kpi.name).set(time.time())
        if rendered.dropped:
            self._metrics.kpi_rows_dropped.labels(kpi.name).inc(rendered.dropped)
        if rendered.cut:
            self._metrics.label_values_cut.labels(kpi.ranked).inc(rendered.cut)
        return rendered
