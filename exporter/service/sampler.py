"""Sample, in the background, what no event tells of: backlog, quarantine, Redis, disk."""

import asyncio

import asyncpg
import structlog

from exporter.cache.redis import Cache
from exporter.database.availability import Availability
from exporter.database.errors import DATABASE_ERRORS
from exporter.inbox.history import read_lacks
from exporter.inbox.inbox import Inbox
from exporter.inbox.spool import SpoolUnavailable
from exporter.support.tasks import raise_if_cancelled
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

_INTERVAL = 3.0
_TIMEOUT = 2.0
# Seconds. Each time a little is written to the disk.
_SPOOL_INTERVAL = 10.0

_BACKLOG = """
SELECT count(*) AS events,
       coalesce(greatest(extract(epoch FROM clock_timestamp() - min(received_at)), 0), 0) AS oldest,
       (SELECT count(*) FROM quarantine) AS quarantined
FROM inbox_pending
"""
_LOCATIONS = "SELECT location_id FROM locations ORDER BY first_seen, location_id LIMIT $1"
_ERASED = "SELECT location_id FROM erased_locations"


class Watch:
    """Keeps the gauges of the inbox and of what the service stands on."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        cache: Cache,
        inbox: Inbox,
        metrics: LiveMetrics,
        fingerprint: str,
    ) -> None:
        """`fingerprint`: of the rules that facts should be made by."""
        self._fingerprint = fingerprint
        self.lacks: tuple[str, ...] = ()
        """What figures lack, in words."""
        self._pool = pool
        self._cache = cache
        self._metrics = metrics
        self.availability = Availability("database_sample", "PostgreSQL answers no questions")
        self._knows_locations = False
        self._spool = inbox.spool
        metrics.spool.show(inbox.spool)
        # The inbox only notices an outage when it commits, so the database is asked while idle too.
        metrics.database_up.set_function(lambda: inbox.database_up and not self.availability.down)
        metrics.pool_connections.labels("idle").set_function(pool.get_idle_size)
        metrics.pool_connections.labels("in_use").set_function(
            lambda: pool.get_size() - pool.get_idle_size()
        )

    async def run(self) -> None:
        """Sample for ever. What can't be asked keeps its last value."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample_all())
            # Apart, so that a disk that hangs stops no other sample.
            group.create_task(self._sample_spool())

    async def _sample_all(self) -> None:
        while True:
            await asyncio.gather(self._sample_database(), self._sample_redis())
            await asyncio.sleep(_INTERVAL)

    async def _sample_database(self) -> None:
        try:
            async with self._pool.acquire(timeout=_TIMEOUT) as connection:
                row = await connection.fetchrow(_BACKLOG, timeout=_TIMEOUT)
                self.lacks = await read_lacks(connection, self._fingerprint, _TIMEOUT)
                erased = await connection.fetch(_ERASED, timeout=_TIMEOUT)
                self._metrics.forget_locations(frozenset(row["location_id"] for row in erased))
                if not self._knows_locations:
                    limit = self._metrics.location_limit
                    known = await connection.fetch(_LOCATIONS, limit, timeout=_TIMEOUT)
                    self._metrics.create_location_children([row["location_id"] for row in known])
                    self._knows_locations = True
        except DATABASE_ERRORS as error:
            raise_if_cancelled(error)
            self.availability.failed(error)
            return
        self.availability.found()
        if row is not None:
            self._metrics.backlog.set(row["events"])
            self._metrics.oldest_age.set(row["oldest"])
            self._metrics.quarantine.set(row["quarantined"])

    async def _sample_spool(self) -> None:
        """Use the spool now and then: an outage is too late to learn that its disk is full."""
        while True:
            await asyncio.sleep(_SPOOL_INTERVAL)
            was_usable = self._spool.usable
            try:
                await self._spool.open()
            except SpoolUnavailable as error:
                raise_if_cancelled(error)
                if was_usable:
                    log.error("spool_unavailable", path=str(self._spool.path), error=error)

    async def _sample_redis(self) -> None:
        if self._cache.set_up and self._metrics.redis_up is not None:
            self._metrics.redis_up.set(await self._cache.look())
