"""KPI files, the snapshot made of them, and what a KPI that fails does to the others."""

import asyncio
import re
import time
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from exporter.database.connect import create_pool
from exporter.database.errors import UNAVAILABLE
from exporter.kpis import definitions, refresh
from exporter.kpis.definitions import KpiFile, KpiFileError, Metric, all_kpis, read_kpi_file
from exporter.kpis.lists import all_lists
from exporter.kpis.refresh import KpiRefresher
from exporter.kpis.snapshot import DuplicateLabels, Snapshot, render
from exporter.kpis.windows import windows
from exporter.settings import load_settings
from exporter.telemetry.metrics import LiveMetrics, gauge_value
from tests.conftest import MakeService
from tests.conftest import Service as RunningService

HEADER = """/*
endpoint = "revenue-metrics"
labels = ["location"]
[[metric]]
name = "ghl_answer"
explain = ["leads"]
unit = "answers"
help = "Answers."
*/
"""


def kpi(name: str, sql: str, metric: str | None = None, *, timeout: float | None = None) -> KpiFile:
    return KpiFile(
        name=name,
        endpoint="revenue-metrics",
        labels=("location",),
        metric=(
            Metric(
                name=metric or f"ghl_{name}", unit="answers", help="Answers.", explain=("leads",)
            ),
        ),
        timeout=timeout,
        sql=sql,
    )


