"""Project events and publish KPIs in one instance at a time: the one that holds the lease."""

import asyncio
import time

import asyncpg
import structlog

from exporter.database.availability import Availability
from exporter.database.errors import DATABASE_ERRORS
from exporter.inbox.partitions import create_partitions, drop_old_partitions
from exporter.kpis.refresh import KpiRefresher
from exporter.projection.fact_settings import FactSettings
from exporter.projection.fact_version import rebuild_is_due
from exporter.projection.projector import Projector
from exporter.publishing.day_figures import DayFigures
from exporter.service.lease import LeaderSession, Lease
from exporter.settings import Settings
from exporter.support.tasks import end_tasks, ignoring
from exporter.telemetry.metrics import LiveMetrics, gauge_value

log = structlog.get_logger()

# Seconds: between two tries to become the leader (the first ones come sooner, for most faults are
# short), and between two looks for new events.
_FIRST_PAUSE = 0.1
_RETRY = 1.0
_POLL = 0.2
_PARTITION_CHECK = 3600.0
# A rebuild is another process's: this is how soon its end is noticed.
_REBUILD_CHECK = 5.0
# Changes that come together are set in Redis together.
_FIGURES_PAUSE = 0.5
# A statement of the leader may take this long; a lock that somebody holds for longer fails it.
_COMMAND_TIMEOUT = 60.0
# Seconds that the tasks of a term get to end.
_END_WITHIN = 5.0


class Leader:
    """Runs in every instance; works in the one that holds the lease, and takes over from it."""

    def __init__(
        self,
        settings: Settings,
        pool: asyncpg.Pool,
        kpis: KpiRefresher,
        figures: DayFigures,
        metrics: LiveMetrics,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._figures = figures
        self._changed = asyncio.Event()
        self._kpis = kpis
        self._metrics = metrics
        self._fact_settings = FactSettings.from_settings(settings)
        self._lease: Lease | None = None
        self._pause = _FIRST_PAUSE
        self.availability = Availability("leader", "This instance can't lead")
        self.kpi_database = Availability("kpi_refresh", "KPIs can't be computed")
        metrics.leader.set_function(lambda: self.leads)
        kpis.publish_while(lambda: self.publishes)

    async def run(self) -> None:
        """Follow or lead, for ever; survive every fault of the database."""
        while True:
            with ignoring(*DATABASE_ERRORS, report=self._lost):
                await self._serve_a_term()
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _RETRY)

    @property
    def leads(self) -> bool:
        """Tell whether this instance leads, as far as PostgreSQL has confirmed it."""
        return self._lease is not None and self._lease.held

    @property
    def publishes(self) -> bool:
        """Tell whether KPIs of this instance may be shown.

        While PostgreSQL is away nobody leads. The last leader then keeps showing its last figures,
        with their age, unless another instance was there that may lead by now.
        """
        return self.leads or (self._lease is not None and self._lease.alone)

    def _works(self, *, leads: bool) -> None:
        if leads and not self.availability.up:
            log.info("leader")
        self.availability.found()
        self._pause = _FIRST_PAUSE

    def _lost(self, error: BaseException) -> None:
        self.availability.failed(error)

    async def _serve_a_term(self) -> None:
        session = await LeaderSession.open(self._settings, _COMMAND_TIMEOUT)
        try:
            while not await session.try_to_lock():
                self._works(leads=False)
                self._lease = None
                self._kpis.forget()
                await asyncio.sleep(_RETRY)
            self._lease = Lease(self._settings, session)
            await self._lead(session, self._lease)
        finally:
            session.end()

    async def _lead(self, session: LeaderSession, lease: Lease) -> None:
        await create_partitions(session.connection)
        await self._look_whether_rebuild_is_due(session.connection)
        tasks = [
            asyncio.create_task(work)
            for work in (
                lease.confirm(),
                self._project(session, lease),
                self._refresh(lease),
                self._publish_figures(lease),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # What they still write after this goes nowhere: its session has ended.
            lease.end()
            if not await end_tasks(tasks, within=_END_WITHIN):
                log.error("leader_tasks_do_not_end")
        for task in done:
            if not task.cancelled():
                task.result()

    async def _look_whether_rebuild_is_due(self, connection: asyncpg.Connection) -> None:
        due = await rebuild_is_due(connection, self._fact_settings)
        if due and not gauge_value(self._metrics.rebuild_due):
            log.warning(
                "rebuild_due", why="the facts were made by other settings or an older version"
            )
        self._metrics.rebuild_due.set(due)

    async def _project(self, session: LeaderSession, lease: Lease) -> None:
        connection = session.connection
        projector = Projector(
            connection, self._fact_settings, self._metrics, self._settings.projection_batch_size
        )
        partitions_at = looked_at = time.monotonic()
        while lease.held:
            projected = await projector.step()
            self._works(leads=True)
            if projected:
                self._changed.set()
            else:
                await asyncio.sleep(_POLL)
            if time.monotonic() - looked_at > _REBUILD_CHECK:
                looked_at = time.monotonic()
                await session.check()
                await self._look_whether_rebuild_is_due(connection)
            if time.monotonic() - partitions_at > _PARTITION_CHECK:
                partitions_at = time.monotonic()
                await create_partitions(connection)
                if self._settings.inbox_retention_days is not None:
                    await drop_old_partitions(connection, self._settings.inbox_retention_days)

    async def _refresh(self, lease: Lease) -> None:
        while lease.held:
            started = time.monotonic()
            # Without the database the snapshot stays as it is, and its age tells.
            with ignoring(*DATABASE_ERRORS, report=self._refresh_failed):
                await self._kpis.refresh()
                self.kpi_database.found()
            elapsed = time.monotonic() - started
            await asyncio.sleep(max(self._settings.kpi_interval - elapsed, 0.05))

    def _refresh_failed(self, error: BaseException) -> None:
        self.kpi_database.failed(error)

    async def _publish_figures(self, lease: Lease) -> None:
        """Set the day's figures in Redis after each change, and now and then without one."""
        while lease.held:
            with ignoring(TimeoutError):
                async with asyncio.timeout(self._settings.kpi_interval):
                    await self._changed.wait()
            self._changed.clear()
            started = time.monotonic()
            if self._figures.usable:
                with ignoring(*DATABASE_ERRORS):
                    async with self._pool.acquire(timeout=_RETRY) as connection:
                        await self._figures.publish(connection, lambda: lease.held)
            # Many locations take longer, and shall not take all the time there is.
            await asyncio.sleep(max(_FIGURES_PAUSE, 4 * (time.monotonic() - started)))
