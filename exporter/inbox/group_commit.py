"""Share one commit between the requests in flight: the next batch goes when the last returns."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from exporter.support.tasks import end_tasks, raise_if_cancelled

T = TypeVar("T")
R = TypeVar("R")

_END_WITHIN = 3.0  # seconds


class GroupCommit(Generic[T, R]):
    """Hand items to `store` in batches, with at most one batch under way.

    There is no timer: alone, an item is stored at once; under load the batches grow by themselves.
    """

    def __init__(
        self, store: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, max_batch: int
    ) -> None:
        """`store` returns one result for each item, in order, or raises for all of them."""
        self._store = store
        self._max_batch = max_batch
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = itertools.count()
        self._started: dict[int, float] = {}

    def start(self, workers: int = 1) -> None:
        """Start `workers` tasks, each with a batch of its own under way."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(workers)]

    async def stop(self) -> None:
        """Cancel what is under way; who still waits gets CancelledError."""
        await end_tasks(self._tasks, within=_END_WITHIN)
        while self._waiting:
            self._waiting.popleft()[1].cancel()

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue an item and return the future of its result."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._wake.set()
        return future

    def give_up_waiting(self, error: Exception) -> None:
        """Fail every item that no batch has taken yet: their senders can go elsewhere at once."""
        while self._waiting:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_exception(error)

    @property
    def stalled_for(self) -> float:
        """Seconds for which the oldest batch has been under way; 0 without one."""
        if not self._started:
            return 0.0
        return time.monotonic() - min(self._started.values())

    def __len__(self) -> int:
        """Return how many items wait for a batch."""
        return len(self._waiting)

    async def _run(self) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            if batch := self._next_batch():
                number = next(self._numbers)
                self._started[number] = time.monotonic()
                try:
                    await self._store_batch(batch)
                finally:
                    del self._started[number]

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            # Whoever gave up waiting has put its event elsewhere.
            if not future.done():
                batch.append((item, future))
        return batch

    async def _store_batch(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._store([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            raise_if_cancelled(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
