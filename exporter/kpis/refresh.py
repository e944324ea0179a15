"""Refresh the KPI snapshot: every KPI on its own, with a time-out, keeping its last values."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import structlog

from exporter.database.connect import Connection
from exporter.database.errors import reason_of
from exporter.inbox.history import read_missing_history
from exporter.kpis.definitions import OPTIONS, KpiFile, all_kpis
from exporter.kpis.snapshot import EMPTY, Rendered, Snapshot, render
from exporter.kpis.windows import EXPORTED_DAYS, Window, windows
from exporter.projection.fact_settings import FactSettings
from exporter.settings import Settings
from exporter.support.tasks import raise_if_cancelled
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

# Queries at one time: more would take PostgreSQL from the webhooks.
_CONCURRENCY = 2
_UNRANKED, _RANKED = False, True


async def query_kpi(
    connection: Connection,
    kpi: KpiFile,
    chosen: list[Window],
    *,
    settings: Settings,
    now: datetime,
    timeout: float,
    most_rows: int | None = None,
) -> list[asyncpg.Record]:
    """Run one KPI's query for some windows. `timeout` is in seconds.

    `most_rows`: of a ranked KPI, no more rows than this, and none above the limit of its label; a
    column `all_rows` says how many there are.
    """
    options = settings.model_dump(mode="json", include=set(OPTIONS))
    columns: list[list[Any]] = [list(column) for column in zip(*chosen, strict=True)]
    query = kpi.query
    if most_rows is not None:
        query = kpi.best_rows(settings.agent_series_limit, most_rows)
    records: list[asyncpg.Record] = await connection.fetch(
        query, *(columns or [[], [], [], []]), now, options, timeout=timeout
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
        self._failing: dict[str, str] = {}
        self._most_locations: int | None = None
        self.refreshed_at: datetime | None = None
        self._fingerprint = FactSettings.from_settings(settings).fingerprint()
        metrics.kpi_interval.set(settings.kpi_interval)
        metrics.history.show(lambda: self.snapshot.complete)
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

        While the facts are not of the whole history there is no grade, and the snapshot says so.
        Raises what the pool raises where the database is away.
        """
        now = datetime.now(UTC)
        async with self._pool.acquire(timeout=self._settings.kpi_timeout) as connection:
            locations, cut = await reported_locations(connection, self._settings)
            complete = await self._is_complete(connection)
        limit = self._settings.kpi_series_limit
        fits = self._most_locations or max(1, limit // (len(days) * _least_series()))
        while True:
            chosen = windows(self._settings, locations[:fits], now=now, until=until, days=days)
            fresh = await self._refresh_all(_UNRANKED, chosen, now)
            series = sum(rendered.series for rendered in fresh.values())
            shown = min(fits, len(locations))
            # Some room, so that a few series more don't cost a second round each time.
            self._most_locations = max(1, int(0.9 * limit * shown / series)) if series else None
            if series <= limit or shown <= 1:
                break
            fits = self._most_locations or 1
        fresh |= await self._refresh_all(_RANKED, chosen, now, max(limit - series, 0))
        if cut := cut + len(locations) - shown:
            self._metrics.label_values_cut.labels("location").inc(cut)
        async with self._pool.acquire(timeout=self._settings.kpi_timeout) as connection:
            complete = complete and await self._is_complete(connection)
        if not complete:
            fresh |= {kpi.name: render(kpi, []) for kpi in all_kpis() if kpi.is_grade}
        # Rendering takes seconds where there is much, in which webhooks come.
        merged = Snapshot({**self._snapshot.kpis, **fresh}, complete)
        self._snapshot = await asyncio.to_thread(merged.prepare)
        self._metrics.kpi_series.set(sum(one.series for one in self._snapshot.kpis.values()))
        if fresh:
            self.refreshed_at = now
        return self._snapshot

    async def _is_complete(self, connection: Connection) -> bool:
        timeout = self._settings.kpi_timeout
        return not await read_missing_history(connection, self._fingerprint, timeout)

    async def _refresh_all(
        self, ranked: bool, chosen: list[Window], now: datetime, most_series: int = 0
    ) -> dict[str, Rendered]:
        """Refresh the KPIs that are ranked, or those that are not. A KPI that fails is left out."""
        kpis = [kpi for kpi in all_kpis() if bool(kpi.ranked) is ranked]
        slots = asyncio.Semaphore(_CONCURRENCY)

        async def one(kpi: KpiFile) -> tuple[str, Rendered | None]:
            rows = most_series // len(kpis) // kpi.columns if ranked else None
            async with slots:
                return kpi.name, await self._refresh_one(kpi, chosen, now, rows)

        results = await asyncio.gather(*(one(kpi) for kpi in kpis))
        return {name: rendered for name, rendered in results if rendered is not None}

    async def _refresh_one(
        self, kpi: KpiFile, chosen: list[Window], now: datetime, most_rows: int | None
    ) -> Rendered | None:
        timeout = min(kpi.timeout or self._settings.kpi_timeout, self._settings.kpi_timeout)
        started = time.monotonic()
        try:
            async with self._pool.acquire(timeout=timeout) as connection:
                rows = await query_kpi(
                    connection,
                    kpi,
                    chosen,
                    settings=self._settings,
                    now=now,
                    timeout=timeout,
                    most_rows=most_rows,
                )
            rendered = await asyncio.to_thread(render, kpi, rows)
        except Exception as error:  # one KPI's fault is not the others'
            raise_if_cancelled(error)
            self._metrics.kpi_failures.labels(kpi.name).inc()
            self._log_failure(kpi.name, error)
            return None
        finally:
            self._metrics.kpi_duration.labels(kpi.name).set(time.monotonic() - started)
        self._failing.pop(kpi.name, None)
        self._metrics.kpi_last_success.labels(kpi.name).set(time.time())
        if rendered.dropped:
            self._metrics.kpi_rows_dropped.labels(kpi.name).inc(rendered.dropped)
        if rows and most_rows is not None and (cut := rows[0]["all_rows"] - len(rows)):
            self._metrics.label_values_cut.labels(kpi.ranked).inc(cut)
        return rendered

    def _log_failure(self, kpi: str, error: Exception) -> None:
        """Log a failure once, until the KPI succeeds again or fails for another reason."""
        reason = reason_of(error)
        # Without a database all of them fail; the leader logs why.
        away = isinstance(error, OSError) and not isinstance(error, TimeoutError)
        if not away and self._failing.get(kpi) != reason:
            log.warning("kpi_failed", kpi=kpi, error=reason)
        self._failing[kpi] = reason


def _least_series() -> int:
    """Return how many series a location has in a window if no KPI has labels of its own."""
    return sum(kpi.columns for kpi in all_kpis() if not kpi.ranked)
