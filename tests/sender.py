"""A sender of webhooks over plain sockets, and the ledger that it keeps."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import orjson

from exporter.demo.servers import EmbeddedPostgres
from exporter.domain.envelope import read_webhook

from .conftest import TEMPLATE, Service, Signer, free_port

GHL_PATH = "/webhooks/ghl"
# The promise, and what a noisy machine may add to it.
ANSWER_WITHIN = 2.0 + 0.5


@dataclass(frozen=True)
class Answer:
    """What came back: status 0 where the connection ended without an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def taken(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = orjson.loads(self.body)
        return parsed


def parse(data: bytes, seconds: float) -> Answer:
    """Read one answer that ends with the connection."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/1."):
        return Answer(0, {}, data, seconds)
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Answer(int(lines[0].split()[1]), headers, body, seconds)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection, and close it whatever happens."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_all(reader: asyncio.StreamReader, seconds: float = 15) -> bytes:
    """Read until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(seconds):
            while chunk := await reader.read(65536):
                received += chunk
    return received


async def exchange(port: int, *pieces: bytes, pause: float = 0.0) -> Answer:
    """Send bytes as they are, and read until the other side closes."""
    started = time.monotonic()
    async with connected(port) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if pause:
                    await asyncio.sleep(pause)
        received = await read_all(reader)
    return parse(received, time.monotonic() - started)


def head(path: str, headers: Mapping[str, str], *more: str, length: int | None = None) -> bytes:
    """Make the head of a POST. `more`: whole header lines, for what a mapping can't hold."""
    lines = [f"POST {path} HTTP/1.1", "Host: service", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += more
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"


def contact(**fields: object) -> bytes:
    """A ContactCreate with a webhookId of its own."""
    return orjson.dumps(
        {
            "type": "ContactCreate",
            "locationId": "loc",
            "id": "c-1",
            "webhookId": str(uuid4()),
            **fields,
        }
    )


@dataclass
class Sender:
    """Sends signed webhooks and notes each one that was answered 2xx."""

    port: int
    signer: Signer
    ledger: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Location, key and body of what was taken."""
    answers: list[Answer] = field(default_factory=list)

    async def send(
        self, body: bytes, path: str = GHL_PATH, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Post a body on a connection of its own. Raises OSError where nobody listens."""
        given = {**self.signer.headers(body), **(headers or {})}
        answer = await exchange(self.port, head(path, given, length=len(body)) + body)
        self.note(answer, body, path)
        return answer

    def note(self, answer: Answer, body: bytes, path: str = GHL_PATH) -> None:
        self.answers.append(answer)
        if answer.taken:
            address = path.removeprefix(GHL_PATH).strip("/")
            envelope = read_webhook(body, address)
            self.ledger.append((envelope.location_id, envelope.idempotency_key, body))

    async def stream(self, stop: asyncio.Event, senders: int, pause: float = 0.01) -> None:
        """Send from several senders at a time until `stop` is set."""

        async def one() -> None:
            while not stop.is_set():
                await self.send(contact())
                await asyncio.sleep(pause)

        await asyncio.gather(*(one() for _ in range(senders)))

    async def missing(self, connection: asyncpg.Connection) -> list[tuple[str, str, bytes]]:
        """Return what was answered 2xx and is not in the inbox, or is there more than once."""
        rows = await connection.fetch("SELECT location_id, idempotency_key, body FROM inbox")
        stored: dict[tuple[str, str], list[bytes]] = {}
        for location, key, body in rows:
            stored.setdefault((location, key), []).append(body)
        sent: dict[tuple[str, str], set[bytes]] = {}
        for location, key, body in self.ledger:
            sent.setdefault((location, key), set()).add(body)
        return [
            entry
            for entry in self.ledger
            if len(found := stored.get(entry[:2], [])) != 1 or found[0] not in sent[entry[:2]]
        ]


async def new_database(postgres: EmbeddedPostgres) -> str:
    """Make a migrated database that more than one test uses, and return its URL."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    await admin.close()
    return postgres.url(name)


@contextlib.contextmanager
def running_service(directory: Path, signer: Signer, **settings: object) -> Iterator[Service]:
    """Run a service that more than one test uses."""
    port = free_port()
    values = {
        "listen_address": f"127.0.0.1:{port}",
        "ghl_public_keys": signer.pem,
        "spool_path": directory / "spool.sqlite3",
        "log_format": "json",
        **settings,
    }
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **{name.upper(): str(value) for name, value in values.items()},
    }
    service = Service(directory, environment, port)
    try:
        service.start()
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.stop()
