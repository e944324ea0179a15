"""Send what waits, batch by batch, again and again until the exporter has it; and ask it."""

import asyncio
import logging
import random
from typing import Any

import aiohttp
import orjson

from exporter.client.outbox import Body, Outbox

log = logging.getLogger("exporter.client")

BASE = "/api/business-metrics"
# As many calls as a request may hold.
_BATCH = 1000
# Seconds. Back-off doubles from the first to the last, each time by a random share of it.
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 10.0
_TIMEOUT = 10.0


class ClientError(Exception):
    """The exporter could not be told or asked; the text says why."""


class Sender:
    """Empties an outbox into the exporter. One task of it at a time."""

    def __init__(self, url: str, key: str, outbox: Outbox, timeout: float = _TIMEOUT) -> None:
        self._outbox = outbox
        self._most = _BATCH
        self._session = aiohttp.ClientSession(
            base_url=url.rstrip("/") + "/",
            # A key that was read from a file ends with a line's end.
            headers={"Authorization": f"Bearer {key.strip()}"},
            timeout=aiohttp.ClientTimeout(total=timeout),
        )
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def wake(self) -> None:
        """Tell that something was queued. Only from the sender's own event loop."""
        self._empty.clear()
        self._more.set()

    async def run(self) -> None:
        """Send for ever."""
        pause = _FIRST_PAUSE
        while True:
            batch = self._outbox.peek(self._most)
            if batch is None:
                self._more.clear()
                self._empty.set()
                await self._more.wait()
                continue
            try:
                wait = await self._send(*batch)
            except Exception as error:  # a fault of ours: what waits is kept, and tried again
                log.exception("sending failed: %r", error)
                wait = 0.0
            if wait is None:
                pause = _FIRST_PAUSE
                continue
            self._outbox.retried()
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
            async with self._session.post(
                f"{BASE}/track/{call}".lstrip("/"),
                data=b"[" + b",".join(bodies) + b"]",
                headers={"Content-Type": "application/json"},
            ) as response:
                answer = await response.read()
                status, headers = response.status, response.headers
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("the exporter is away: %r", error)
            return 0.0
        if status in (200, 202):
            self._most = min(self._most * 2, _BATCH)
            self._outbox.done(call, len(bodies))
            return None
        if status == 413 and len(bodies) > 1:
            self._most = max(len(bodies) // 2, 1)
            return None
        if status in (400, 413, 422):
            self._drop_wrong(call, len(bodies), answer)
            return None
        # A key may be mended; what waits is kept as long as there is room.
        log.warning("the exporter answers %d: %s", status, answer[:300].decode("utf-8", "replace"))
        given = headers.get("Retry-After", "")
        return float(given) if given.isdecimal() else 0.0

    def _drop_wrong(self, call: str, count: int, answer: bytes) -> None:
        """Take the calls out that the exporter finds wrong; where it does not say which, all."""
        log.error("the exporter refuses calls: %s", answer[:500].decode("utf-8", "replace"))
        try:
            fields = [str(problem["field"]) for problem in orjson.loads(answer)["errors"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            fields = []
        places = {int(place) for name in fields if (place := name.partition(".")[0]).isdecimal()}
        self._outbox.done(call, count, wrong=places & set(range(count)) or range(count))

    async def get(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        """Ask the exporter. Raises ClientError."""
        asked = {name: str(value) for name, value in query.items() if value is not None}
        try:
            async with self._session.get(f"{BASE}/{path}".lstrip("/"), params=asked) as response:
                answer = await response.read()
                if response.status != 200:
                    text = answer[:300].decode("utf-8", "replace")
                    raise ClientError(f"the exporter answers {response.status}: {text}")
                found: dict[str, Any] = orjson.loads(answer)
                return found
        # ValueError: what is no URL, no header, or no JSON.
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ClientError(f"the exporter is away: {error!r}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
