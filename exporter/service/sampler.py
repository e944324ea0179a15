"""Sample what no event reports, in the background: backlog, quarantine, Redis, disk."""

import asyncio
from dataclasses import dataclass

import asyncpg
import structlog

from exporter.cache.redis import Cache
from exporter.database.availability import Availability
from exporter.database.errors import DATABASE_ERRORS
from exporter.inbox.history import read_missing_history
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
SELECT count(*) AS waiting_events,
       coalesce(greatest(extract(epoch FROM clock_timestamp() - min(received_at)), 0), 0)::float8
           AS oldest_event_age,
       (SELECT count(*) FROM quarantine) AS quarantined_events
FROM inbox_pending
"""
_LOCATIONS = "SELECT location_id FROM locations ORDER BY first_seen, location_id LIMIT $1"
_ERASED = "SELECT location_id FROM erased_locations"


@dataclass(frozen=True)
class Sample:
    """What PostgreSQL last answered about the inbox. The age is in seconds, 0 without events."""

    waiting_events: int = 0
    oldest_event_age: float = 0.0
    quarantined_events: int = 0


class Sampler:
    """Samples the inbox and the service's dependencies, and keeps their gauges."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        cache: Cache,
        inbox: Inbox,
        metrics: LiveMetrics,
        fingerprint: str,
    ) -> None:
        """`fingerprint`: of the settings that facts should be made by."""
        self._fingerprint = fingerprint
        self.sample = Sample()
        self.missing_history: tuple[str, ...] = ()
        """What figures lack of the history, in words; empty while they are final."""
        self._pool = pool
        self._cache = cache
        self._inbox = inbox
        self._metrics = metrics
        self.availability = Availability("database_sample", "PostgreSQL answers no queries")
        self._knows_locations = False
        self._spool = inbox.spool
        metrics.spool.show(inbox.spool)
        metrics.database_up.set_function(lambda: self.database_up)
        metrics.backlog.set_function(lambda: self.sample.waiting_events)
        metrics.oldest_age.set_function(lambda: self.sample.oldest_event_age)
        metrics.quarantine.set_function(lambda: self.sample.quarantined_events)
        if metrics.redis_up is not None:
            metrics.redis_up.set_function(lambda: cache.availability.up)
        metrics.pool_connections.labels("idle").set_function(pool.get_idle_size)
        metrics.pool_connections.labels("in_use").set_function(
            lambda: pool.get_size() - pool.get_idle_size()
        )

    @property
    def database_up(self) -> bool:
        """Tell whether PostgreSQL takes commits and answers queries.

        The inbox only notices an outage when it commits, so the sampler queries it while idle.
        """
        return self._inbox.database_up and not self.availability.down

    async def run(self) -> None:
        """Sample for ever. What cannot be sampled keeps its last value."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample_all())
            # A task of its own, so that a disk that hangs delays no other sample.
            group.create_task(self._sample_spool())

    async def _sample_all(self) -> None:
        while True:
            await asyncio.gather(self._sample_database(), self._cache.look())
            await asyncio.sleep(_INTERVAL)

    async def _sample_database(self) -> None:
        try:
            async with self._pool.acquire(timeout=_TIMEOUT) as connection:
                row = await connection.fetchrow(_BACKLOG, timeout=_TIMEOUT)
                self.missing_history = await read_missing_history(
                    connection, self._fingerprint, _TIMEOUT
                )
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
            self.sample = Sample(**row)

    async def _sample_spool(self) -> None:
        """Use the spool now and then: during an outage it is too late to find its disk full."""
        while True:
            await asyncio.sleep(_SPOOL_INTERVAL)
            was_usable = self._spool.usable
            try:
                await self._spool.open()
            except SpoolUnavailable as error:
                raise_if_cancelled(error)
                if was_usable:
                    log.error("spool_unavailable", path=str(self._spool.path), error=error)
