"""`ghl-exporter simulate` as a container runs it: against a service that runs elsewhere."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from exporter.database.connect import connect
from exporter.demo.agency import (
    DEMO_CURRENCIES,
    DEMO_LOCATION_NAMES,
    DEMO_PIPELINE_STAGES,
    DEMO_TIME_ZONES,
    Agency,
)
from exporter.demo.platform import stream
from exporter.demo.servers import EmbeddedPostgres
from exporter.demo.simulate import make_key, public_half, settings_text
from exporter.demo.traffic import as_received
from exporter.settings import load_settings
from exporter.settings.public_keys import split_pem
from tests.conftest import TEMPLATE, MakeService, Service, Signer, wait_until
from tests.projecting import received, store
from tests.sender import contact

Simulate = Callable[..., "Simulation"]


class Simulation:
    """The command in a process of its own."""

    def __init__(self, output: Path, arguments: list[str], **settings: str) -> None:
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "exporter", "simulate", *arguments],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(Path(__file__).parents[1]),
                    "PYTHONUNBUFFERED": "1",
                    **{name.upper(): value for name, value in settings.items()},
                },
                cwd=output.parent,
                stdout=file,
                stderr=file,
            )

    def said(self) -> str:
        return self.output.read_text()

    async def until(self, text: str, seconds: float = 60) -> None:
        def is_said() -> bool:
            assert self.process.poll() is None, self.said()
            return text in self.said()

        await wait_until(is_said, seconds)

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for it to end by itself; return its status and what it said."""
        return self.process.wait(seconds), self.said()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        status, said = self.end(20)
        assert status == 0, said
        return said


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "signing.key"
    make_key(path)
    return path


@pytest.fixture
def simulate(tmp_path: Path, key_file: Path) -> Iterator[Simulate]:
    """Start the command; none outlives the test."""
    started: list[Simulation] = []

    def start(url: str, database_url: str, *flags: str) -> Simulation:
        arguments = ["--url", url, "--key-file", str(key_file), *flags]
        output = tmp_path / f"simulate-{len(started)}"
        started.append(Simulation(output, arguments, database_url=database_url))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def trusting(make_service: MakeService, database_url: str, key_file: Path) -> Service:
    """Make a service that is set up as the command says."""
    lines = [line.partition("=") for line in settings_text(key_file).splitlines()[1:]]
    settings = {name.lower(): value.strip("'") for name, _, value in lines}
    service = make_service(database_url=database_url, **settings)
    # What the fixture signs with would be nearer than the file.
    del service.environment["GHL_PUBLIC_KEYS"]
    return service


