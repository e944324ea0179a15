"""The client for programs without event loops: reads wait for their answer."""

import concurrent.futures
import logging
import weakref
from collections.abc import Callable
from datetime import date
from types import TracebackType
from typing import Any, TypeVar, overload

from .errors import ClientError
from .questions import HEALTH, Asks, Question
from .tracking import TracksCalls
from .types import Id
from .worker import Worker

T = TypeVar("T")


class Client(Asks, TracksCalls[bool, str]):
    """Track and ask, from any thread.

    Close it, or leave its block, at the end: what waits is sent then. Takes what `AsyncClient`
    takes: `location_id`, `queue_size`, `timeout`, `raise_errors`. Raises ArgumentError where one of
    these is wrong.
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

    def start(self) -> None:
        """Begin to send; also again after a close. The first call does so too."""
        self._worker.start()

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything is with the exporter; return False after `timeout` seconds."""
        try:
            return _result(self._worker.drained(timeout), timeout)
        except ClientError:
            return False

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits for at most `timeout` seconds; what is left is lost, logged, counted."""
        self._worker.close(timeout)

    def __enter__(self) -> "Client":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _queued(self, queued: bool) -> bool:
        return queued

    def _tracking_id(self, tracking_id: str) -> str:
        return tracking_id

    def get_executive_dashboard_metrics(
        self,
        location_id: Id | None = None,
        days: int = 30,
        *,
        until: str | date | None = None,
        include_trends: bool = False,
    ) -> dict[str, Any] | None:
        """Return the dashboard, rates in percent; None where it can't be had."""
        return self._ask(lambda: self._dashboard(location_id, days, until, include_trends))

    def get_business_dashboard_metrics(
        self, location_id: Id | None = None, days: int = 30
    ) -> dict[str, Any] | None:
        """Return the summary, rates in percent; None where it can't be had."""
        return self._ask(lambda: self._summary(location_id, days))

    def calculate_revenue_per_lead(
        self, location_id: Id | None = None, days: int = 30
    ) -> float | None:
        """Return revenue per lead, in the location's currency; None also where it has no value."""
        return self._ask(lambda: self._revenue(location_id, days))

    @overload
    def get_agent_productivity_metrics(
        self, agent_id: Id | None = None, location_id: Id | None = None, days: int = 30
    ) -> list[dict[str, Any]] | None: ...

    @overload
    def get_agent_productivity_metrics(
        self, agent_id: Id, days: int
    ) -> list[dict[str, Any]] | None: ...

    def get_agent_productivity_metrics(
        self, *positional: Any, **named: Any
    ) -> list[dict[str, Any]] | None:
        """Return the figures of an agent, or of all, best first; None where they can't be had.

        A number as the second argument is `days`, as in the first design.
        """
        return self._ask(lambda: self._agents(positional, named))

    def get_health(self) -> dict[str, Any] | None:
        """Return how the exporter is, and what waits; None where it can't be had."""
        return self._ask(lambda: HEALTH)

    def _ask(self, make: Callable[[], Question[T]]) -> T | None:
        try:
            question = make()
            asked = self._worker.ask(question.path, question.query)
            return question.answer(_result(asked, self._worker.timeout))
        except ClientError as error:
            if self._raise_errors:
                raise
            self._throttle.log(logging.WARNING, type(error).__name__, str(error))
            return None


def _result(future: concurrent.futures.Future[T], seconds: float) -> T:
    """Wait for the thread. Raises ClientError where it ended, or takes longer than it may."""
    try:
        return future.result(seconds + 1)
    except TimeoutError:
        raise ClientError(f"no answer within {seconds:g} s") from None
    except concurrent.futures.CancelledError:
        raise ClientError("the client is closed") from None
    finally:
        future.cancel()
