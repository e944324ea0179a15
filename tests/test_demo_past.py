"""The demo's past: real facts, blocks that promtool makes, and what Prometheus answers by them."""

import asyncio
import json
import os
import shutil
import signal
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.database.connect import connect
from exporter.demo.agency import (
    DEFAULT_LOCATIONS,
    DEMO_CURRENCIES,
    DEMO_LOCATION_NAMES,
    DEMO_PIPELINE_STAGES,
    DEMO_TIME_ZONES,
    Agency,
)
from exporter.demo.past import LOOKBACK, Past, PromtoolError
from exporter.demo.servers import EmbeddedPostgres, Prometheus
from exporter.demo.servers._process import _children
from exporter.demo.traffic import write_history
from exporter.settings import Settings, load_settings
from tests.conftest import TEMPLATE, free_port, wait_until
from tests.projecting import kpis, project_all

pytestmark = pytest.mark.skipif(
    not (Prometheus.available() and Past.available()), reason="no prometheus or promtool on PATH"
)

# Their days begin ten and a half hours apart or so, and Kolkata's on the half of an hour.
PLACES = tuple(replace(DEFAULT_LOCATIONS[place], leads_per_day=25) for place in (0, 3))
# More than a block: at least two are made.
DAYS = 8
HOUR = timedelta(hours=1)
LABELS = {"job": "ghl-exporter", "instance": "127.0.0.1:12105"}


@pytest.fixture(scope="module")
def settings(postgres: EmbeddedPostgres) -> Settings:
    """Settings of a database that holds some days of an agency, as facts."""
    made = load_settings(
        database_url=postgres.url("past"),
        time_zones=DEMO_TIME_ZONES,
        pipeline_stages=DEMO_PIPELINE_STAGES,
        location_names=DEMO_LOCATION_NAMES,
        currencies=DEMO_CURRENCIES,
    )
    asyncio.run(_write_facts(postgres.url(), made))
    return made


async def _write_facts(admin_url: str, settings: Settings) -> None:
    admin = await asyncpg.connect(admin_url)
    await admin.execute(f"CREATE DATABASE past TEMPLATE {TEMPLATE}")
    await admin.close()
    connection = await connect(settings, "test")
    now = datetime.now(UTC)
    agency = Agency(seed=3, locations=PLACES)
    await write_history(connection, agency, now - timedelta(days=DAYS), now, lambda *_: None)
    await project_all(connection, settings, 4000)
    await connection.close()


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    opened = await connect(settings, "test")
    yield opened
    await opened.close()


