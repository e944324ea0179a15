"""The client without an event loop: a thread of its own sends; reads wait for their answer."""

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from exporter.client.aio import AsyncClient
from exporter.client.tracking import TracksCalls

T = TypeVar("T")


class Client(TracksCalls[bool, str]):
    """Tell and ask the exporter, from any thread. Takes what `AsyncClient` takes.

    Close it, or leave its block, at the end: what waits is sent then.
    """

    def __init__(self, url: str, key: str, **options: Any) -> None:
        self._inner = AsyncClient(url, key, **options)
        self._outbox = self._inner._outbox
        self._location_id = self._inner._location_id
        self._raise_errors = self._inner._raise_errors
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="ghl-exporter-client", daemon=True
        )
        self._thread.start()
        self._run(self._inner.start())

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything is with the exporter; return False after `timeout` seconds."""
        return bool(self._ask(self._inner.flush(timeout)))

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits for at most `timeout` seconds; what is left is dropped, and counted."""
        if self._loop.is_closed():
            return
        self._run(self._inner.close(timeout))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "Client":
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

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._inner._wake)

    def _ask(self, work: Coroutine[Any, Any, T | None]) -> T | None:
        """Wait for an answer; None, or ClientError where errors are to be raised, once closed."""
        if self._loop.is_closed():
            work.close()
            self._fail("the client is closed")
            return None
        return self._run(work)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def get_executive_dashboard_metrics(
        self,
        location_id: str | None = None,
        days: int = 30,
        *,
        until: str | None = None,
        include_trends: bool = False,
    ) -> dict[str, Any] | None:
        """Return the dashboard, rates in percent; None where it can't be had."""
        return self._ask(
            self._inner.get_executive_dashboard_metrics(
                location_id, days, until=until, include_trends=include_trends
            )
        )

    def get_business_dashboard_metrics(
        self, location_id: str | None = None, days: int = 30
    ) -> dict[str, Any] | None:
        """Return the summary, rates in percent; None where it can't be had."""
        return self._ask(self._inner.get_business_dashboard_metrics(location_id, days))

    def calculate_revenue_per_lead(
        self, location_id: str | None = None, days: int = 30
    ) -> float | None:
        """Return revenue per lead, in the location's currency; None also where it has no value."""
        return self._ask(self._inner.calculate_revenue_per_lead(location_id, days))

    def get_agent_productivity_metrics(
        self, agent_id: str | None = None, location_id: str | None = None, days: int = 30
    ) -> list[dict[str, Any]] | None:
        """Return the figures of an agent, or of all, best first; None where they can't be had."""
        return self._ask(self._inner.get_agent_productivity_metrics(agent_id, location_id, days))

    def get_health(self) -> dict[str, Any] | None:
        """Return how the exporter is, and what waits; None where it can't be had."""
        return self._ask(self._inner.get_health())
