"""What strangers can hold: sockets that send nothing, or slowly, and how others fare meanwhile."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from exporter.http.client_address import Clients
from exporter.http.refusal_log import RefusalLog
from exporter.receiver import connections as module
from exporter.receiver.connections import Connections
from exporter.service.descriptors import connection_limit
from exporter.service.sockets import own_socket
from exporter.settings import load_settings
from exporter.telemetry.metrics import LiveMetrics

from .conftest import MakeService, Service, Signer, free_port, wait_until
from .sender import GHL_PATH, Answer, contact, exchange, head, parse, read_all

STRANGER, SENDER = "127.0.0.1", "127.0.0.2"
FORGED = {"X-GHL-Signature": "A" * 86 + "=="}


class Strangers:
    """Open sockets, each of which is opened again as soon as it is closed, while `again` is set."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: list[asyncio.Task[None]] = []
        self.again = True

    def start(self, count: int, *kinds: tuple[bytes, bytes]) -> None:
        """`kinds`: what is sent at once, and what is sent of it again every second."""
        for number in range(count):
            self._tasks.append(asyncio.create_task(self._hold(*kinds[number % len(kinds)])))

    async def _hold(self, opening: bytes, more: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(STRANGER, self._port)
                try:
                    writer.write(opening)
                    gone = asyncio.create_task(read_all(reader, 60))
                    while not gone.done():
                        writer.write(more)
                        await asyncio.wait([gone], timeout=1)
                finally:
                    writer.transport.abort()
            if not self.again:
                return
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def send(port: int, signer: Signer, source: str) -> Answer:
    """Post a signed webhook from an address."""
    body = contact()
    started = time.monotonic()
    reader, writer = await asyncio.open_connection(STRANGER, port, local_addr=(source, 0))
    try:
        writer.write(head(GHL_PATH, signer.headers(body), length=len(body)) + body)
        return parse(await read_all(reader), time.monotonic() - started)
    finally:
        writer.close()


async def send_many(port: int, signer: Signer, count: int, source: str = SENDER) -> list[Answer]:
    limit = asyncio.Semaphore(10)

    async def one() -> Answer:
        async with limit:
            return await send(port, signer, source)

    return await asyncio.gather(*(one() for _ in range(count)))


def opening(*, length: int | None = None, headers: dict[str, str] = FORGED) -> bytes:
    return head(GHL_PATH, headers, length=length)


SILENT = (b"", b"")
SLOW_HEADERS = (b"POST /webhooks/ghl HTTP/1.1\r\nHost: x\r\nX-A: ", b"a")
UNSIGNED = (opening(length=1_000_000, headers={}), b"")
DECLARED = (opening(length=1_000_000), b"")
CHUNKED = (opening()[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n")
SLOW_BODY = (opening(length=1_000_000), b"a" * 1_000)
NEARLY_WHOLE = (opening(length=1_000_000) + b"a" * 999_999, b"")
KINDS = {
    "silent": (SILENT,),
    "slow headers": (SLOW_HEADERS,),
    "unsigned": (UNSIGNED,),
    "declared": (DECLARED,),
    "slow bodies": (CHUNKED, SLOW_BODY),
    "bodies that lack a byte": (NEARLY_WHOLE,),
    "all": (SILENT, SLOW_HEADERS, UNSIGNED, DECLARED, CHUNKED, SLOW_BODY, NEARLY_WHOLE),
}


async def test_strangers_with_200_sockets_stop_no_webhook(
    make_service: MakeService, database_url: str, signer: Signer
) -> None:
    service = make_service(database_url=database_url, max_buffered_bytes=32 * 1024 * 1024)
    service.start()
    for name, kinds in KINDS.items():
        strangers = Strangers(service.port)
        strangers.start(200 if name != "bodies that lack a byte" else 64, *kinds)
        try:
            await asyncio.sleep(1)  # more than a body may take
            answers = await send_many(service.port, signer, 100)
        finally:
            await strangers.stop()
        assert {answer.status for answer in answers} <= {200, 202}, name
    refused = [line for line in service.log_lines() if line["event"] == "requests_refused"]
    assert len(refused) == 1, "one line a minute, whatever strangers send"
    metrics = service.metrics()
    assert metrics['ghl_exporter_webhooks_rejected_total{reason="too_slow"}'] > 0
    assert metrics['ghl_exporter_webhooks_total{outcome="refused",source="ghl"}'] == 0


def start_with_descriptors(service: Service, count: int) -> None:
    script = f'ulimit -n {count}; exec "$0" -m exporter serve'
    service.start(command=["bash", "-c", script, sys.executable])


def open_descriptors(service: Service) -> int:
    assert service.process is not None
    return sum(1 for _ in Path(f"/proc/{service.process.pid}/fd").iterdir())


@pytest.mark.parametrize("source", [SENDER, STRANGER])
async def test_idle_connections_beyond_the_file_limit_stop_nothing_and_are_logged(
    make_service: MakeService, database_url: str, signer: Signer, source: str
) -> None:
    service = make_service(database_url=database_url)
    start_with_descriptors(service, 128)
    limit = service.metrics()["ghl_exporter_connections_limit"]
    assert 32 <= limit <= 96
    strangers = Strangers(service.port)
    # Of one address with the sender: those that only stay open, as a proxy's do.
    strangers.again = source == SENDER
    strangers.start(200, SILENT)
    most = 0
    try:
        await asyncio.sleep(1)
        for _ in range(5):
            answers = await send_many(service.port, signer, 100, source)
            assert {answer.status for answer in answers} <= {200, 202}
            most = max(most, open_descriptors(service))
    finally:
        await strangers.stop()
    metrics = service.metrics()
    # What the service itself needs is left: it stores, and the KPIs are refreshed.
    assert most < 128
    assert metrics["ghl_exporter_connections"] <= limit
    assert metrics['ghl_exporter_webhooks_total{outcome="stored",source="ghl"}'] > 0
    assert metrics['ghl_exporter_connections_closed_total{reason="client_limit"}'] > 0
    text = service.log.read_text()
    assert "requests_refused" in text
    assert "_limit" in text
    assert "Traceback" not in text
    assert "Too many open files" not in text


async def test_busy_connections_of_one_client_leave_room_for_others(
    make_service: MakeService, database_url: str, signer: Signer
) -> None:
    service = make_service(database_url=database_url, max_connections=40)
    service.start()
    strangers = Strangers(service.port)
    strangers.start(100, DECLARED)
    try:
        await asyncio.sleep(0.5)
        answers = await send_many(service.port, signer, 100)
    finally:
        await strangers.stop()
    assert {answer.status for answer in answers} <= {200, 202}


def test_descriptors_are_kept_for_what_the_service_needs_itself() -> None:
    settings = load_settings(database_pool_size=4, database_writers=2)
    assert connection_limit(settings, 128) == 128 - 58
    assert connection_limit(settings, 20) == 8
    assert connection_limit(settings, 1_000_000) == 4096
    assert connection_limit(settings, -1) == 4096
    assert connection_limit(load_settings(max_connections=100), 1_000_000) == 100


class Bounded:
    """A tiny service behind `Connections`, in this process."""

    def __init__(self, limit: int, share: float, trusted: tuple[str, ...] = ()) -> None:
        self.metrics = LiveMetrics()
        self.connections = Connections(
            limit, share, Clients(trusted), self.metrics, RefusalLog(interval=1e9)
        )
        self.port = free_port()
        self.release = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Bounded"]:
        async def answer(request: web.Request) -> web.Response:
            if request.path == "/wait":
                await self.release.wait()
            return web.Response(text="done")

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        assert runner.server is not None
        listening = self.connections.listen(
            own_socket("LISTEN_ADDRESS", f"127.0.0.1:{self.port}"), runner.server, access_log=None
        )
        try:
            yield self
        finally:
            self.release.set()
            listening.stop(accept_waiting=True)
            await runner.cleanup()

    async def ask(self, path: str = "/", source: str = SENDER) -> "Client":
        reader, writer = await asyncio.open_connection(STRANGER, self.port, local_addr=(source, 0))
        client = Client(reader, writer)
        client.get(path)
        return client

    def closed(self, reason: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "ghl_exporter_connections_closed_total", {"reason": reason}
        )
        assert value is not None
        return value

    def open(self) -> float:
        value = self.metrics.registry.get_sample_value("ghl_exporter_connections")
        assert value is not None
        return value


class Client:
    """A connection that is kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def get(self, path: str = "/") -> None:
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    async def answered(self) -> bool:
        """Read an answer; False where the connection was closed."""
        try:
            async with asyncio.timeout(5):
                return (await self._reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False

    def close(self) -> None:
        self._writer.transport.abort()


async def test_the_oldest_idle_connection_makes_room_and_a_busy_one_never() -> None:
    async with Bounded(4, 1).running() as service:
        busy = await service.ask("/wait")
        idle = [await service.ask() for _ in range(3)]
        assert all([await client.answered() for client in idle])
        new = await service.ask()
        assert await new.answered()
        for client in idle:
            client.get()
        assert [await client.answered() for client in idle] == [False, True, True]
        assert service.closed("connection_limit") == 1
        service.release.set()
        assert await busy.answered()
        for client in (busy, new, *idle):
            client.close()
        await wait_until(lambda: service.open() == 0, 5)


async def test_new_connections_wait_where_all_are_busy() -> None:
    async with Bounded(3, 1).running() as service:
        clients = [await service.ask("/wait") for _ in range(6)]
        await asyncio.sleep(0.3)
        assert service.open() == 3
        service.release.set()
        assert all([await client.answered() for client in clients])
        for client in clients:
            client.close()
        await wait_until(lambda: service.open() == 0, 5)


async def test_one_client_has_its_share_and_a_trusted_proxy_all() -> None:
    async with Bounded(8, 0.5).running() as service:
        clients = [await service.ask("/wait", STRANGER) for _ in range(6)]
        others = [await service.ask("/wait") for _ in range(4)]
        service.release.set()
        assert [await client.answered() for client in clients] == [True] * 4 + [False] * 2
        assert all([await client.answered() for client in others])
        for client in (*clients, *others):
            client.close()
    async with Bounded(8, 0.5, ("127.0.0.1",)).running() as service:
        clients = [await service.ask("/wait", STRANGER) for _ in range(8)]
        service.release.set()
        assert all([await client.answered() for client in clients])
        for client in clients:
            client.close()


async def test_headers_that_do_not_end_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HEADERS_WITHIN", 0.3)
    async with Bounded(8, 1).running() as service:
        reader, writer = await asyncio.open_connection(STRANGER, service.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: ")
        closed = asyncio.create_task(read_all(reader))
        while not closed.done():
            writer.write(b"a")
            await asyncio.wait([closed], timeout=0.05)
        writer.close()
        assert await closed == b""
        assert service.closed("slow_headers") == 1
        # A connection that is idle between requests is no such thing.
        client = await service.ask()
        assert await client.answered()
        await asyncio.sleep(0.5)
        client.get()
        assert await client.answered()
        client.close()


NO_BANNER = {
    "not found": b"GET /nothing HTTP/1.1\r\n",
    "page": b"GET / HTTP/1.1\r\n",
    "metrics": b"GET /metrics HTTP/1.1\r\n",
    "method": b"PUT /webhooks/ghl HTTP/1.1\r\n",
    "unsigned": b"POST /webhooks/ghl HTTP/1.1\r\nContent-Length: 0\r\n",
    "bad length": b"POST /webhooks/ghl HTTP/1.1\r\nContent-Length: many\r\n",
    "no HTTP": b"HELLO\r\n",
    "a bad header": b"GET / HTTP/1.1\r\nX Y: a\r\n",
    "a long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n",
}


async def test_no_answer_names_the_server(make_service: MakeService, tmp_path: Path) -> None:
    port = free_port()
    service = make_service(
        database_url="postgresql://127.0.0.1:1/none", metrics_address=f"127.0.0.1:{port}"
    )
    service.start()
    for name, lines in NO_BANNER.items():
        for asked in (service.port, port):
            answer = await exchange(asked, lines + b"Host: x\r\nConnection: close\r\n\r\n")
            assert answer.status >= 200, name
            assert "server" not in answer.headers, name
            assert b"aiohttp" not in answer.body, name
            assert b"Python" not in answer.body or name in {"metrics", "page"}, name
    assert "Traceback" not in service.log.read_text()
