"""The thread that sends: one for each client and process, whatever loops or forks come and go.

A thread with an event loop of its own belongs to none of the caller's: calls may come from any
thread, any event loop, and from none. A forked process gets a thread of its own with its first
call. At the interpreter's end what waits is sent, within a few seconds; what is lost is logged.
"""

import asyncio
import atexit
import contextlib
import logging
import os
import selectors
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .errors import ArgumentError, ClientError
from .log import Throttle, log
from .send_queue import Outbox, Stats
from .sender import Sender

T = TypeVar("T")

# Seconds that the end of the interpreter may wait for all clients together.
EXIT_SECONDS = 3.0
# Beyond a limit that is kept within the thread, how long to wait for the thread.
_GRACE = 0.5


def _checked_url(url: object) -> str:
    """Return the exporter's base URL. Raises ArgumentError, without what may be a password."""
    if not isinstance(url, str):
        raise ArgumentError("url", f"must be text, not {type(url).__name__}")
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        valid = valid and not (parts.query or parts.fragment)
    except ValueError:
        valid = False
    if "@" in url:
        raise ArgumentError("url", "must hold no user and no password")
    if not valid or any(character.isspace() for character in url.strip()):
        raise ArgumentError("url", f"must be like http://127.0.0.1:12105, not {url!a}")
    return url.strip().rstrip("/") + "/"


def _checked_key(key: object) -> str:
    """Return the API key; one that was read from a file ends with a line's end."""
    found = key.strip() if isinstance(key, str) else ""
    if not found or not found.isascii() or not found.isprintable():
        raise ArgumentError("key", "must be an API key, as `ghl-exporter keys create` prints it")
    return found


