"""The one copy that projects events and publishes KPIs: it holds an advisory lock while it does."""

import asyncio
import contextlib
import time

import asyncpg
import structlog

from exporter.cache.figures import DayFigures
from exporter.database.connect import UNAVAILABLE, connect
from exporter.database.locks import LEADER_LOCK
from exporter.inbox.partitions import create_partitions, drop_old_partitions
from exporter.kpis.refresh import KpiRefresher
from exporter.live.metrics import LiveMetrics
from exporter.projection.projector import Projector
from exporter.projection.rules import Rules
from exporter.projection.state import rebuild_is_due
from exporter.settings import Settings

log = structlog.get_logger()

# Seconds: between two tries to become the leader, and between two looks for new events.
_RETRY = 1.0
_POLL = 0.2
_PARTITION_CHECK = 3600.0
# A rebuild is another process's: this is how soon its end is noticed.
_REBUILD_CHECK = 5.0
# Changes that come together are set in Redis together.
_FIGURES_PAUSE = 0.5
# A statement of the leader may take this long; a lock that somebody holds for longer fails it.
_COMMAND_TIMEOUT = 60.0


class Leader:
    """Runs in every copy; works in the one that holds the lock, and takes over within seconds."""

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
        self._rules = Rules.from_settings(settings)

    async def run(self) -> None:
        """Follow or lead, for ever; survive every fault of the database."""
        while True:
            try:
                connection = await connect(
                    self._settings, "leader", command_timeout=_COMMAND_TIMEOUT
                )
            except UNAVAILABLE as error:
                log.debug("leader_waits", error=repr(error))
                await asyncio.sleep(_RETRY)
                continue
            try:
                await self._follow(connection)
                await self._lead(connection)
            except* (*UNAVAILABLE, asyncpg.PostgresError) as group:
                log.warning("leader_lost_database", error=repr(group.exceptions))
            finally:
                self._metrics.leader.set(0)
                # The lock goes with the connection, also where the server no longer answers.
                connection.terminate()
            await asyncio.sleep(_RETRY)

    async def _follow(self, connection: asyncpg.Connection) -> None:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LEADER_LOCK):
            self._kpis.forget()
            await asyncio.sleep(_RETRY)

    async def _lead(self, connection: asyncpg.Connection) -> None:
        self._metrics.leader.set(1)
        log.info("leader")
        await create_partitions(connection)
        if await self._look_whether_rebuild_is_due(connection):
            log.warning(
                "rebuild_due", why="the facts were made by other settings or an older version"
            )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._project(connection))
            group.create_task(self._refresh())
            group.create_task(self._publish_figures())

    async def _look_whether_rebuild_is_due(self, connection: asyncpg.Connection) -> bool:
        due = await rebuild_is_due(connection, self._rules)
        self._metrics.rebuild_due.set(due)
        return due

    async def _project(self, connection: asyncpg.Connection) -> None:
        projector = Projector(
            connection, self._rules, self._metrics, self._settings.projection_batch_size
        )
        partitions_at = looked_at = time.monotonic()
        while True:
            if await projector.step():
                self._changed.set()
            else:
                await asyncio.sleep(_POLL)
            if time.monotonic() - looked_at > _REBUILD_CHECK:
                looked_at = time.monotonic()
                await self._look_whether_rebuild_is_due(connection)
            if time.monotonic() - partitions_at > _PARTITION_CHECK:
                partitions_at = time.monotonic()
                await create_partitions(connection)
                if self._settings.inbox_retention_days is not None:
                    await drop_old_partitions(connection, self._settings.inbox_retention_days)

    async def _refresh(self) -> None:
        while True:
            started = time.monotonic()
            # Without the database the snapshot stays as it is, and its age tells.
            with contextlib.suppress(*UNAVAILABLE):
                await self._kpis.refresh()
            elapsed = time.monotonic() - started
            await asyncio.sleep(max(self._settings.kpi_interval - elapsed, 0.05))

    async def _publish_figures(self) -> None:
        """Set the day's figures in Redis after each change, and now and then without one."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.kpi_interval):
                    await self._changed.wait()
            self._changed.clear()
            started = time.monotonic()
            if self._figures.usable:
                with contextlib.suppress(*UNAVAILABLE):
                    async with self._pool.acquire(timeout=_RETRY) as connection:
                        await self._figures.publish(connection)
            # Many locations take longer, and shall not take all the time there is.
            await asyncio.sleep(max(_FIGURES_PAUSE, 4 * (time.monotonic() - started)))
