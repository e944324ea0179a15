"""The client inside an event loop."""

import asyncio
import contextlib
import logging
from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from exporter.client.outbox import Outbox
from exporter.client.sender import ClientError, Sender
from exporter.client.tracking import TracksCalls

log = logging.getLogger("exporter.client")

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


class AsyncClient(TracksCalls[Ready[bool], Ready[str]]):
    """Tell and ask the exporter, from an event loop.

    `location_id`: where a call or a question names none. `queue_size`: calls that may wait; beyond
    it calls are dropped and counted. `timeout`: seconds that one request may take.
    `raise_errors`: raise ClientError instead of returning False or None.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        location_id: str | None = None,
        queue_size: int = 100_000,
        timeout: float = 10.0,
        raise_errors: bool = False,
    ) -> None:
        self._url = url
        self._key = key
        self._location_id = location_id
        self._timeout = timeout
        self._raise_errors = raise_errors
        self._outbox = Outbox(queue_size)
        self._sender: Sender | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to send. What was queued before is sent too."""
        if self._sender is None:
            self._outbox.open()
            self._sender = Sender(self._url, self._key, self._outbox, self._timeout)
            self._task = asyncio.create_task(self._sender.run())
            self._sender.wake()

    async def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything is with the exporter; return False after `timeout` seconds."""
        return self._sender is not None and await self._sender.drained(timeout)

    async def close(self, timeout: float = 5.0) -> None:
        """Send what waits for at most `timeout` seconds; what is left is dropped, and counted."""
        if self._sender is None or self._task is None:
            return
        await self._sender.drained(timeout)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._sender.close()
        self._sender = self._task = None
        if lost := self._outbox.close():
            log.error("closed with %d calls that the exporter never took", lost)

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

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    async def get_executive_dashboard_metrics(
        self,
        location_id: str | None = None,
        days: int = 30,
        *,
        until: str | None = None,
        include_trends: bool = False,
    ) -> dict[str, Any] | None:
        """Return the dashboard, rates in percent; None where it can't be had."""
        trends = "true" if include_trends else None
        query = {"days": days, "until": until, "include_trends": trends}
        return await self._ask("dashboard", location_id, query)

    async def get_business_dashboard_metrics(
        self, location_id: str | None = None, days: int = 30
    ) -> dict[str, Any] | None:
        """Return the summary, rates in percent; None where it can't be had."""
        return await self._ask("summary", location_id, {"days": days})

    async def calculate_revenue_per_lead(
        self, location_id: str | None = None, days: int = 30
    ) -> float | None:
        """Return revenue per lead, in the location's currency; None also where it has no value."""
        answer = await self._ask("revenue-metrics", location_id, {"days": days})
        return None if answer is None else answer["figures"]["ghl_revenue_per_lead"]

    async def get_agent_productivity_metrics(
        self, agent_id: str | None = None, location_id: str | None = None, days: int = 30
    ) -> list[dict[str, Any]] | None:
        """Return the figures of an agent, or of all, best first; None where they can't be had."""
        query = {"days": days, "agent_id": agent_id}
        answer = await self._ask("agent-performance", location_id, query)
        return None if answer is None else answer["agents"]

    async def get_health(self) -> dict[str, Any] | None:
        """Return how the exporter is, and what waits; None where it can't be had."""
        return await self._get("health", {})

    async def _ask(
        self, endpoint: str, location_id: str | None, query: dict[str, Any]
    ) -> dict[str, Any] | None:
        place = location_id or self._location_id
        if place is None:
            self._fail("say which location: the client was made without one")
            return None
        return await self._get(f"{endpoint}/{quote(place, safe='')}", query)

    async def _get(self, path: str, query: dict[str, Any]) -> dict[str, Any] | None:
        try:
            if self._sender is None:
                raise ClientError("the client is not started")
            return await self._sender.get(path, query)
        except ClientError as error:
            if self._raise_errors:
                raise
            log.warning("%s", error)
            return None
