"""What waits to be sent: bounded, safe to fill from any thread, taken in batches of one kind."""

import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import islice

Body = bytes


@dataclass
class Stats:
    """What became of the calls.

    `sent`: the exporter has them. `rejected`: refused, at the call or by the exporter. `dropped`:
    the queue was full, or the client closed. `retries`: requests that failed; `unexpected`: those
    among them whose answer was not the exporter's (a redirect, a login page, a proxy's error).
    """

    queued: int = 0
    waiting: int = 0
    sent: int = 0
    rejected: int = 0
    dropped: int = 0
    retries: int = 0
    unexpected: int = 0


class Outbox:
    """Calls as JSON, by kind. Taken are the oldest of the kind that has waited longest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[tuple[int, Body]]] = {}
        self._count = 0
        self._number = 0
        self._stats = Stats()
        self._closed = False

    def forget(self) -> None:
        """Begin anew in a process that was forked: what waits is its parent's to send."""
        self._lock = threading.Lock()
        self._waiting = {}
        self._count = 0
        self._stats = Stats()

    @property
    def closed(self) -> bool:
        """Whether it takes no calls."""
        return self._closed

    def seal(self) -> bool:
        """Take no more calls; return False where it took none before."""
        with self._lock:
            before, self._closed = self._closed, True
        return not before

    def open(self) -> None:
        """Take calls again after a close."""
        with self._lock:
            self._closed = False

    def put(self, call: str, body: Body) -> bool:
        """Queue a call; return False, and count it as dropped, where there is no room for it."""
        with self._lock:
            full = self._closed or self._count >= self._most
            if full:
                self._stats.dropped += 1
            else:
                self._number += 1
                self._count += 1
                self._stats.queued += 1
                self._waiting.setdefault(call, deque()).append((self._number, body))
        return not full

    def peek(self, most: int) -> tuple[str, list[Body]] | None:
        """Return calls of one kind, which stay until `done`; None where nothing waits."""
        with self._lock:
            heads = [(waiting[0][0], call) for call, waiting in self._waiting.items() if waiting]
            if not heads:
                return None
            _, call = min(heads)
            return call, [body for _, body in islice(self._waiting[call], most)]

    def done(self, call: str, count: int, *, wrong: Collection[int] = ()) -> None:
        """Forget the oldest calls of a kind: sent, or rejected where `wrong` has their place.

        Where there are wrong ones nothing was sent, and the others wait on.
        """
        with self._lock:
            if call not in self._waiting:  # it closed meanwhile
                return
            waiting = self._waiting[call]
            taken = [waiting.popleft() for _ in range(count)]
            kept = [item for place, item in enumerate(taken) if wrong and place not in wrong]
            waiting.extendleft(reversed(kept))
            self._count -= count - len(kept)
            self._stats.rejected += len(wrong)
            self._stats.sent += 0 if wrong else count

    def retried(self, *, unexpected: bool = False) -> None:
        """Count a request that failed. `unexpected`: its answer was not the exporter's."""
        with self._lock:
            self._stats.retries += 1
            self._stats.unexpected += unexpected

    def refused(self) -> None:
        """Count a call that was not even queued, for it is not valid."""
        with self._lock:
            self._stats.rejected += 1

    def close(self) -> int:
        """Drop what still waits and all that follows; return how much waited."""
        with self._lock:
            self._closed = True
            count, self._count = self._count, 0
            self._waiting.clear()
            self._stats.dropped += count
        return count

    @property
    def stats(self) -> Stats:
        """The counts, as they are now."""
        with self._lock:
            return replace(self._stats, waiting=self._count)
