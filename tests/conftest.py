"""Fixtures: a real PostgreSQL, a database for each test, the service as a process."""

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from exporter.database.connect import connect
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey
from exporter.settings import Settings, load_settings

# Material that lies beside a checkout in development; tests that read it are skipped without it.
SHARED = Path(__file__).parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared material")

TEMPLATE = "template_migrated"

# A shell ignores Ctrl-C for what it starts in the background, and every process would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what can't be encoded, half surrogates say: reports of workers are sent as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@dataclass(frozen=True)
class Signer:
    """Signs bodies as GHL does, with a key of our own."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def pem(self) -> str:
        public = self.key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def headers(self, body: bytes) -> dict[str, str]:
        return {"X-GHL-Signature": base64.b64encode(self.key.sign(body)).decode()}


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings come from the tests alone: not from the shell, not from a `.env` in the checkout."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Remove the databases of this run, and all its files unless a test failed.

    Root's temporary folders are closed to the user that PostgreSQL runs as, so its data is moved to
    /var/tmp, where no run would remove it. This fixture is the first, so every server has stopped.
    """
    yield
    made = tmp_path_factory.getbasetemp()
    for password in list(made.rglob("postgres.password")):
        shutil.rmtree(EmbeddedPostgres(password.parent).location, ignore_errors=True)
    if not request.session.testsfailed:
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A real server for the session, with a template that has all migrations."""
    server = EmbeddedPostgres(
        tmp_path_factory.mktemp("postgres"), settings={"max_connections": "200"}
    )
    with server:
        asyncio.run(make_template(server))
        yield server


async def make_template(server: EmbeddedPostgres) -> None:
    admin = await asyncpg.connect(server.url())
    await admin.execute(f"CREATE DATABASE {TEMPLATE}")
    await admin.close()
    connection = await connect(load_settings(database_url=server.url(TEMPLATE)), "test")
    await migrate(connection)
    await connection.close()


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield postgres.url(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def role_of_the_pages(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The name of the role, and of its database, in the pages; both are gone afterwards."""
    name = "ghl_exporter"
    yield name
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.execute(f"DROP ROLE IF EXISTS {name}")
    await admin.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database."""
    opened = await connect(load_settings(database_url=database_url), "test")
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A real Redis-compatible server for the session."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """The service as its users run it: a process of its own."""

    def __init__(self, directory: Path, environment: dict[str, str], port: int) -> None:
        self.directory = directory
        self.environment = environment
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "service.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True, command: list[str] | None = None) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command or [sys.executable, "-m", "exporter", "serve"],
                env=self.environment,
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise RuntimeError(f"the service ended:\n{self.log.read_text()[-3000:]}")
            try:
                if self.get("/-/healthy")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(self.log.read_text()[-3000:])

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def metrics(self) -> dict[str, float]:
        """Return the samples of /metrics by name and labels, as they are written."""
        _, body = self.get("/metrics")
        samples = {}
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def log_lines(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> int:
        """SIGTERM, as a restart does."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        """SIGKILL, as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)


MakeService = Callable[..., Service]


@pytest.fixture
def make_service(tmp_path: Path, signer: Signer) -> Iterator[MakeService]:
    """Make services with settings of the test; whatever still runs at its end is killed."""
    services: list[Service] = []

    def make(**settings: object) -> Service:
        port = free_port()
        directory = tmp_path / f"service-{len(services)}"
        directory.mkdir()
        values = {
            "listen_address": f"127.0.0.1:{port}",
            "ghl_public_keys": signer.pem,
            "spool_path": directory / "spool.sqlite3",
            "log_format": "json",
            "kpi_interval": "0.5",
            **settings,
        }
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **{name.upper(): str(value) for name, value in values.items()},
        }
        services.append(Service(directory, environment, port))
        return services[-1]

    yield make
    for service in services:
        if service.process is not None and service.process.poll() is None:
            service.kill()


async def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for a condition (plain or async) with a limit."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.05)
