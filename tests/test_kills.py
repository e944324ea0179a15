"""Kill -9 of PostgreSQL and of the service, again and again, while webhooks come in.

The sender keeps a ledger. Afterwards it and the inbox hold the same, and the KPIs are those that
the definitions give for the ledger.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from exporter.database.connect import connect
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rebuild import rebuild
from exporter.settings import load_settings
from tests import oracle
from tests.conftest import MakeService, Service, Signer, wait_until
from tests.projecting import kpis
from tests.sender import GHL_PATH, Answer, exchange, head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KILLS = int(os.environ.get("KILLS", "20"))
SENDERS = 6
LOCATIONS = ("north", "south")
# One in this many is sent once more although it was taken.
RESENT = 10


def _event(random: Random, number: int, now: datetime) -> tuple[str, dict[str, Any]]:
    """Return address and body of an event: a few entities, which many events tell of."""
    location = random.choice(LOCATIONS)
    at = (now - timedelta(seconds=random.uniform(0, 5 * 86_400))).isoformat()
    who = f"lead-{random.randint(1, 40)}"
    body: dict[str, Any] = {
        "locationId": location,
        "timestamp": at,
        "webhookId": f"hook-{number}",
    }
    name = random.choice(
        (
            "ContactCreate",
            "ContactUpdate",
            "OpportunityCreate",
            "OpportunityStatusUpdate",
            "OpportunityMonetaryValueUpdate",
            "AppointmentCreate",
            "AppointmentUpdate",
            "OutboundMessage",
            "InboundMessage",
            "NoteCreate",
        )
    )
    if name.startswith("Contact"):
        body |= {"id": who, "dateAdded": at if random.random() < 0.5 else None}
    elif name.startswith("Opportunity"):
        body |= {
            "id": f"opp-{random.randint(1, 30)}",
            "contactId": who,
            "status": random.choice(("open", "won", "lost")),
            "monetaryValue": random.choice((None, 100_000, 250_000.5)),
            "assignedTo": random.choice(("ann", "bob", None)),
        }
    elif name.startswith("Appointment"):
        body["appointment"] = {
            "id": f"visit-{random.randint(1, 30)}",
            "contactId": who,
            "appointmentStatus": random.choice(("new", "showed", "noshow")),
            "startTime": at,
        }
    elif name.endswith("Message"):
        body |= {"contactId": who, "userId": "ann", "dateAdded": at}
    if random.random() < 0.03:
        body.pop("id", None)  # unusable, yet signed: it is stored all the same
    if random.random() < 0.5:
        body["type"] = name
    return f"{GHL_PATH}/{name}", body


@dataclass
class Agency:
    """Sends what GHL would, and tries again what GHL tries again."""

    service: Service
    signer: Signer
    random: Random
    ledger: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Address and body of what was taken, by its webhookId."""
    answers: list[Answer] = field(default_factory=list)
    broken: int = 0
    scraped: int = 0
    metrics_failed: list[str] = field(default_factory=list)
    stopped: bool = False
    _number: int = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self._send_until_stopped())

    async def _send_until_stopped(self) -> None:
        while not self.stopped:
            self._number += 1
            path, told = _event(self.random, self._number, datetime.now(UTC))
            body = json.dumps(told).encode()
            await self._send_until_taken(path, body)
            self.ledger[told["webhookId"]] = (path, body)
            if self.random.randrange(RESENT) == 0:
                await self._send_until_taken(path, body)
            await asyncio.sleep(0.005)

    async def _send_until_taken(self, path: str, body: bytes) -> None:
        request = head(path, self.signer.headers(body), length=len(body)) + body
        while True:
            try:
                answer = await exchange(self.service.port, request)
            except OSError:  # nobody listens: the service was killed
                answer = Answer(0, {}, b"", 0.0)
            if answer.status:
                self.answers.append(answer)
            else:
                self.broken += 1
            if answer.taken:
                return
            await asyncio.sleep(0.05)

    async def scrape(self) -> None:
        """Ask for /metrics all the while: it answers without a database too."""
        request = b"GET /metrics HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
        while not self.stopped:
            answer = await exchange(self.service.port, request)
            self.scraped += 1
            if answer.status != 200:
                self.metrics_failed.append(f"{answer.status} {answer.body[:200]!r}")
            await asyncio.sleep(0.1)


@dataclass
class Scene:
    """A PostgreSQL of the test's own, the service, and the agency."""

    postgres: EmbeddedPostgres
    service: Service
    agency: Agency
    random: Random


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "own") as server:
        yield server


@pytest.fixture
async def scene(
    own_postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer
) -> AsyncIterator[Scene]:
    seed = int(os.environ.get("SEED", time.time_ns() % 2**32))
    print(f"SEED={seed}")
    random = Random(seed)
    url = own_postgres.url()
    settings = load_settings(database_url=url)
    connection = await connect(settings, "test")
    await migrate(connection)
    await connection.close()
    service = make_service(database_url=url, log_level="warning")
    service.start()
    yield Scene(own_postgres, service, Agency(service, signer, random), random)


