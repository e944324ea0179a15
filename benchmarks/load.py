"""A load of signed webhooks over keep-alive connections, cheap enough not to be what is measured.

Run as a process of its own: `python -m benchmarks.load` reads its orders as JSON from standard
input and prints a Result as JSON.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast
from uuid import uuid4

import uvloop
from nacl.signing import SigningKey

_TITLE = b"HTTP/1.1 "


@dataclass(frozen=True)
class Orders:
    """What to send, and for how long. `key`: the seed of the signing key, in hexadecimal."""

    port: int
    connections: int
    seconds: float
    prepare: int
    key: str
    cpu: int | None = None


@dataclass(frozen=True)
class Result:
    """Webhooks answered, by status, and the latencies' quantiles in seconds."""

    statuses: dict[str, int]
    seconds: float
    p50: float
    p99: float

    @property
    def per_second(self) -> float:
        """Webhooks that were answered 2xx, each second."""
        taken = sum(count for status, count in self.statuses.items() if status.startswith("2"))
        return taken / self.seconds


def webhook(number: int) -> bytes:
    """Return a body as large as GHL's are: about 1.2 kB."""
    return json.dumps(
        {
            "type": "OpportunityStatusUpdate",
            "locationId": f"location-{number % 5}",
            "id": f"opportunity-{number % 5000}",
            "contactId": f"contact-{number % 5000}",
            "status": ("open", "won", "lost")[number % 3],
            "monetaryValue": 250_000 + number % 1000,
            "assignedTo": f"user-{number % 20}",
            "pipelineId": "pipeline-1",
            "pipelineStageId": f"stage-{number % 7}",
            "name": "Flat with a view of the harbour",
            "source": "website",
            "dateAdded": "2026-05-01T09:00:00.000Z",
            "customFields": [{"id": f"field-{i}", "value": "x" * 20} for i in range(12)],
            "timestamp": "2026-05-02T09:00:00.000Z",
            "webhookId": str(uuid4()),
        }
    ).encode()


def requests(orders: Orders) -> list[bytes]:
    """Make the requests whole, so that sending one is writing its bytes."""
    key = SigningKey(bytes.fromhex(orders.key))
    made = []
    for number in range(orders.prepare):
        body = webhook(number)
        signature = base64.b64encode(key.sign(body).signature).decode()
        made.append(
            (
                "POST /webhooks/ghl HTTP/1.1\r\nHost: service\r\n"
                "Content-Type: application/json\r\n"
                f"X-GHL-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
        )
    return made


class _Connection(asyncio.Protocol):
    """Sends one request after the other, each when the last is answered."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._sent_at = 0.0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        request = self._load.next()
        if request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        _, _, rest = head.lower().partition(b"\r\ncontent-length: ")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return
        self._load.note(head[len(_TITLE) :][:3].decode(), time.perf_counter() - self._sent_at)
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.closed()


class _Load:
    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._requests = iter(requests(orders))
        self._open = orders.connections
        self._done = asyncio.Event()
        self._statuses: dict[str, int] = {}
        self._latencies: list[float] = []
        self._until = 0.0

    def next(self) -> bytes | None:
        return next(self._requests, None) if time.perf_counter() < self._until else None

    def note(self, status: str, seconds: float) -> None:
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._latencies.append(seconds)

    def closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._done.set()

    async def run(self) -> Result:
        started = time.perf_counter()
        self._until = started + self._orders.seconds
        loop = asyncio.get_running_loop()
        for _ in range(self._orders.connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._orders.port)
        await self._done.wait()
        took = time.perf_counter() - started
        ordered = sorted(self._latencies)
        return Result(
            self._statuses,
            took,
            ordered[len(ordered) // 2],
            ordered[int(len(ordered) * 0.99)],
        )


def send(orders: Orders) -> Result:
    """Run the load in a process of its own and return what came of it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(orders)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60 + 10 * orders.seconds,
        cwd=Path(__file__).parents[1],
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Result(**json.loads(done.stdout))


def pin(cpu: int | None) -> None:
    """Stay on one CPU, where there are two."""
    if cpu is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, {cpu})


if __name__ == "__main__":
    given = Orders(**json.load(sys.stdin))
    pin(given.cpu)
    print(json.dumps(asdict(uvloop.run(_Load(given).run()))))
