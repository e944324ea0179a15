"""The inbox: accept an event durably, in PostgreSQL or, while that is away, in the spool."""

import asyncio
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

import asyncpg
import structlog

from exporter.database.availability import Availability
from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS
from exporter.domain.event import InboxEvent
from exporter.inbox.group_commit import GroupCommit
from exporter.inbox.spool import Spool, SpoolUnavailable
from exporter.inbox.store import insert_events
from exporter.settings import Settings
from exporter.support.error_text import describe_error
from exporter.support.tasks import end_tasks, ignoring, raise_if_cancelled
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

# A commit under way gets this long before its connection is given up, in seconds: the requests
# that wait for it have gone to the spool by then.
_COMMIT_TIMEOUT = 1.0
# A server can hang at any point of a connection's beginning.
_CONNECT_TIMEOUT = 5.0
# Draining may wait longer: nobody waits for it.
_DRAIN_TIMEOUT = 10.0
_DRAIN_PAUSE = 0.5
_DRAIN_BATCH = 500
_MAX_WAITING = 20_000
# Seconds. A commit that takes longer than this hangs, as far as the next request is concerned.
_STALLED = 0.5
# What a start may wait for the database, after the migration: webhooks wait for the start.
_FIRST_LOOK = 0.25
_END_WITHIN = 3.0


R = TypeVar("R")