def test_every_file_can_be_read_and_names_what_a_reader_needs() -> None:
    files = all_kpis()
    assert len(files) >= 12
    for file in files:
        assert file.labels[0] == "location"
        for metric in file.metric:
            assert metric.help.endswith(".")
            assert metric.unit
            assert not metric.name.endswith(("_total", "_count", "_percent"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT 1", "does not start with a header"),
        (HEADER.replace("labels", "labels ="), "Invalid"),
        (HEADER.replace('name = "ghl_answer"\n', ""), "metric.0.name"),
        (HEADER.replace("ghl_answer", "answer"), "metric.0.name"),
        (HEADER.replace("unit", "units"), "metric.0.unit"),
        (HEADER.replace('labels = ["location"]', "labels = []"), "labels"),
        (HEADER.replace("[[metric]]", "timeout = 0\n[[metric]]"), "timeout"),
        (HEADER.replace("[[metric]]", 'name = "other"\n[[metric]]'), "name"),
    ],
)
def test_a_file_that_can_not_be_used_is_named_with_the_reason(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "broken.sql"
    path.write_text(f"{text}\nSELECT 1")
    with pytest.raises(KpiFileError, match=r"^broken\.sql: ") as raised:
        read_kpi_file(path)
    assert says in str(raised.value)


def test_one_metric_in_two_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kpis").mkdir()
    for name in ("one", "two"):
        (tmp_path / "kpis" / f"{name}.sql").write_text(f"{HEADER}SELECT 1")
    monkeypatch.setattr(definitions, "bundled", lambda _: tmp_path)
    with pytest.raises(KpiFileError, match=r"two\.sql: ghl_answer is one\.sql's already"):
        definitions.all_kpis.__wrapped__()


def samples(value: object, location: object = "a") -> tuple[str, int]:
    """Return the text of one row's sample, and how many were dropped."""
    rendered = render(kpi("answer", ""), [{"location": location, "ghl_answer": value}])
    return rendered.families[0][1], rendered.dropped


def test_a_value_becomes_a_sample_or_none_and_never_anything_else() -> None:
    assert samples(3) == ('ghl_answer{location="a"} 3.0\n', 0)
    assert samples(Decimal("0.1")) == ('ghl_answer{location="a"} 0.1\n', 0)
    assert samples(-0.5) == ('ghl_answer{location="a"} -0.5\n', 0)
    # No value is no sample, and nothing to complain of.
    assert samples(None) == ("", 0)
    for value in (float("nan"), float("inf"), Decimal("NaN"), True, "3", b"3", [3]):
        assert samples(value) == ("", 1), value
    for location in (None, 3, b"a"):
        assert samples(3, location) == ("", 1), location


def test_a_label_can_hold_anything() -> None:
    text, dropped = samples(1, 'a"b\\c\nd {e="f"} 1')
    assert text == r'ghl_answer{location="a\"b\\c\nd {e=\"f\"} 1"} 1.0' + "\n"
    assert dropped == 0


def test_two_rows_with_the_same_labels_are_refused() -> None:
    row = {"location": "a", "ghl_answer": 1}
    with pytest.raises(DuplicateLabels, match='location="a"'):
        render(kpi("answer", ""), [row, row])


def test_a_metric_without_samples_has_no_header() -> None:
    assert Snapshot({"answer": render(kpi("answer", ""), [])}).plain == b""


GOOD = kpi("good", "SELECT 'a' AS location, 1 AS ghl_good")
SLOW = kpi("slow", "SELECT 'a' AS location, 1 AS ghl_slow FROM pg_sleep(20)", timeout=0.3)
BROKEN = kpi("broken", "SELECT 'a' AS location, 1 / 0 AS ghl_broken")
DOUBLE = kpi("double", "SELECT 'a' AS location, 1 AS ghl_double FROM generate_series(1, 2)")
LACKING = kpi("lacking", "SELECT 'a' AS location")
ODD = kpi(
    "odd",
    "SELECT * FROM (VALUES ('a', 'NaN'::float8), ('b', 1.5), ('c', NULL)) v (location, ghl_odd)",
)


async def test_one_kpi_that_fails_costs_no_other(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(database_url=database_url)
    files = (GOOD, SLOW, BROKEN, DOUBLE, LACKING, ODD)
    monkeypatch.setattr(refresh, "all_kpis", lambda: files)
    metrics = LiveMetrics()
    async with create_pool(settings, "test") as pool:
        refresher = KpiRefresher(settings, pool, metrics)
        began = time.monotonic()
        snapshot = await refresher.refresh()
        assert time.monotonic() - began < 5
        assert set(snapshot.kpis) == {"good", "odd"}
        assert b'ghl_good{location="a"} 1.0\n' in snapshot.plain
        assert b'ghl_odd{location="b"} 1.5\n' in snapshot.plain
        assert snapshot.plain.count(b"ghl_odd{") == 1

        def value(name: str, of: str) -> float:
            found = metrics.registry.get_sample_value(f"ghl_exporter_{name}", {"kpi": of})
            assert found is not None
            return found

        for name in ("slow", "broken", "double", "lacking"):
            assert value("kpi_refresh_failures_total", name) == 1
            assert value("kpi_last_success_timestamp_seconds", name) == 0
        for name in ("good", "odd"):
            assert value("kpi_refresh_failures_total", name) == 0
            assert value("kpi_last_success_timestamp_seconds", name) == pytest.approx(
                time.time(), abs=60
            )
        assert value("kpi_rows_dropped_total", "odd") == 1
        assert 0.3 <= value("kpi_refresh_duration_seconds", "slow") < 5


async def test_a_kpi_that_fails_later_keeps_its_last_values(
    database_url: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.execute("CREATE TABLE figures (figure int)")
    await connection.execute("INSERT INTO figures VALUES (7)")
    settings = load_settings(database_url=database_url)
    changing = kpi(
        "changing", "SELECT 'a' AS location, 1 / figure * 7 AS ghl_changing FROM figures"
    )
    monkeypatch.setattr(refresh, "all_kpis", lambda: (GOOD, changing))
    await connection.execute("UPDATE figures SET figure = 1")
    async with create_pool(settings, "test") as pool:
        refresher = KpiRefresher(settings, pool, LiveMetrics())
        await refresher.refresh()
        await connection.execute("UPDATE figures SET figure = 0")
        snapshot = await refresher.refresh()
    assert b'ghl_changing{location="a"} 7.0\n' in snapshot.plain
    assert b'ghl_good{location="a"} 1.0\n' in snapshot.plain


async def test_without_the_database_the_last_values_stay(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(database_url=database_url)
    monkeypatch.setattr(refresh, "all_kpis", lambda: (GOOD,))
    pool = create_pool(settings, "test")
    await pool
    refresher = KpiRefresher(settings, pool, LiveMetrics())
    before = await refresher.refresh()
    await pool.close()
    with pytest.raises(UNAVAILABLE):
        await refresher.refresh()
    assert refresher.snapshot is before


async def test_a_location_over_the_limit_has_no_series_and_is_counted(
    database_url: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO locations SELECT 'loc-' || n, now() + n * interval '1 s'"
        " FROM generate_series(1, 5) n"
    )
    settings = load_settings(database_url=database_url, location_series_limit=3)
    metrics = LiveMetrics()
    async with create_pool(settings, "test") as pool:
        text = (await KpiRefresher(settings, pool, metrics).refresh()).plain.decode()
    shown = {line.split('"')[1] for line in text.splitlines() if "location=" in line}
    assert shown == {"loc-1", "loc-2", "loc-3"}
    cut = metrics.registry.get_sample_value(
        "ghl_exporter_label_values_cut_total", {"label": "location"}
    )
    assert cut == 2


async def _many_locations_and_agents(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "INSERT INTO locations SELECT 'loc-' || n, now() + n * interval '1 s'"
        " FROM generate_series(1, 20) n"
    )
    await connection.execute(
        "INSERT INTO agent_performance SELECT 'loc-' || n, (now() AT TIME ZONE 'UTC')::date,"
        " 'agent-' || a, a, a, a * 1000, 1, 1, 1, 1, 1, 1"
        " FROM generate_series(1, 20) n, generate_series(1, 50) a"
    )


async def test_all_series_together_have_a_limit(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """Locations are whole or not there; of agents each location has its best."""
    await _many_locations_and_agents(connection)

    async def published(limit: int) -> tuple[list[str], LiveMetrics]:
        settings = load_settings(database_url=database_url, kpi_series_limit=limit)
        metrics = LiveMetrics()
        async with create_pool(settings, "test") as pool:
            refresher = KpiRefresher(settings, pool, metrics)
            await refresher.refresh()
            text = (await refresher.refresh()).plain.decode()
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(samples) == gauge_value(metrics.kpi_series) <= limit
        return samples, metrics

    def cut(metrics: LiveMetrics, label: str) -> float:
        name = "ghl_exporter_label_values_cut_total"
        return metrics.registry.get_sample_value(name, {"label": label}) or 0

    def by_location(samples: list[str]) -> dict[str, int]:
        return Counter(line.split('location="')[1].split('"')[0] for line in samples)

    samples, metrics = await published(250_000)
    everything = len(samples)
    business = [line for line in samples if "ghl_agent_" not in line]
    assert set(by_location(samples)) == {f"loc-{n}" for n in range(1, 21)}
    assert cut(metrics, "agent") == cut(metrics, "location") == 0

    samples, metrics = await published((everything + len(business)) // 2)
    assert by_location([line for line in samples if "ghl_agent_" not in line]) == by_location(
        business
    )
    best = [line for line in samples if line.startswith("ghl_agent_revenue")]
    counts = by_location(best)
    assert len(counts) == 20
    assert max(counts.values()) - min(counts.values()) <= 4, "each location has its share"
    assert 'agent="agent-50"' in "".join(best)
    assert 'agent="agent-1"' not in "".join(best)
    assert cut(metrics, "agent") > 0
    assert cut(metrics, "location") == 0

    samples, metrics = await published(1000)
    assert len(samples) > 500
    whole = by_location(business)
    found = by_location([line for line in samples if "ghl_agent_" not in line])
    assert found == {location: whole[location] for location in found}
    assert set(found) == {f"loc-{n}" for n in range(1, len(found) + 1)}
    assert cut(metrics, "location") > 0


def leads(service: RunningService) -> dict[str, float]:
    return {k: v for k, v in service.metrics().items() if k.startswith("ghl_leads_created{")}


async def test_a_copy_takes_over_the_kpis_within_seconds(
    make_service: MakeService, database_url: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO locations VALUES ('loc', now())")
    copies = [make_service(database_url=database_url) for _ in range(3)]
    for copy in copies:
        copy.start()

    async def leading(among: list[RunningService], seconds: float) -> RunningService:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = [copy for copy in among if copy.metrics()["ghl_exporter_leader"]]
            assert len(found) <= 1
            if found and leads(found[0]):
                assert not any(leads(copy) for copy in among if copy is not found[0])
                return found[0]
            await asyncio.sleep(0.1)
        raise TimeoutError

    first = await leading(copies, 10)
    rest = [copy for copy in copies if copy is not first]
    first.kill()
    second = await leading(rest, 10)
    second.stop()
    await leading([copy for copy in rest if copy is not second], 10)


async def test_no_kpi_reads_more_than_its_windows(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """A table that is read whole makes a refresh grow with the history."""
    # Four locations, a row each day of the last 2,000, or 12 rows.
    many = "generate_series(0, 7999) n, LATERAL (SELECT 'loc-' || n % 4 AS location,"
    many += " date '2026-06-30' - n / 4 AS day) d, generate_series(1, 12) k"
    one = many.replace("1, 12", "1, 1")
    for table, columns, source in (
        (
            "contacts (location_id, contact_id, created_at, created_day, deleted, first_answer_at,"
            " first_answer_day, first_answer_user, has_deal, scored_in_time, first_score)",
            "n || '-' || k, day, day, false, day + interval '1 h', day, 'ann', false, true, 1",
            many,
        ),
        (
            "deals (location_id, kind, deal_id, closed_day, seconds_from_lead)",
            "'contact', n || '-' || k, day, n",
            many,
        ),
        (
            "recommendations (location_id, recommendation_id, made_day, score, accepted,"
            " scheduled)",
            "n || '-' || k, day, k, true, true",
            many,
        ),
        (
            "activities (location_id, idempotency_key, agent_id, happened_at, happened_day,"
            " ai_used, response_seconds)",
            "n || '-' || k, 'ann', day, day, true, 1",
            many,
        ),
        (
            "platform_webhooks (location_id, tracking_id, started_at, times_out_at, finished_day,"
            " succeeded, enriched, ai_activated)",
            "n || '-' || k, day, day, day, true, true, true",
            many,
        ),
        (
            "conversion_pipeline (location_id, contact_id, stage, reached_at, reached_day,"
            " advanced)",
            "n || '-' || k, 'lead_created', day, day, true",
            many,
        ),
        (
            "opportunities (location_id, opportunity_id, status, first_seen_day, status_since_day,"
            " deleted)",
            "n || '-' || k, CASE WHEN k = 1 THEN 'open' ELSE 'won' END, day, day, false",
            many,
        ),
        (
            "appointments (location_id, appointment_id, status, start_day, scheduled_at, deleted)",
            "n || '-' || k, 'showed', day, day, false",
            many,
        ),
        (
            "interactions (location_id, recommendation_id, idempotency_key, interaction,"
            " happened_at, happened_day)",
            "n || '-' || k, 'k', 'liked', day, day",
            many,
        ),
        ("webhook_outcomes", "day, 'receiver', n || '-' || k, 'ContactCreate', false", many),
        ("agent_performance", f"day, k::text{', 1' * 9}", many),
        ("daily_business", f"day{', 1' * 17}", one),
        ("daily_stages", "day, 'lead_created', 1, 1, 1", one),
        ("daily_interactions", "day, k::text, 1", many),
        ("webhook_performance", "day, 'receiver', k::text, 1, 1, 0, 0, 0", many),
    ):
        await connection.execute(f"INSERT INTO {table} SELECT location, {columns} FROM {source}")
    await connection.execute("ANALYZE")
    settings = load_settings(database_url=database_url)
    chosen = windows(
        settings,
        [f"loc-{n}" for n in range(4)],
        now=datetime(2026, 7, 1, tzinfo=UTC),
        until=date(2026, 6, 30),
    )
    parameters = [list(column) for column in zip(*chosen, strict=True)]
    options = settings.model_dump(mode="json", include=set(definitions.OPTIONS))
    for file in all_kpis():
        plan = await connection.fetch(
            f"EXPLAIN {file.query}", *parameters, datetime.now(UTC), options
        )
        read_whole = set(re.findall(r"Seq Scan on (\w+)", "\n".join(row[0] for row in plan)))
        # A cell of each day that has an open opportunity, a row of each agent: thousands at most.
        assert read_whole <= {"open_pipeline", "users"}, file.name
    first, last = date(2026, 4, 2), date(2026, 6, 30)
    for found in all_lists().values():
        text, _ = found.statement({})
        plan = await connection.fetch(
            f"EXPLAIN {text.format('*')}", "loc-1", first, last, datetime.now(UTC)
        )
        lines = "\n".join(row[0] for row in plan)
        assert "Seq Scan" not in lines, (found.name, lines)