async def _under_load(scene: Scene, faults: Callable[[], Awaitable[None]]) -> None:
    load = asyncio.create_task(scene.agency.run())
    try:
        await faults()
    finally:
        await asyncio.sleep(0.5)
        scene.agency.stopped = True
        await asyncio.wait_for(load, 60)


async def _kill_postgres(scene: Scene) -> None:
    await asyncio.to_thread(scene.postgres.kill)
    await asyncio.sleep(scene.random.uniform(0, 0.4))
    await asyncio.to_thread(scene.postgres.start)


async def _kill_service(scene: Scene) -> None:
    await asyncio.to_thread(scene.service.kill)
    await asyncio.sleep(scene.random.uniform(0, 0.1))
    await asyncio.to_thread(scene.service.start)


async def test_killing_postgresql_again_and_again_loses_nothing(scene: Scene) -> None:
    async def faults() -> None:
        scraping = asyncio.create_task(scene.agency.scrape())
        for _ in range(KILLS):
            await asyncio.sleep(scene.random.uniform(0.1, 1.0))
            await _kill_postgres(scene)
        scene.agency.stopped = True
        await scraping

    await _under_load(scene, faults)
    assert scene.agency.scraped > KILLS
    assert not scene.agency.metrics_failed
    assert not scene.agency.broken, "the service answers whatever PostgreSQL does"
    assert any(answer.status == 202 for answer in scene.agency.answers)
    await _check(scene)


async def test_killing_the_service_again_and_again_loses_nothing(scene: Scene) -> None:
    async def faults() -> None:
        for _ in range(KILLS):
            await asyncio.sleep(scene.random.uniform(0.1, 1.0))
            await _kill_service(scene)

    await _under_load(scene, faults)
    assert scene.agency.broken
    await _check(scene)


async def test_killing_both_loses_nothing_of_the_spool_either(scene: Scene) -> None:
    async def faults() -> None:
        for _ in range(max(KILLS // 4, 1)):
            await asyncio.to_thread(scene.postgres.kill)
            await asyncio.sleep(scene.random.uniform(0.2, 0.6))
            # Killed with a full spool, and again while the next one drains it.
            await _kill_service(scene)
            await asyncio.to_thread(scene.postgres.start)
            await asyncio.sleep(scene.random.uniform(0, 1.0))
            await _kill_service(scene)

    await _under_load(scene, faults)
    await _check(scene)


async def _check(scene: Scene) -> None:
    """Compare with the ledger: the answers, the inbox, the facts, the KPIs."""
    agency = scene.agency
    seconds = sorted(answer.seconds for answer in agency.answers)
    print(f"{len(seconds)} answers, at most {seconds[-1]:.3f} s;", end=" ")
    print(f"{sum(one > 2 for one in seconds)} took over 2 s")
    assert {answer.status for answer in agency.answers} <= {200, 202, 429}
    assert len(agency.ledger) > 10 * KILLS
    url = scene.postgres.url()
    settings = load_settings(database_url=url)
    async with contextlib.AsyncExitStack() as stack:
        connections = []
        for _ in range(2):
            connections.append(await connect(settings, "test", command_timeout=60))
            stack.push_async_callback(connections[-1].close)
        connection, reader = connections

        async def settled() -> bool:
            waiting = await connection.fetchval("SELECT count(*) FROM inbox_pending")
            return waiting == 0 and scene.service.metrics()["ghl_exporter_spool_events"] == 0

        await wait_until(settled, 60)
        rows = await connection.fetch(
            "SELECT idempotency_key, endpoint, body, received_at FROM inbox"
        )
        stored = {row["idempotency_key"]: row for row in rows}
        assert len(stored) == len(rows), "nothing is stored twice"
        assert {key: row["body"] for key, row in stored.items()} == {
            key: body for key, (_, body) in agency.ledger.items()
        }
        report = await rebuild(
            connection, reader, FactSettings.from_settings(settings), dry_run=True
        )
        assert not any(report.differences.values()), report.differences

        now = datetime.now(UTC)
        found = await kpis(connection, settings, LOCATIONS, until=now.date(), days=7, now=now)
        events = [
            oracle.Event(
                "ghl", f"ghl/{row['endpoint']}", json.loads(row["body"]), row["received_at"]
            )
            for row in stored.values()
        ]
        for location in LOCATIONS:
            expected = oracle.kpis(
                events,
                location=location,
                zone=settings.zone(location),
                until=now.date(),
                days=7,
                now=now,
            )
            assert found[location] == pytest.approx(expected, rel=1e-9)
