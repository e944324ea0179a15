"""Project pending events of the inbox exactly once, and quarantine invalid ones."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime

import asyncpg
import structlog

from exporter.database.errors import blames_a_row
from exporter.database.locks import PROJECTION_LOCK
from exporter.domain.event import GHL, WORKFLOW, StoredEvent
from exporter.projection.batch import Counts, describe, project_batch
from exporter.projection.fact_settings import FactSettings
from exporter.support.tasks import raise_if_cancelled
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

_PENDING = """
SELECT p.id, i.location_id, i.received_at, i.source, i.endpoint, i.event_type, i.idempotency_key,
       i.body
FROM (SELECT id, location_id, received_at FROM inbox_pending ORDER BY id LIMIT $1) p
LEFT JOIN inbox i USING (location_id, id, received_at)
ORDER BY p.id
"""


class Projector:
    """Projects batches on one connection, which must be the only one that does."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        fact_settings: FactSettings,
        metrics: LiveMetrics,
        batch_size: int,
    ) -> None:
        self._connection = connection
        self._fact_settings = fact_settings
        self._metrics = metrics
        self._batch_size = batch_size
        self._limit = batch_size
        self._errors: dict[int, str] = {}
        self._projecting = False

    async def step(self) -> int:
        """Project the oldest pending events and return how many left the queue.

        An event that breaks its batch is found by halving the batches, and set aside with its
        error. A batch that takes longer than a statement may (`statement_timeout`) is halved too.
        Raises errors that no event causes: most of `DATABASE_ERRORS`.
        """
        started = time.monotonic()
        try:
            ids, events, counts = await self._project()
        except Exception as error:  # whatever one event provokes must not stop the others
            raise_if_cancelled(error)
            if not blames_a_row(error) and not self._took_too_long(error):
                raise
            if self._limit > 1:
                self._limit //= 2
                if self._took_too_long(error):
                    log.warning("projection_too_slow", next_batch=self._limit)
                return 1
            if isinstance(error, TimeoutError):
                raise  # one event alone is never that slow: the server is
            await self._quarantine(error)
            return 1
        if not ids:
            return 0
        self._limit = min(self._batch_size, self._limit * 2)
        self._errors.clear()
        self._count(counts, events, time.monotonic() - started)
        return len(ids)

    def _took_too_long(self, error: Exception) -> bool:
        """Tell whether a statement that projects was cancelled, which fewer events can avoid.

        Waiting for the projection's lock can be cancelled as well, and is no event's fault.
        """
        return (
            self._projecting
            and isinstance(error, asyncpg.QueryCanceledError | TimeoutError)
            and not self._connection.is_closed()
        )

    async def _project(self) -> tuple[list[int], list[StoredEvent], Counts]:
        self._projecting = False
        async with self._connection.transaction():
            # A rebuild writes to the tables under the same lock.
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", PROJECTION_LOCK)
            self._projecting = True
            rows = await self._connection.fetch(_PENDING, self._limit)
            ids = [row["id"] for row in rows]
            # A body that was dropped by age reports nothing any more.
            events = [
                StoredEvent(
                    row["location_id"],
                    row["id"],
                    row["received_at"],
                    row["source"],
                    row["endpoint"],
                    row["event_type"],
                    row["idempotency_key"],
                    row["body"],
                )
                for row in rows
                if row["body"] is not None
            ]
            counts = Counts()
            if ids:
                counts = await project_batch(
                    self._connection, events, self._fact_settings, self._errors
                )
                await self._connection.execute("DELETE FROM inbox_pending WHERE id = ANY($1)", ids)
        return ids, events, counts

    async def _quarantine(self, error: Exception) -> None:
        """Record that the oldest pending event fails on its own, with this error."""
        number = await self._connection.fetchval("SELECT min(id) FROM inbox_pending")
        if number is None or number in self._errors:
            # Setting it aside failed as well: that is no fault of the event.
            raise error
        self._errors[number] = describe(error)
        log.error("event_quarantined", inbox_id=number, error=error)

    def _count(self, counts: Counts, events: Iterable[StoredEvent], seconds: float) -> None:
        for outcome in ("projected", "ignored", "quarantined"):
            self._metrics.projected.labels(outcome).inc(getattr(counts, outcome))
        for (location_id, event_type, failed), count in counts.webhooks.items():
            outcome = "quarantined" if failed else "success"
            self._metrics.finish(location_id, event_type, outcome, count)
        now = datetime.now(UTC)
        for event in events:
            # An import and the platform's late calls waited elsewhere.
            if event.source not in (GHL, WORKFLOW):
                continue
            self._metrics.projection_delay.observe((now - event.received_at).total_seconds())
        self._metrics.projection_duration.observe(seconds)
