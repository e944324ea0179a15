"""While facts are of a part of the history, nothing shows figures as final."""

import asyncio
import csv
import io
import json
import os
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.api.keys import create_key
from exporter.database.locks import PROJECTION_LOCK
from exporter.demo.servers import EmbeddedValkey
from exporter.domain.event import InboxEvent
from tests.conftest import MakeService, Service, wait_until
from tests.projecting import received, store
from tests.test_commands import command
from tests.test_import import opportunity, write
from tests.test_landing import lines

BASE = "/api/business-metrics"
COMPLETE = "ghl_exporter_history_complete"
NOT_FINAL = "Figures are not final, and there is no grade: "
# Each answer that has figures.
ANSWERS = (
    "dashboard/loc",
    "summary/loc",
    "revenue-metrics/loc",
    "agent-performance/loc",
    "performance-grade/loc",
    "explain/ghl_leads_created?location_id=loc",
)


def lead(name: str, ago: timedelta = timedelta()) -> InboxEvent:
    """Return a lead that came just now, or so long ago."""
    now = datetime.now(UTC)
    body = {"type": "ContactCreate", "locationId": "loc", "id": name, "dateAdded": now.isoformat()}
    return received(json.dumps(body).encode(), "ghl", now - ago)


class Asker:
    """Asks a service for everything that shows figures."""

    def __init__(self, service: Service, key: str) -> None:
        self.service = service
        self.key = key

    def ask(self, path: str) -> tuple[Any, bytes]:
        """Return an answer's headers and its body."""
        request = urllib.request.Request(
            f"{self.service.url}{BASE}/{path}", headers={"Authorization": f"Bearer {self.key}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers, answer.read()

    def json(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask(path)[1])
        return found

    def graded(self) -> bool:
        """Tell whether a grade is on /metrics."""
        return b"ghl_performance_" in self.service.get("/metrics")[1]

    async def says(self, *, complete: bool) -> None:
        """Wait for the gauge, and require that all the others say the same."""
        await wait_until(lambda: self.service.metrics().get(COMPLETE) == complete)
        assert self.graded() is complete
        for path in ANSWERS:
            assert self.json(path)["history_complete"] is complete, path
        grade = self.json("dashboard/loc")["performance_grade"]["grade"]
        assert (grade is not None) is complete
        figures = self.json("performance-grade/loc")["figures"]
        assert bool(figures["ghl_performance_grade"]) is complete
        assert (figures["ghl_performance_score_ratio"] is not None) is complete
        await wait_until(lambda: ("banner" in lines(self.service).values()) is not complete)


@pytest.fixture
async def asker(
    make_service: MakeService,
    connection: asyncpg.Connection,
    database_url: str,
    valkey: EmbeddedValkey,
) -> Asker:
    """Ask a service that knows a lead, has a grade, and keeps answers for long."""
    await store(connection, [lead("first")])
    service = make_service(
        database_url=database_url, redis_url=valkey.url(), dashboard_cache_ttl="300"
    )
    service.start()
    key = await create_key(connection, "all", ["read"], ["*"])
    asker = Asker(service, key)
    await wait_until(asker.graded)
    return asker


async def test_while_events_wait_for_long_nothing_is_final(
    asker: Asker, connection: asyncpg.Connection
) -> None:
    await connection.execute("SELECT pg_advisory_lock($1)", PROJECTION_LOCK)
    # What came just now is in no hurry.
    await store(connection, [lead("second")])
    await asyncio.sleep(1.5)
    await asker.says(complete=True)
    await store(connection, [lead(f"old-{n}", timedelta(minutes=5)) for n in range(7)])
    # Other questions than were asked before: those answers are kept, and were final.
    await wait_until(lambda: asker.service.metrics().get(COMPLETE) == 0)
    assert not asker.graded()
    part = asker.json("dashboard/loc?days=9")
    assert part["history_complete"] is False
    assert part["performance_grade"]["grade"] is None
    assert part["summary"]["leads_created"] == 1
    headers, body = asker.ask("dashboard/loc?days=9&format=csv")
    assert 'filename="dashboard-loc-not-final.csv"' in headers["Content-Disposition"]
    assert dict(csv.reader(io.StringIO(body.decode())))["history_complete"] == "false"
    headers, _ = asker.ask("explain/ghl_leads_created?location_id=loc&format=csv")
    assert "-not-final.csv" in headers["Content-Disposition"]
    assert "no-store" in headers["Cache-Control"]
    banner = f"{NOT_FINAL}stored events that are not in them yet: 8."
    await wait_until(lambda: lines(asker.service).get(banner) == "banner")
    assert banner in asker.json("health")["problems"]

    await connection.execute("SELECT pg_advisory_unlock($1)", PROJECTION_LOCK)
    await asker.says(complete=True)
    # What was not final is not kept.
    assert asker.json("dashboard/loc?days=9")["summary"]["leads_created"] == 9
    headers, _ = asker.ask("dashboard/loc?days=9&format=csv")
    assert 'filename="dashboard-loc.csv"' in headers["Content-Disposition"]


async def test_an_import_that_was_killed_leaves_figures_of_a_part_until_it_is_whole(
    asker: Asker, connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "deals.jsonl", [opportunity(number) for number in range(1200)])
    whole = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "exporter", "import", str(path)),
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "DATABASE_URL": database_url,
        },
    )
    with await asyncio.to_thread(path.open, "wb") as pipe:
        pipe.write(whole[: len(whole) // 2])
        pipe.flush()

        async def half() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM deals") >= 500)

        await wait_until(half)
        process.kill()
        await process.wait()
    # All that is stored has become facts, and yet: it is a part.
    await wait_until(lambda: asker.service.metrics()["ghl_exporter_inbox_backlog_events"] == 0)
    await asker.says(complete=False)
    banner = f"{NOT_FINAL}the import of deals.jsonl has not come to its end."
    assert lines(asker.service)[banner] == "banner"
    path.unlink()
    path.write_bytes(whole)
    done = command("import", str(path), database_url=database_url)
    assert done.returncode == 0, done.stderr
    assert "known" in done.stdout
    await wait_until(lambda: asker.service.metrics().get(COMPLETE) == 1)
    assert asker.json("dashboard/loc?days=300")["summary"]["deals_closed"] == 1200
    await asker.says(complete=True)


async def test_an_import_that_is_given_up_is_forgotten(
    asker: Asker, connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "given-up.jsonl"
    unknown = command("import", str(path), "--forget", database_url=database_url)
    assert unknown.returncode == 1
    assert f"no import of {path} is known" in unknown.stderr
    await connection.execute("INSERT INTO imports (file, started_at) VALUES ($1, now())", str(path))
    await asker.says(complete=False)
    done = command("import", str(path), "--forget", database_url=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    await asker.says(complete=True)


async def test_who_publishes_no_kpis_says_nothing_of_them(
    asker: Asker, make_service: MakeService, database_url: str
) -> None:
    follower = make_service(database_url=database_url)
    follower.start()
    await wait_until(lambda: follower.metrics()["ghl_exporter_database_up"] == 1)
    await asyncio.sleep(1)
    assert COMPLETE not in follower.metrics()
    assert asker.service.metrics()[COMPLETE] == 1