class Worker:
    """Sends an outbox from a thread of its own, and asks the exporter there."""

    def __init__(self, url: str, key: str, queue_size: int, timeout: float) -> None:
        if isinstance(queue_size, bool) or not isinstance(queue_size, int) or queue_size < 0:
            raise ArgumentError("queue_size", "must be a number of calls")
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise ArgumentError("timeout", "must be a number of seconds")
        self._url = _checked_url(url)
        self._key = _checked_key(key)
        self.timeout = timeout
        self._outbox = Outbox(queue_size)
        self._throttle = Throttle()
        self._begin()
        _workers.add(self)

    def _begin(self) -> None:
        """Be as new in this process: no thread yet."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = False
        self._retired = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender: Sender | None = None
        self._ended: Future[None] = Future()

    @property
    def stats(self) -> Stats:
        """The counts of this process."""
        self.check_process()
        return self._outbox.stats

    def check_process(self) -> None:
        """Begin anew where the process was forked since: the thread stayed with the parent.

        A hook does it at most forks; uWSGI forks without running hooks.
        """
        if self._pid == os.getpid():
            return
        if self._sender is not None:
            self._sender.abandon()
        # Their destructors would log, or write to what is the parent's.
        _abandoned.append((self._loop, self._sender, self._thread))
        self._outbox.forget()
        self._begin()

    def refused(self) -> None:
        """Count a call that is not valid."""
        self.check_process()
        self._outbox.refused()

    def put(self, call: str, body: bytes) -> bool:
        """Queue a call; return False where there is no room, or after the close."""
        self.check_process()
        if not self._outbox.put(call, body):
            return False
        self._wake()
        return True

    def _wake(self) -> None:
        # Where a wake-up is under way it will find this call too.
        if self._start() and not self._woken and self._loop is not None:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop closed this moment
                self._loop.call_soon_threadsafe(self._on_wake)

    def _on_wake(self) -> None:
        self._woken = False
        if self._sender is not None:
            self._sender.wake()

    def start(self) -> None:
        """Take calls again after a close, and start the thread."""
        self.check_process()
        self._outbox.open()
        self._wake()

    def _start(self) -> bool:
        """Start the thread unless it runs; return False where none can be started."""
        if self._thread is not None:
            return True
        with self._lock:
            if self._thread is not None:
                return True
            # Not epoll: a fork would share its state with the parent.
            selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
            self._loop = asyncio.SelectorEventLoop(selector)
            self._sender = Sender(self._url, self._key, self._outbox, self.timeout, self._throttle)
            self._ended = Future()
            self._woken = False
            thread = threading.Thread(
                target=self._serve,
                args=(self._loop, self._sender, self._ended),
                name="ghl-exporter-client",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError as error:  # a limit on threads, or the interpreter ends
                self._loop.close()
                self._loop = self._sender = None
                self._say(f"no thread can be started, so calls wait: {error}")
                return False
            self._thread = thread
            _running.add(self)
        _finish_with_process()
        if _threads_are_off():
            self._say("uWSGI runs without threads: start it with --enable-threads, or calls wait")
        return True

    def _serve(self, loop: asyncio.AbstractEventLoop, sender: Sender, ended: Future[None]) -> None:
        """Run the loop until the sender ends: retired, or cancelled by `finish`."""
        asyncio.set_event_loop(loop)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(sender.run())
            for _ in range(3):  # a question may arrive this moment
                _cancel_all(loop)
                loop.run_until_complete(asyncio.sleep(0))
        finally:
            loop.close()
            with self._lock:
                if self._loop is loop:
                    self._thread = None
                    self._loop = None
                    self._sender = None
                    _running.discard(self)
            if not ended.done():
                ended.set_result(None)
            self._report_lost(self._outbox.close() if self._retired else 0)

    def retire(self) -> None:
        """End once all is sent: nobody refers to the client any more. Safe in a destructor."""
        if self._pid == os.getpid() and self._loop is not None and self._sender is not None:
            self._retired = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._sender.retire)

    def ask(self, path: str, query: Mapping[str, Any]) -> Future[dict[str, Any]]:
        """Ask the exporter; the future raises ClientError, and so does this after the close."""
        self.check_process()
        if self._outbox.closed:
            raise ClientError("the client is closed")
        return self._submit(lambda sender: sender.get(path, query))

    def _submit(self, work: Callable[[Sender], Coroutine[Any, Any, T]]) -> Future[T]:
        """Have the thread do it. Raises ClientError where there is none."""
        started = self._start()
        loop, sender = self._loop, self._sender
        if not started or loop is None or sender is None:
            raise ClientError("no thread can be started")
        coroutine = work(sender)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # the loop closed this moment
            coroutine.close()
            raise ClientError("the client is closed") from None

    def drained(self, seconds: float) -> Future[bool]:
        """Wait until everything is sent; False after `seconds`, or where it is closed."""
        self.check_process()
        with contextlib.suppress(ClientError):
            if not self._outbox.closed or self._thread is not None:
                return self._submit(lambda sender: sender.drained(seconds))
        nothing: Future[bool] = Future()
        nothing.set_result(False)
        return nothing

    def seal(self) -> bool:
        """Take no more calls; return False where it was closed before."""
        self.check_process()
        return self._outbox.seal()

    def finish(self) -> Future[None]:
        """Stop the thread, and log how many calls are lost. Its end is the answer."""
        self._report_lost(self._outbox.close())
        ended = self._ended
        if self._loop is None:
            if not ended.done():
                ended.set_result(None)
            return ended
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_cancel_all, self._loop)
        return ended

    def close(self, seconds: float) -> None:
        """Send what waits for at most `seconds`, then stop, whatever interrupts the waiting."""
        if not self.seal():
            return
        try:
            if self._outbox.stats.waiting:
                with contextlib.suppress(TimeoutError):
                    self.drained(seconds).result(seconds + _GRACE)
        finally:
            # An interrupted close counts what is lost too, before its caller goes on.
            ended = self.finish()
            with contextlib.suppress(TimeoutError):
                ended.result(_GRACE)

    def _report_lost(self, count: int) -> None:
        if count:
            are = "call is" if count == 1 else "calls are"
            log.error("%d %s lost: the exporter did not take them before the end", count, are)

    def _say(self, message: str) -> None:
        self._throttle.log(logging.WARNING, message, message)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_running: set[Worker] = set()
_abandoned: list[object] = []
_finishing_pid = 0


def _after_fork() -> None:
    _running.clear()
    for worker in list(_workers):
        worker.check_process()


def _at_exit() -> None:
    """Send what waits, within one limit for all clients of this process."""
    until = time.monotonic() + EXIT_SECONDS
    for worker in list(_workers):
        worker.close(max(until - time.monotonic(), 0.0))


def _finish_with_process() -> None:
    """Have `_at_exit` called in children of multiprocessing and of Celery's billiard too.

    They leave without running `atexit`.
    """
    global _finishing_pid  # noqa: PLW0603
    if _finishing_pid == os.getpid():
        return
    _finishing_pid = os.getpid()
    for name in ("multiprocessing.util", "billiard.util"):
        if (module := sys.modules.get(name)) is not None:
            module.Finalize(None, _at_exit, exitpriority=0)


def _threads_are_off() -> bool:
    """Tell whether uWSGI runs this without threads, so that ours only gets odd moments."""
    options = getattr(sys.modules.get("uwsgi"), "opt", None)
    if not isinstance(options, dict):
        return False
    names = {name.decode() if isinstance(name, bytes) else name for name in options}
    return not names & {"enable-threads", "threads"}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
