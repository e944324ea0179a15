"""Send what waits, batch by batch, again and again until the exporter has it; and ask it."""

import asyncio
import logging
import random
import socket
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from .errors import ClientError
from .log import Throttle
from .send_queue import Body, Outbox

BASE = "/api/business-metrics"
# As many calls as a request may hold.
_BATCH = 1000
# Seconds. Back-off doubles from the first to the last, each time by a random share of it.
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 10.0
_LONGEST_WAIT = 60.0
# Of a client that nobody refers to any more, how long its calls are tried.
_RETIRED_SECONDS = 30.0
# An answer of the exporter to tracking calls counts them by these outcomes.
_OUTCOMES = ("stored", "duplicate", "spooled")
_UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True)
class _Answer:
    """An HTTP answer. `body`: None where it is no JSON object of an exporter."""

    status: int
    body: dict[str, Any] | None
    text: str
    retry_after: float

    def has_taken(self, calls: int) -> bool:
        """Tell whether it says that the exporter has all of the calls."""
        if self.status not in (200, 202) or self.body is None:
            return False
        counts = [self.body.get(outcome) for outcome in _OUTCOMES]
        return all(type(count) is int for count in counts) and sum(filter(None, counts)) == calls

    @property
    def is_problem(self) -> bool:
        """Tell whether it is an error in the exporter's own form."""
        return self.body is not None and self.body.get("status") == self.status


class _Resolver(AbstractResolver):
    """Looks names up within the sender's own thread.

    aiohttp's own uses a thread pool, which refuses work as soon as the interpreter ends.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Hold nothing."""


class Sender:
    """Empties an outbox into the exporter, in the event loop that runs `run`."""

    def __init__(self, url: str, key: str, outbox: Outbox, timeout: float, throttle: Throttle):
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        self._timeout = timeout
        self._outbox = outbox
        self._throttle = throttle
        self._most = _BATCH
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._retired_at: float | None = None
        self._opened: aiohttp.ClientSession | None = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def wake(self) -> None:
        """Notice that something was queued."""
        self._empty.clear()
        self._more.set()

    def retire(self) -> None:
        """End as soon as nothing waits, or after half a minute."""
        self._retired_at = time.monotonic()
        self._more.set()

    async def run(self) -> None:
        """Send until retired. Whatever ends it, the connections are closed."""
        try:
            await self._send_all()
        finally:
            if self._opened is not None:
                await self._opened.close()

    async def _send_all(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            batch = self._outbox.peek(self._most)
            if batch is None:
                self._more.clear()
                self._empty.set()
                if self._retired_at is not None:
                    return
                await self._more.wait()
                continue
            try:
                wait = await self._send(*batch)
            except Exception as error:  # a fault of ours: what waits is kept, and tried again
                self._outbox.retried()
                self._say(logging.ERROR, f"sending failed: {error!r}")
                wait = 0.0
            if wait is None:
                pause = _FIRST_PAUSE
                continue
            if self._retired_at and time.monotonic() - self._retired_at > _RETIRED_SECONDS:
                return
            await asyncio.sleep(max(wait, random.uniform(0.5, 1) * pause))  # noqa: S311
            pause = min(pause * 2, _LAST_PAUSE)

    async def drained(self, seconds: float) -> bool:
        """Wait until everything is sent; return False where the time runs out before."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _send(self, call: str, bodies: list[Body]) -> float | None:
        """Send a batch; return None where that is over and done, else the least seconds to wait."""
        try:
            answer = await self._request(
                "POST",
                f"track/{call}",
                data=b"[" + b",".join(bodies) + b"]",
                headers={"Content-Type": "application/json"},
            )
        except _UNREACHABLE as error:
            self._outbox.retried()
            self._say(logging.INFO, f"the exporter is away: {error!r}", "away")
            return 0.0
        if answer.has_taken(len(bodies)):
            self._most = min(self._most * 2, _BATCH)
            self._outbox.done(call, len(bodies))
            return None
        if answer.status == 413 and len(bodies) > 1:
            self._most = max(len(bodies) // 2, 1)
            return None
        if answer.status in (400, 413, 422) and answer.is_problem:
            self._drop_wrong(call, len(bodies), answer)
            return None
        # Anything else may be mended: a key, a proxy. What waits is kept as long as there is room.
        self._outbox.retried(unexpected=not answer.is_problem)
        whose = "the exporter answers" if answer.is_problem else "not the exporter's answer:"
        self._say(logging.WARNING, f"{whose} {answer.status} {answer.text}", str(answer.status))
        return answer.retry_after

    def _drop_wrong(self, call: str, count: int, answer: _Answer) -> None:
        """Take the calls out that the exporter finds wrong; where it does not say which, all."""
        self._say(logging.ERROR, f"the exporter refuses calls of {call}: {answer.text}", call)
        try:
            fields = [str(problem["field"]) for problem in (answer.body or {})["errors"]]
        except (KeyError, TypeError):
            fields = []
        places = {int(place) for name in fields if (place := name.partition(".")[0]).isdecimal()}
        self._outbox.done(call, count, wrong=places & set(range(count)) or range(count))

    async def get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the exporter. Raises ClientError."""
        asked = {name: str(value) for name, value in query.items() if value is not None}
        try:
            answer = await self._request("GET", path, params=asked)
        # ValueError: what is no URL or no header.
        except (*_UNREACHABLE, ValueError) as error:
            raise ClientError(f"the exporter is away: {error!r}") from error
        if answer.status != 200 and answer.is_problem:
            raise ClientError(f"the exporter answers {answer.status}: {answer.text}")
        if answer.status != 200 or answer.body is None:
            raise ClientError(f"not the exporter's answer: {answer.status} {answer.text}")
        return answer.body

    async def _request(self, method: str, path: str, **options: Any) -> _Answer:
        """Send a request. A redirect is not followed: it would lead to somebody else."""
        async with self._session().request(
            method, f"{BASE}/{path}".lstrip("/"), allow_redirects=False, **options
        ) as response:
            content = await response.read()
        body = None
        if response.content_type in ("application/json", "application/problem+json"):
            try:
                found = orjson.loads(content)
            except orjson.JSONDecodeError:
                found = None
            body = found if isinstance(found, dict) else None
        given = response.headers.get("Retry-After", "")
        wait = float(given) if given.isascii() and given.isdecimal() else 0.0
        text = ascii(content[:300].decode("utf-8", "replace"))
        return _Answer(response.status, body, text, min(wait, _LONGEST_WAIT))

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                base_url=self._url,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(
                    resolver=_Resolver(), socket_factory=self._make_socket
                ),
            )
        return self._opened

    def _make_socket(self, address: Any) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

    def abandon(self) -> None:
        """Close a forked process's copies of the parent's connections, without a word on them."""
        for one in list(self._sockets):
            socket.close(one.detach())

    def _say(self, level: int, message: str, topic: str | None = None) -> None:
        self._throttle.log(level, topic or message, message)