@pytest.fixture
async def prometheus(tmp_path: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus that has begun to scrape, itself."""
    port = free_port()
    config = (
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: own\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
    )
    with Prometheus(tmp_path, config=config, port=port, lookback=LOOKBACK) as server:
        await wait_until(server.oldest_sample)
        yield server


def ask(server: Prometheus, query: str, at: datetime) -> list[dict[str, Any]]:
    parameters = urllib.parse.urlencode({"query": query, "time": at.timestamp()})
    with urllib.request.urlopen(f"{server.url()}/api/v1/query?{parameters}", timeout=30) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


def everything(server: Prometheus, series: str) -> dict[str, list[tuple[datetime, float]]]:
    """Return every sample of some series by location, far into the future."""
    found = ask(server, f"{series}[100d]", datetime.now(UTC) + timedelta(days=9))
    return {
        each["metric"].get("location", ""): [
            (datetime.fromtimestamp(at, UTC), float(value)) for at, value in each["values"]
        ]
        for each in found
    }


def load_blocks(server: Prometheus) -> None:
    """Start anew: it looks for blocks then, else once a minute."""
    server.stop()
    server.start()


def told_hours(until: datetime) -> Iterator[datetime]:
    """Yield an hour before a moment, and the full hours before, back to before the history."""
    hour = (until - HOUR).replace(microsecond=0)
    for _ in range((DAYS + 4) * 24):
        yield hour
        full = hour.replace(minute=0, second=0)
        hour = full if full < hour else full - HOUR


async def test_each_hour_tells_what_the_kpis_were_at_the_end_of_the_day_before(
    settings: Settings, prometheus: Prometheus, connection: asyncpg.Connection
) -> None:
    own = everything(prometheus, "up")[""][0]
    oldest = prometheus.oldest_sample()
    assert oldest is not None
    assert oldest <= own[0]
    past = Past(settings, prometheus, LABELS)
    written = await past.write()
    load_blocks(prometheus)

    told = everything(prometheus, 'ghl_revenue{window="7d",instance="127.0.0.1:12105"}')
    assert set(told) == {place.id for place in PLACES}
    for place in PLACES:
        first = await connection.fetchval(
            "SELECT first_seen FROM locations WHERE location_id = $1", place.id
        )
        first_day = first.astimezone(place.zone).date()
        revenue: dict[date, float] = {}
        expected = []
        for hour in told_hours(oldest):
            day = hour.astimezone(place.zone).date() - timedelta(days=1)
            if day < first_day:
                continue
            if day not in revenue:
                revenue[day] = await connection.fetchval(
                    "SELECT coalesce(sum(deal_value), 0)::float FROM deals WHERE location_id = $1"
                    " AND closed_day BETWEEN $2 AND $3",
                    *(place.id, day - timedelta(days=6), day),
                )
            expected.append((hour, revenue[day]))
        assert told[place.id] == expected[::-1]
        assert len(revenue) >= DAYS
        assert len(set(revenue.values())) > 3

    hour = (oldest - 60 * HOUR).replace(minute=0, second=0, microsecond=0)
    for place in PLACES:
        at_that_time = {
            key_of(each["metric"]): float(each["value"][1])
            for each in ask(prometheus, f'{{job="ghl-exporter",location="{place.id}"}}', hour)
            if each["metric"].get("window", "7d") == "7d"
        }
        until = hour.astimezone(place.zone).date() - timedelta(days=1)
        computed = await kpis(
            connection, settings, [place.id], until=until, days=7, now=datetime.now(UTC)
        )
        # What is open now says nothing of then, and what things are called is no KPI.
        gone = ("ghl_open_", "ghl_agent_info", "ghl_location_info")
        assert {
            key: value for key, value in at_that_time.items() if not key.startswith(gone)
        } == pytest.approx(
            {key: value for key, value in computed[place.id].items() if not key.startswith(gone)}
        )
        assert any(key.startswith("ghl_agent_info") for key in at_that_time)
        assert not any(key.startswith("ghl_open_") for key in at_that_time)

    found = ask(prometheus, '{job="ghl-exporter"}[100d]', datetime.now(UTC) + timedelta(days=9))
    assert sum(len(each["values"]) for each in found) == written > 10_000
    # Its own samples are still there after the start, from the first one.
    assert everything(prometheus, "up")[""][0] == own
    assert await past.write() == 0


def key_of(labels: dict[str, str]) -> str:
    """Return a series as `kpis()` names it."""
    own = sorted(set(labels) - {"__name__", "job", "instance", "location", "window"})
    text = ",".join(f'{name}="{labels[name]}"' for name in own)
    return f"{labels['__name__']}{{{text}}}" if text else labels["__name__"]


async def test_what_was_cut_short_is_made_whole(settings: Settings, prometheus: Prometheus) -> None:
    series = 'ghl_leads_created{window="1d"}'
    past = Past(settings, prometheus, LABELS)
    written = await past.write()
    load_blocks(prometheus)
    whole = everything(prometheus, series)

    prometheus.stop()
    blocks = sorted(prometheus.data.glob("01*/meta.json"), key=min_time)
    assert len(blocks) > 1
    shutil.rmtree(blocks[0].parent)
    prometheus.start()
    assert everything(prometheus, series) != whole
    again = await past.write()
    assert 0 < again < written
    load_blocks(prometheus)
    assert everything(prometheus, series) == whole


def min_time(path: Path) -> int:
    time_: int = json.loads(path.read_text())["minTime"]
    return time_


async def test_cancelled_it_leaves_no_promtool_and_no_files(
    settings: Settings, prometheus: Prometheus
) -> None:
    past = Past(settings, prometheus, LABELS)
    before = _children(os.getpid())
    writing = asyncio.create_task(past.write())
    deadline = time.monotonic() + 60
    while not (started := promtools(before)):
        assert not writing.done()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    # It would end by itself in no time: stopped, it does not.
    os.kill(started[0], signal.SIGSTOP)
    await asyncio.sleep(0.2)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(writing, 20)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert not (prometheus.directory / "past").exists()
    assert not list(prometheus.data.glob("01*"))
    assert past.progress == ""
    assert await past.write() > 10_000


def promtools(before: list[int]) -> list[int]:
    return [
        pid
        for pid in _children(os.getpid())
        if pid not in before and b"promtool" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


async def test_it_waits_for_the_facts(
    settings: Settings, prometheus: Prometheus, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO inbox_pending SELECT id, location_id, received_at FROM inbox LIMIT 1"
    )
    past = Past(settings, prometheus, LABELS)
    writing = asyncio.create_task(past.write())
    await asyncio.sleep(1.5)
    assert not past.progress
    assert not writing.done()
    await project_all(connection, settings)
    assert await writing > 10_000


async def test_what_promtool_says_is_told(
    settings: Settings, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past(settings, prometheus, {"job": "two\nlines"})
    with pytest.raises(PromtoolError, match="expected label value"):
        await past.write()
    assert not (prometheus.directory / "past").exists()
    assert not list(prometheus.data.glob("01*"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert not Past.available()
