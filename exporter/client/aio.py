"""The client for programs with event loops."""

import asyncio
import concurrent.futures
import logging
import weakref
from collections.abc import Callable, Generator
from datetime import date
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from .errors import ClientError
from .questions import HEALTH, Asks, Question
from .tracking import TracksCalls
from .types import Id
from .worker import Worker

T = TypeVar("T")


class Ready(Generic[T]):
    """A value that is there already, for callers that await it as well as for those that don't."""

    def __init__(self, value: T) -> None:
        self.value = value

    def __await__(self) -> Generator[None, None, T]:
        return self.value
        yield  # makes this a generator, which an awaitable needs

    def __bool__(self) -> bool:
        return bool(self.value)


class AsyncClient(Asks, TracksCalls[Ready[bool], Ready[str]]):
    """Track and ask, from any event loop, from several, and from none.

    `location_id`: where a call or a question names none. `queue_size`: calls that may wait; beyond
    it calls are dropped and counted. `timeout`: seconds that one request may take.
    `raise_errors`: raise ClientError instead of returning False or None. Raises ArgumentError
    where one of these is wrong.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        location_id: Id | None = None,
        queue_size: int = 100_000,
        timeout: float = 10.0,
        raise_errors: bool = False,
    ) -> None:
        self._set_up(Worker(url, key, queue_size, timeout), location_id, raise_errors)
        weakref.finalize(self, self._worker.retire).atexit = False

    async def start(self) -> None:
        """Begin to send; also again after a close. The first call does so too."""
        self._worker.start()

    async def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything is with the exporter; return False after `timeout` seconds."""
        try:
            return await _result(self._worker.drained(timeout), timeout)
        except ClientError:
            return False

    async def close(self, timeout: float = 5.0) -> None:
        """Send what waits for at most `timeout` seconds; what is left is lost, logged, counted."""
        if not self._worker.seal():
            return
        try:
            if self._worker.stats.waiting:
                await self.flush(timeout)
        finally:
            ended = self._worker.finish()
        try:
            await _result(ended, 0)
        except ClientError:
            return

    async def __aenter__(self) -> "AsyncClient":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _queued(self, queued: bool) -> Ready[bool]:
        return Ready(queued)

    def _tracking_id(self, tracking_id: str) -> Ready[str]:
        return Ready(tracking_id)

    async def get_executive_dashboard_metrics(
        self,
        location_id: Id | None = None,
        days: int = 30,
        *,
        until: str | date | None = None,
        include_trends: bool = False,
    ) -> dict[str, Any] | None:
        """Return the dashboard, rates in percent; None where it can't be had."""
        return await self._ask(lambda: self._dashboard(location_id, days, until, include_trends))

    async def get_business_dashboard_metrics(
        self, location_id: Id | None = None, days: int = 30
    ) -> dict[str, Any] | None:
        """Return the summary, rates in percent; None where it can't be had."""
        return await self._ask(lambda: self._summary(location_id, days))

    async def calculate_revenue_per_lead(
        self, location_id: Id | None = None, days: int = 30
    ) -> float | None:
        """Return revenue per lead, in the location's currency; None also where it has no value."""
        return await self._ask(lambda: self._revenue(location_id, days))

    @overload
    async def get_agent_productivity_metrics(
        self, agent_id: Id | None = None, location_id: Id | None = None, days: int = 30
    ) -> list[dict[str, Any]] | None: ...

    @overload
    async def get_agent_productivity_metrics(
        self, agent_id: Id, days: int
    ) -> list[dict[str, Any]] | None: ...

    async def get_agent_productivity_metrics(
        self, *positional: Any, **named: Any
    ) -> list[dict[str, Any]] | None:
        """Return the figures of an agent, or of all, best first; None where they can't be had.

        A number as the second argument is `days`, as in the first design.
        """
        return await self._ask(lambda: self._agents(positional, named))

    async def get_health(self) -> dict[str, Any] | None:
        """Return how the exporter is, and what waits; None where it can't be had."""
        return await self._ask(lambda: HEALTH)

    async def _ask(self, make: Callable[[], Question[T]]) -> T | None:
        try:
            question = make()
            asked = self._worker.ask(question.path, question.query)
            return question.answer(await _result(asked, self._worker.timeout))
        except ClientError as error:
            if self._raise_errors:
                raise
            self._throttle.log(logging.WARNING, type(error).__name__, str(error))
            return None


async def _result(future: concurrent.futures.Future[T], seconds: float) -> T:
    """Wait for the thread. Raises ClientError where it ended, or takes longer than it may.

    A cancellation of the caller is passed on to the thread's work, and raised.
    """
    try:
        async with asyncio.timeout(seconds + 1):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise ClientError(f"no answer within {seconds:g} s") from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():
            raise ClientError("the client is closed") from None
        raise