class Outcome(StrEnum):
    """What became of an event that was accepted."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    SPOOLED = "spooled"


class Refused(Exception):
    """The event is stored nowhere: the sender has to come again."""


class Inbox:
    """Accepts events and drains the spool. `start` needs no database."""

    def __init__(self, settings: Settings, metrics: LiveMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.spool = Spool(
            settings.spool_path,
            settings.spool_max_bytes,
            refused=settings.fault("spool_path") is not None,
        )
        self.availability = Availability("database", "PostgreSQL takes no commits")
        self.fsync_off = False
        """Whether PostgreSQL has said that it does not wait for its disk."""
        self._looked = asyncio.Event()
        self._connections: set[asyncpg.Connection] = set()
        self._idle: list[asyncpg.Connection] = []
        self._commits: GroupCommit[InboxEvent, Outcome] = GroupCommit(
            self._commit, max_batch=settings.metrics_batch_size
        )
        self._spooling: GroupCommit[InboxEvent, None] = GroupCommit(
            self.spool.append, max_batch=settings.metrics_batch_size
        )
        self._drain_task: asyncio.Task[None] | None = None
        self._drain_batch_size = _DRAIN_BATCH
        self._drain_fault: str | None = None

    @property
    def database_up(self) -> bool:
        """Tell whether PostgreSQL took the last commit, or answered the last probe."""
        return self.availability.up

    async def start(self) -> None:
        """Open the spool, and begin to look for the database and to drain.

        Waits for the first look, but not for a database that hangs: webhooks can go to the spool.
        """
        try:
            await self.spool.open()
        except SpoolUnavailable as error:
            log.error("spool_unavailable", path=str(self.spool.path), error=error)
        self._commits.start(self._settings.database_writers)
        self._spooling.start()
        self._drain_task = asyncio.create_task(self._drain())
        with ignoring(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK):
                await self._looked.wait()

    async def stop(self) -> None:
        """Stop accepting; everything that was answered is on disk."""
        if self._drain_task is not None:
            await end_tasks([self._drain_task], within=_END_WITHIN)
        await self._commits.stop()
        await self._spooling.stop()
        for connection in tuple(self._connections):
            self._forget(connection)
        await self.spool.close()

    @property
    def _takes_commits(self) -> bool:
        """Tell whether a commit is worth waiting for; while one hangs, the spool is quicker."""
        return (
            self.database_up
            and len(self._commits) < _MAX_WAITING
            and self._commits.stalled_for < _STALLED
        )

    async def accept(
        self, event: InboxEvent, *, database_until: float, spool_until: float
    ) -> Outcome:
        """Return once the event is on disk; both limits are `time.monotonic()` values.

        Raises Refused where neither PostgreSQL nor the spool took it in time.
        """
        if self._takes_commits:
            future = self._commits.submit(event)
            # Whatever failed, a fault of our own too: the spool is another way.
            with ignoring(Exception):
                async with asyncio.timeout(database_until - time.monotonic()):
                    return await future
        try:
            async with asyncio.timeout(spool_until - time.monotonic()):
                await self._spooling.submit(event)
        except (SpoolUnavailable, TimeoutError) as error:
            raise Refused(str(error) or "the spool is too slow") from error
        return Outcome.SPOOLED

    async def accept_many(
        self, events: Sequence[InboxEvent], *, database_until: float, spool_until: float
    ) -> list[Outcome]:
        """Return once all events are on disk, as `accept` does for one.

        Raises Refused where that is not so for each of them; some of them may be.
        """
        outcomes: dict[int, Outcome] = {}
        if self._takes_commits:
            futures = [self._commits.submit(event) for event in events]
            outcomes = await _results(futures, database_until)
        left = [position for position in range(len(events)) if position not in outcomes]
        if left:
            spooled = await _results(
                [self._spooling.submit(events[position]) for position in left], spool_until
            )
            if len(spooled) < len(left):
                raise Refused("neither PostgreSQL nor the spool took all of it in time")
            outcomes.update(dict.fromkeys(left, Outcome.SPOOLED))
        return [outcomes[position] for position in range(len(events))]

    async def _connect(self) -> asyncpg.Connection:
        """Return an idle connection, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._forget(connection)
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            connection = await connect(self._settings, "inbox")
            fsync = await connection.fetchval("SHOW fsync")
        if fsync == "off" and not self.fsync_off:
            log.error("fsync_off", why="what PostgreSQL commits could be lost in a crash")
        self.fsync_off = fsync == "off"
        self._connections.add(connection)
        return connection

    def _forget(self, connection: asyncpg.Connection) -> None:
        """Drop a connection at once: a polite close would wait for a server that is stuck."""
        self._connections.discard(connection)
        connection.terminate()

    async def _commit(self, events: Sequence[InboxEvent]) -> list[Outcome]:
        """Commit one batch. Any failure of the database sends the batch to the spool."""
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT):
                connection = await self._connect()
        except DATABASE_ERRORS as error:
            self._lost(error)
            raise
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT):
                new = await insert_events(connection, events)
        except (asyncpg.DataError, asyncpg.ProgramLimitExceededError):
            # One event that PostgreSQL refuses must not hold up the others; the spool keeps them
            # and the drain finds out which one it is.
            self._idle.append(connection)
            raise
        except DATABASE_ERRORS as error:
            self._forget(connection)
            self._lost(error)
            raise
        except BaseException:
            self._forget(connection)
            raise
        self._idle.append(connection)
        self._metrics.group_commit_events.observe(len(events))
        return [
            Outcome.STORED if position in new else Outcome.DUPLICATE
            for position in range(len(events))
        ]

    def _lost(self, error: Exception) -> None:
        self.availability.failed(error)
        while self._idle:
            self._forget(self._idle.pop())
        # They would only wait for the same failure.
        self._commits.give_up_waiting(error)

    async def _drain(self) -> None:
        """Move spooled events into PostgreSQL, and find out when it is back."""
        while True:
            more = False
            try:
                more = await self._drain_once()
            except DATABASE_ERRORS as error:
                self._lost(error)
                raise_if_cancelled(error)
            except Exception as error:  # a fault here must not end draining for ever
                raise_if_cancelled(error)
                fault = describe_error(error)
                if fault != self._drain_fault:
                    log.exception("drain_failed", error=error)
                self._drain_fault = fault
            else:
                self._drain_fault = None
            self._looked.set()
            await asyncio.sleep(0 if more else _DRAIN_PAUSE)

    async def _drain_once(self) -> bool:
        """Drain a batch; return whether there is more."""
        more = False
        if not self.spool.usable:
            # A disk that is full, say, can still be drained.
            with ignoring(SpoolUnavailable):
                await self.spool.open()
        try:
            if self.spool.events:
                more = await self._drain_batch()
        except SpoolUnavailable as error:
            log.error("spool_unavailable", path=str(self.spool.path), error=error)
        # Also where the spool can't be read: PostgreSQL takes what comes new.
        if not self.database_up:
            await self._probe()
        return more

    async def _probe(self) -> None:
        connection = await self._connect()
        try:
            # The work itself, with nothing in it: it also finds out what the role may not do.
            async with asyncio.timeout(_COMMIT_TIMEOUT):
                await insert_events(connection, [])
        except BaseException:
            self._forget(connection)
            raise
        self._found(connection)

    def _found(self, connection: asyncpg.Connection) -> None:
        self._idle.append(connection)
        self.availability.found(spooled=self.spool.events)

    async def _drain_batch(self) -> bool:
        records = await self.spool.oldest(self._drain_batch_size)
        if not records:
            return False
        connection = await self._connect()
        done = [number for number, _ in records]
        refused: dict[int, str] = {}
        try:
            try:
                async with asyncio.timeout(_DRAIN_TIMEOUT):
                    await insert_events(connection, [event for _, event in records])
            except (asyncpg.DataError, asyncpg.ProgramLimitExceededError):
                done, refused = await self._insert_singly(connection, records)
        except (asyncpg.QueryCanceledError, TimeoutError):
            # More than a statement's time allows: fewer may fit.
            self._drain_batch_size = max(1, len(records) // 2)
            self._forget(connection)
            raise
        except BaseException:
            self._forget(connection)
            raise
        self._drain_batch_size = min(_DRAIN_BATCH, 2 * self._drain_batch_size)
        self._found(connection)
        # Killed before this line, the records are drained again: their keys are known.
        await self.spool.remove(done)
        for number, problem in refused.items():
            await self.spool.put_aside(number, problem)
        return self.spool.events > 0

    async def _insert_singly(
        self, connection: asyncpg.Connection, records: Sequence[tuple[int, InboxEvent]]
    ) -> tuple[list[int], dict[int, str]]:
        """Return the numbers of what PostgreSQL took, and of what it refuses with the reason."""
        done: list[int] = []
        refused: dict[int, str] = {}
        for number, event in records:
            try:
                async with asyncio.timeout(_DRAIN_TIMEOUT):
                    await insert_events(connection, [event])
            except (asyncpg.DataError, asyncpg.ProgramLimitExceededError) as error:
                refused[number] = f"PostgreSQL refuses it: {describe_error(error)}"
            else:
                done.append(number)
        return done, refused


async def _results(futures: Sequence[asyncio.Future[R]], until: float) -> dict[int, R]:
    """Return, by position, what came of the futures that succeeded in time; give up the others."""
    await asyncio.wait(futures, timeout=max(until - time.monotonic(), 0))
    results = {}
    for position, future in enumerate(futures):
        if not future.done():
            future.cancel()
        elif not future.cancelled() and future.exception() is None:
            results[position] = future.result()
    return results
