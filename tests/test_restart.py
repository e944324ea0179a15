"""Stops and restarts as an operator makes them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import MakeService, Service, Signer, free_port, wait_until
from tests.sender import GHL_PATH, Sender, connected, contact, head, parse, read_all

# Passes a listening socket on as systemd does: descriptor 3, and the id of the very process.
AS_SYSTEMD = """
    import os, sys
    os.dup2(int(sys.argv[1]), 3)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = "1"
    os.execv(sys.executable, [sys.executable, "-m", "exporter", "serve"])
"""


def _start_with_socket(service: Service, listener: socket.socket) -> None:
    """Start the service with an inherited socket, not waiting for it."""
    with service.log.open("ab") as log:
        service.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(AS_SYSTEMD), str(listener.fileno())],
            env=service.environment,
            cwd=service.directory,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )


async def test_restarts_with_an_inherited_socket_refuse_no_connection(
    make_service: MakeService, signer: Signer, database_url: str, connection: asyncpg.Connection
) -> None:
    service = make_service(database_url=database_url, log_level="warning")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", service.port))
        listener.listen(1024)
        _start_with_socket(service, listener)
        service.wait_ready()
        sender = Sender(service.port, signer)
        stop = asyncio.Event()
        # A refused or reset connection raises, or counts as status 0.
        load = asyncio.create_task(sender.stream(stop, 8))
        for number in range(5):
            await asyncio.sleep(0.3)
            assert await asyncio.to_thread(service.stop) == 0
            if number == 4:
                await asyncio.sleep(0.5)  # nobody serves: the connections wait
            _start_with_socket(service, listener)
            await asyncio.to_thread(service.wait_ready)
        stop.set()
        await load
    assert len(sender.answers) > 50
    assert {answer.status for answer in sender.answers} <= {200, 202}
    assert not await sender.missing(connection)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_answers_what_is_under_way(
    make_service: MakeService,
    signer: Signer,
    database_url: str,
    connection: asyncpg.Connection,
    number: signal.Signals,
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    assert service.process is not None
    sender = Sender(service.port, signer)
    body = contact()
    request = head(GHL_PATH, signer.headers(body), length=len(body)) + body
    async with connected(service.port) as (reader, writer), connection.transaction():
        await connection.execute("LOCK TABLE inbox")
        waiting = asyncio.create_task(sender.send(contact()))
        writer.write(request[:-20])
        await writer.drain()
        await asyncio.sleep(0.2)
        service.process.send_signal(number)
        # What has come whole is stored; what has not is answered so that it comes again.
        assert (await waiting).status == 202
        half = parse(await read_all(reader), 0.0)
        assert (half.status, "retry-after" in half.headers) == (429, True)
    assert await asyncio.to_thread(service.process.wait, 10) == 0
    assert [line["event"] for line in service.log_lines()][-1] == "stopped"
    service.start()
    await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0, 20)
    assert not await sender.missing(connection)


async def test_a_stop_does_not_wait_for_idle_connections_or_a_server_that_hangs(
    make_service: MakeService, tmp_path: Path
) -> None:
    # A database that takes connections and never says a word.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        service = make_service(database_url=f"postgresql://nobody:x@127.0.0.1:{port}/x")
        service.start()
        async with connected(service.port):
            started = time.monotonic()
            assert await asyncio.to_thread(service.stop) == 0
            assert time.monotonic() - started < 10


def _serve(environment: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter", "serve"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **environment,
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_address_that_is_taken_is_named(tmp_path: Path, database_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = _serve({"LISTEN_ADDRESS": address, "DATABASE_URL": database_url}, tmp_path)
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_that_are_wrong_are_all_named_and_nothing_starts(tmp_path: Path) -> None:
    done = _serve(
        {
            "LISTEN_ADDRESS": f"127.0.0.1:{free_port()}",
            "DATABASE_URL": "mysql://u:p4ssw0rd@h/x",
            "TIME_ZONES": '{"*": "Mars/Olympus"}',
            "KPI_INTERVAL": "soon",
        },
        tmp_path,
    )
    assert done.returncode == 1
    for name in ("DATABASE_URL", "TIME_ZONES", "KPI_INTERVAL"):
        assert name in done.stderr
    assert "p4ssw0rd" not in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_projection_that_can_not_go_on_does_not_stop_webhooks(
    make_service: MakeService, signer: Signer, database_url: str, connection: asyncpg.Connection
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    # The queue is not of the shape that the code knows; later somebody mends it.
    await connection.execute("ALTER TABLE inbox_pending RENAME COLUMN id TO number")
    sender = Sender(service.port, signer)

    def complained() -> bool:
        return any(line["event"] == "leader_unavailable" for line in service.log_lines())

    await wait_until(complained, 20)
    await connection.execute("ALTER TABLE inbox_pending RENAME COLUMN number TO id")
    assert (await sender.send(contact())).taken

    async def projected() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM contacts"))

    await wait_until(projected, 20)
    assert not await sender.missing(connection)