def test_a_key_is_made_once_and_only_its_public_half_can_be_read_by_all(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    arguments = [
        sys.executable,
        "-m",
        "exporter",
        "simulate",
        "--make-key",
        "--key-file",
        str(path),
    ]
    for _ in range(2):
        before = path.read_bytes() if path.exists() else None
        subprocess.run(arguments, env={"PYTHONPATH": str(Path(__file__).parents[1])}, check=True)
        assert before in (None, path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(split_pem(public_half(path).read_text())) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"signing.key", "signing.key.pub"}


def test_the_printed_settings_are_the_agency_s(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / ".env").write_text(settings_text(key_file))
    settings = load_settings()
    assert settings.ghl_public_keys == public_half(key_file).read_text().strip()
    assert settings.time_zones == DEMO_TIME_ZONES
    assert settings.location_names == DEMO_LOCATION_NAMES
    assert settings.currencies == DEMO_CURRENCIES
    assert settings.pipeline_stages == DEMO_PIPELINE_STAGES


async def test_waits_writes_the_history_sends_and_continues_after_a_stop(
    make_service: MakeService,
    simulate: Simulate,
    key_file: Path,
    database_url: str,
    connection: asyncpg.Connection,
) -> None:
    service = trusting(make_service, database_url, key_file)
    first = simulate(service.url, database_url, "--days", "3", "--rate", "20")
    await first.until("waiting for http")
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 0
    service.start()
    await first.until("sending")

    def total(name: str, *labels: str) -> float:
        samples = service.metrics().items()
        return sum(
            value
            for sample, value in samples
            if sample.startswith(f"{name}{{") and all(label in sample for label in labels)
        )

    await wait_until(lambda: total("ghl_leads_created", 'window="7d"') > 100, 30)
    stored = ("ghl_exporter_webhooks_total", 'outcome="stored"', 'source="ghl"')
    await wait_until(lambda: total(*stored) > 20, 30)
    assert total("ghl_exporter_webhooks_rejected_total") == 0
    said = first.stop()
    assert said.rstrip().endswith("stopped"), said
    assert "Traceback" not in said

    # What others told later, a trial say, is no reason not to go on.
    await store(connection, [received(contact(locationId="trial"), "ghl", datetime.now(UTC))])
    second = simulate(service.url, database_url, "--days", "3", "--rate", "20")
    await second.until("sending")
    history = next(line for line in second.said().splitlines() if line.endswith(" events"))
    assert int(history.split()[1].replace(",", "")) < 1000, "the history was written again"
    second.stop(signal.SIGINT)
    keys = await connection.fetch("SELECT revoked_at FROM api_keys ORDER BY created_at")
    assert [key["revoked_at"] is None for key in keys] == [False, True]


@pytest.mark.slow
async def test_a_history_that_was_broken_off_is_continued_to_its_end(
    make_service: MakeService,
    simulate: Simulate,
    key_file: Path,
    database_url: str,
    connection: asyncpg.Connection,
) -> None:
    service = trusting(make_service, database_url, key_file)
    service.start()
    begun = datetime.now(UTC)
    first = simulate(service.url, database_url, "--days", "8", "--rate", "0")

    async def is_half_written() -> bool:
        return bool(await connection.fetchval("SELECT count(*) > 1500 FROM inbox"))

    await wait_until(is_half_written, 60)
    first.process.kill()
    first.process.wait()
    assert "sending" not in first.said()
    second = simulate(service.url, database_url, "--days", "8", "--rate", "0")
    await second.until("sending")
    second.stop()
    # Some seconds later than the command's own beginning, so all of it lies within its history.
    expected = {
        as_received(told).key for told in stream(Agency(seed=1), begun - timedelta(days=7), begun)
    }
    rows = await connection.fetch("SELECT location_id, source, idempotency_key FROM inbox_keys")
    assert len(expected) > 7_000
    assert expected <= {tuple(row) for row in rows}


async def test_a_database_with_events_of_others_is_refused(
    make_service: MakeService,
    simulate: Simulate,
    key_file: Path,
    database_url: str,
    connection: asyncpg.Connection,
) -> None:
    service = trusting(make_service, database_url, key_file)
    service.start()
    await store(connection, [received(contact(locationId="loc-real"), "ghl", datetime.now(UTC))])
    status, said = simulate(service.url, database_url, "--days", "1").end()
    assert status == 1, said
    assert "DATABASE_URL has events of location loc-real" in said
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 1


async def test_a_service_that_does_not_trust_the_key_is_refused_before_anything_is_written(
    make_service: MakeService,
    simulate: Simulate,
    signer: Signer,
    database_url: str,
    connection: asyncpg.Connection,
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    status, said = simulate(service.url, database_url, "--days", "1").end()
    assert status == 1, said
    assert f"{service.url} does not trust this key" in said
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 0
    assert await connection.fetchval("SELECT count(*) FROM api_keys") == 0


async def test_a_database_that_is_not_the_service_s_is_refused(
    make_service: MakeService,
    simulate: Simulate,
    key_file: Path,
    database_url: str,
    postgres: EmbeddedPostgres,
    connection: asyncpg.Connection,
) -> None:
    service = trusting(make_service, database_url, key_file)
    service.start()
    name = f"other_{uuid4().hex}"
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    status, said = simulate(service.url, postgres.url(name), "--days", "1", "--wait", "2").end()
    assert status == 1, said
    assert "does not come to DATABASE_URL" in said
    other = await connect(load_settings(database_url=postgres.url(name)), "test")
    assert await other.fetchval("SELECT count(*) FROM inbox") == 0
    await other.close()


def test_a_service_that_never_comes_and_a_file_that_is_no_key_are_said(
    simulate: Simulate, key_file: Path
) -> None:
    nowhere = "http://127.0.0.1:9"
    status, said = simulate(nowhere, "postgresql://127.0.0.1:9/x", "--wait", "1").end(30)
    assert status == 1
    assert f"{nowhere} is not ready (waited 1 s)" in said
    key_file.write_bytes(b"short")
    status, said = simulate(nowhere, "postgresql://127.0.0.1:9/x").end(30)
    assert status == 1
    assert f"{key_file} is no signing key" in said
    assert "Traceback" not in said
