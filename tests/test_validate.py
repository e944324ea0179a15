"""`ghl-exporter validate` as who sets the service up uses it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import aiohttp
import asyncpg
import pytest

from exporter.api.keys import create_key
from exporter.commands.output import Output
from exporter.database.locks import PROJECTION_LOCK
from exporter.demo.servers import EmbeddedValkey
from exporter.erasure.everywhere import erase
from exporter.settings import load_settings
from exporter.validate.progress import Progress
from exporter.validate.report import Report, percentile
from exporter.validate.service import erasing
from tests.conftest import MakeService, Service, wait_until
from tests.projecting import dump, store
from tests.test_erase import KEPT, everything, story

WRITE = ("--test-api", "--write-to-this-service")
OWN = "ghl-exporter-validate-"


def _start(directory: Path, *flags: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "exporter", "validate", *flags],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "COLUMNS": "160",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _validate(directory: Path, *flags: str, **environment: str) -> tuple[int, str]:
    process = _start(directory, *flags, **environment)
    said, _ = process.communicate(timeout=180)
    return process.returncode, said


async def _run(directory: Path, *flags: str, **environment: str) -> tuple[int, str]:
    return await asyncio.to_thread(_validate, directory, *flags, **environment)


async def test_two_at_once_with_servers_of_their_own_and_demo_data(tmp_path: Path) -> None:
    # What is measured hangs on the machine: that it meets a target is no test's business. The
    # settings of another service in the environment are not for this one.
    flags = ("--setup-db", "--demo-data", "--days", "3", "--test-api")
    others = {"GHL_LOCATION_ID": "elsewhere", "METRICS_TOKEN": "x" * 20, "KPI_INTERVAL": "nonsense"}
    runs = await asyncio.gather(*(_run(tmp_path, *flags, **others) for _ in range(2)))
    for status, said in runs:
        assert status == 0, said
        assert "0 failed" in said
        for part in (
            "all migrations are applied",
            "events stored and projected",
            "total_revenue grew",
            "a signed one is taken",
            "what was written is erased",
        ):
            assert part in said


async def test_it_reads_a_location_that_is_there_and_that_the_key_may_see(
    running: Service, connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    another = "before-others"
    await store(connection, story(another))
    await wait_until(lambda: f'"{another}"' in running.get("/metrics")[1].decode())
    one = await create_key(connection, "one", ["read"], [KEPT])
    status, said = await _run(tmp_path, "--url", running.url, GHL_EXPORTER_KEY=one)
    assert status == 0, said
    assert f"about {KEPT}" in said
    # Its series stay until the KPIs are computed again.
    await erase(load_settings(database_url=database_url), another)
    every = await create_key(connection, "all", ["read"], ["*"])
    status, said = await _run(tmp_path, "--url", running.url, GHL_EXPORTER_KEY=every)
    assert status == 0, said
    assert f"about {KEPT}" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["starting PostgreSQL", "writing an agency's history"])
def test_servers_of_its_own_are_gone_when_it_is_stopped(
    tmp_path: Path, number: signal.Signals, phase: str
) -> None:
    process = _start(tmp_path, TMPDIR=str(tmp_path))
    assert process.stdout is not None
    while phase not in (line := process.stdout.readline()):
        assert line, "it ended"
    time.sleep(1)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
async def running(
    make_service: MakeService,
    connection: asyncpg.Connection,
    database_url: str,
    valkey: EmbeddedValkey,
) -> Service:
    """A service with a real location, which caches answers for long."""
    service = make_service(
        database_url=database_url, redis_url=valkey.url(), dashboard_cache_ttl="300"
    )
    service.start()
    await store(connection, story(KEPT))
    await wait_until(lambda: f'"{KEPT}"' in service.get("/metrics")[1].decode())
    return service


async def test_it_only_reads_unless_it_is_told_twice(
    running: Service, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    key = await create_key(connection, "reader", ["read"], ["*"])
    before = await everything(connection)
    for flags in (("--test-api",), ("--test-api", "--location-id", KEPT)):
        status, said = await _run(tmp_path, "--url", running.url, *flags, GHL_EXPORTER_KEY=key)
        assert status == 0, said
        assert "add --write-to-this-service" in said
        assert "/dashboard" in said
        assert f"about {KEPT}" in said
    assert await everything(connection) == before
    assert await connection.fetchval("SELECT count(*) FROM erased_locations") == 0


@pytest.mark.parametrize("also", [(), ("--write-to-this-service",)])
async def test_a_location_that_is_not_there_is_named_before_anything_is_written(
    running: Service, connection: asyncpg.Connection, tmp_path: Path, also: tuple[str, ...]
) -> None:
    key = await create_key(connection, "all", ["admin"], ["*"])
    flags = ("--url", running.url, "--location-id", "no where", *also)
    status, said = await _run(tmp_path, *flags, GHL_EXPORTER_KEY=key)
    assert status == 1
    assert said.split("\n") == [
        "wrong  --location-id: the service knows no location 'no where'",
        "",
    ]
    assert await connection.fetchval("SELECT count(*) FROM erased_locations") == 0


async def test_it_reads_metrics_with_their_token(
    make_service: MakeService, connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    token = "of-the-metrics"
    service = make_service(database_url=database_url, metrics_token=token)
    service.start()
    await store(connection, story(KEPT))
    headers = {"Authorization": f"Bearer {token}"}
    await wait_until(lambda: f'"{KEPT}"' in service.get("/metrics", headers)[1].decode())
    key = await create_key(connection, "reader", ["read"], ["*"])
    url = ("--url", service.url, "--test-api")
    status, said = await _run(tmp_path, *url, GHL_EXPORTER_KEY=key, METRICS_TOKEN=token)
    assert status == 0, said
    assert f"about {KEPT}" in said
    assert token not in said
    _, said = await _run(tmp_path, *url, GHL_EXPORTER_KEY=key)
    assert "no location is known" in said


async def test_what_it_writes_is_gone_afterwards_and_real_locations_are_untouched(
    running: Service, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    key = await create_key(connection, "all", ["admin"], ["*"])
    before = await dump(connection)
    for _ in range(2):
        status, said = await _run(tmp_path, "--url", running.url, *WRITE, GHL_EXPORTER_KEY=key)
        assert status == 0, said
        assert "1 could not be made" in said, "only GHL signs for a service that is not ours"
        assert "total_revenue grew" in said
        assert OWN not in await everything(connection)
    after = await dump(connection)
    assert after == before
    await wait_until(lambda: OWN not in running.get("/metrics")[1].decode())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_while_it_waits_it_says_how_it_goes_and_erases(
    running: Service, connection: asyncpg.Connection, tmp_path: Path, number: signal.Signals
) -> None:
    key = await create_key(connection, "all", ["admin"], ["*"])
    # Nothing becomes a fact meanwhile.
    await connection.execute("SELECT pg_advisory_lock($1)", PROJECTION_LOCK)
    process = _start(tmp_path, "--url", running.url, *WRITE, GHL_EXPORTER_KEY=key)
    written = "SELECT count(*) FROM inbox WHERE location_id LIKE $1"

    async def tracked() -> bool:
        return bool(await connection.fetchval(written, f"{OWN}%") >= 9)

    await wait_until(tracked)
    await asyncio.sleep(6)
    process.send_signal(number)
    await asyncio.sleep(0.5)
    await connection.execute("SELECT pg_advisory_unlock($1)", PROJECTION_LOCK)
    said, _ = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 130, said
    assert "s of at most" in said
    assert "stopped before its end" in said
    assert "Traceback" not in said
    assert await connection.fetchval(written, f"{OWN}%") == 0
    assert OWN not in await everything(connection)


async def test_an_error_erases_too_and_a_failure_to_erase_says_the_command(
    running: Service, connection: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    key = await create_key(connection, "all", ["admin"], ["*"])
    output, report = Output(), Report()
    await store(connection, story("mistake"))
    async with aiohttp.ClientSession(running.url) as session:
        with pytest.raises(RuntimeError, match="half-way"):
            async with erasing(session, key, "mistake", report, output, Progress(output)):
                raise RuntimeError("half-way")
        assert "mistake" not in await everything(connection)
        assert report.failed == 0
        async with erasing(session, "wrong", "mistake", report, output, Progress(output)):
            pass
    assert report.failed == 1
    assert "run ghl-exporter erase mistake" in capsys.readouterr().err


class _LoginPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Please log in</html>")

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def _another_program() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _LoginPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_what_can_not_be_done_is_one_line(
    running: Service, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    reader = await create_key(connection, "reader", ["read"], ["*"])
    tracker = await create_key(connection, "tracker", ["track"], ["*"])
    one = await create_key(connection, "one", ["admin"], [KEPT])
    before = await everything(connection)
    at = ("--url", running.url)
    with _another_program() as elsewhere:
        for flags, key, part in (
            ((*at, *WRITE), reader, "lacks the scope admin"),
            ((*at, *WRITE), one, "may not see the location"),
            (at, tracker, "lacks the scope read"),
            (at, "ghlx_0_wrong", "does not know this key"),
            (at, "", "set GHL_EXPORTER_KEY"),
            ((*at, "--demo-data"), reader, "leave out --url"),
            (("--url", "http://127.0.0.1:1"), reader, "can't be reached"),
            (("--url", elsewhere), reader, "no ghl-exporter answers there"),
        ):
            status, said = await _run(tmp_path, *flags, GHL_EXPORTER_KEY=key)
            assert status == 1, said
            [line] = said.splitlines()
            assert part in line
            assert not key or key not in line
    assert await everything(connection) == before


def test_a_figure_over_its_target_fails() -> None:
    report = Report()
    report.below("speed", "quick enough", 49.9, 50, "ms")
    assert report.failed == 0
    report.below("speed", "too slow", 50, 50, "ms")
    report.add("speed", "not measured", None)
    assert report.failed == 1
    assert percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9) == 9
    assert percentile([7], 0.9) == 7
