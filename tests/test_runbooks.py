"""The runbooks: one for each alert, whose commands, metrics, tables and log lines exist."""

import re
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import promql_parser
import pytest
import yaml

from alerts.alert import Alert
from exporter.database.locks import LEADER_LOCK
from exporter.demo.servers import Alertmanager, Prometheus
from exporter.inbox.record import SCHEMA
from exporter.kpis.definitions import all_kpis
from exporter.settings import Settings
from tests.alerting import BY_NAME, EVERY_ALERT, loopback_receivers, point_at_loopback
from tests.conftest import MakeService, Service, free_port, wait_until
from tests.test_landing import Balanced

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "alerts" / "runbooks"
INDEX = FOLDER / "README.md"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path != INDEX)
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
FOR_WHOM = {
    ("page", "on-call"): "A page: it wakes on-call.",
    ("ticket", "on-call"): "A ticket: it waits for the day.",
    ("ticket", "business"): "For those who run the business, by day.",
    ("none", "on-call"): "Neither page nor ticket: it always fires.",
}


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the blocks of code in a language, each with its page's name."""
    return [
        (path.stem, block)
        for path in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    ]


def spoken() -> str:
    """Return all pages without their blocks."""
    text = "\n".join(path.read_text("utf-8") for path in PAGES)
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    assert {path.stem for path in PAGES} == set(BY_NAME)


@pytest.mark.parametrize("alert", EVERY_ALERT, ids=lambda alert: alert.name)
def test_each_page_has_its_parts(alert: Alert) -> None:
    text = (FOLDER / f"{alert.name}.md").read_text("utf-8")
    assert text.startswith(
        f"# {alert.name}\n\n{FOR_WHOM[alert.severity, alert.team]}\n\n## Meaning"
    )
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert len(part.split()) > 10
    # On-call is told what to do at night.
    assert re.search(r"3 a\.m\.|till morning|at night", text)


def test_the_index_lists_each_alert_with_what_it_means() -> None:
    rows = []
    for alert in EVERY_ALERT:
        text = (FOLDER / f"{alert.name}.md").read_text("utf-8")
        meaning = re.search(r"## Meaning\n\n(.+?\.)\s", text, re.DOTALL)
        assert meaning is not None
        sentence = " ".join(meaning[1].split())
        rows.append(f"| [{alert.name}]({alert.name}.md) | {alert.severity} | {sentence} |")
    found = [line for line in INDEX.read_text("utf-8").splitlines() if line.startswith("| [")]
    assert found == rows


@pytest.mark.parametrize("path", [*PAGES, INDEX], ids=lambda path: path.stem)
def test_every_link_leads_to_a_page(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        assert (FOLDER / target).is_file(), target


async def test_every_sql_runs(database_url: str, connection: asyncpg.Connection) -> None:
    found = blocks("sql")
    assert len(found) > 20
    for page, sql in found:
        async with connection.transaction(readonly=True):
            try:
                await connection.fetch(sql)
            except asyncpg.PostgresError as error:
                raise AssertionError(f"{page}: {sql}") from error


async def test_the_holder_of_the_leaders_lock_is_found(
    make_service: MakeService, database_url: str, connection: asyncpg.Connection
) -> None:
    [sql] = [sql for page, sql in blocks("sql") if page == "GhlExporterNoLeader"]
    assert await connection.fetch(sql) == []
    service = make_service(database_url=database_url)
    service.start()
    await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    [holder] = await connection.fetch(sql)
    assert holder["application_name"] == "ghl-exporter leader"
    service.stop()
    # The same lock by another session of this database.
    assert await connection.fetchval("SELECT pg_try_advisory_lock($1)", LEADER_LOCK)
    [holder] = await connection.fetch(sql)
    assert holder["pid"] == connection.get_server_pid()


def test_every_sqlite_runs_on_a_spool() -> None:
    show, again, remove = [sql for _, sql in blocks("sqlite")]
    spool = sqlite3.connect(":memory:")
    spool.execute(SCHEMA)
    problems = (None, "damaged: the checksum does not match", "PostgreSQL refuses it: why")
    for problem in problems:
        spool.execute(
            "INSERT INTO spool (problem, checksum, location_id, source, endpoint, event_type,"
            " idempotency_key, correlation_id, received_at_us, body)"
            " VALUES (?, x'', 'loc', 'ghl', '', 'ContactCreate', 'key', 'id', ?, x'')",
            (problem, 1_700_000_000_000_000),
        )
    shown = spool.execute(show).fetchall()
    assert [row[1] for row in shown] == [*problems[1:]]
    assert shown[0][-1] == "2023-11-14 22:13:20"
    spool.execute(again)
    assert [row[1] for row in spool.execute(show)] == [problems[1]]
    spool.execute(remove)
    assert spool.execute("SELECT count(*), count(problem) FROM spool").fetchone() == (2, 0)
    spool.close()


@pytest.fixture
def watched(
    make_service: MakeService, database_url: str, tmp_path: Path
) -> Iterator[tuple[Service, Prometheus]]:
    """A service, and a Prometheus that scrapes it, an Alertmanager and itself."""
    service = make_service(database_url=database_url)
    service.start()
    with loopback_receivers() as received:
        alertmanager = Alertmanager(tmp_path, config=point_at_loopback(tmp_path, received))
        port = free_port()
        targets = {
            "ghl-exporter": service.port,
            "alertmanager": alertmanager.port,
            "prometheus": port,
        }
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{number}"]}]}
                for job, number in targets.items()
            ],
        }
        prometheus = Prometheus(tmp_path, config=yaml.safe_dump(config), port=port)
        with alertmanager, prometheus:
            yield service, prometheus


def ask(prometheus: Prometheus, path: str, **query: str) -> Any:
    url = f"{prometheus.url()}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as response:
        return orjson.loads(response.read())["data"]


def selectors(expression: Any) -> Iterator[promql_parser.VectorSelector]:
    """Yield every selector within an expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (inner := getattr(expression, name, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(expression, "args", ()):
        yield from selectors(inner)


async def test_every_promql_runs_and_every_series_in_it_exists(
    watched: tuple[Service, Prometheus],
) -> None:
    service, prometheus = watched
    await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    up = "count(up == 1) == 3 and on () ghl_exporter_leader == 1"
    await wait_until(lambda: ask(prometheus, "query", query=up)["result"], 20)
    labels: dict[str, set[str]] = {
        metric.name: {"job", "instance", *kpi.labels, metric.label or ""}
        for kpi in all_kpis()
        for metric in kpi.metric
    }
    for series in ask(prometheus, "series", **{"match[]": '{job=~".+"}'}):
        labels.setdefault(series.pop("__name__"), set()).update(series)
    recorded = {
        rule["record"]
        for path in ROOT.glob("recording_rules/*.yml")
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    }
    found = blocks("promql")
    assert len(found) > 40
    for page, text in found:
        ask(prometheus, "query", query=text)
        for selector in selectors(promql_parser.parse(text)):
            if selector.name is None or selector.name in recorded:
                continue
            assert selector.name in labels, (page, selector.name)
            for matcher in selector.matchers.matchers:
                assert matcher.name in labels[selector.name], (page, text)


def test_what_the_pages_name_exists() -> None:
    text = "\n".join(path.read_text("utf-8") for path in (*PAGES, INDEX))
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    commands = set(re.findall(r"(?:^|`|exporter )ghl-exporter ([a-z]+(?: revoke)?)", text, re.M))
    assert {"check", "rebuild", "replay", "import", "migrate", "keys revoke"} <= commands
    for command in commands:
        assert f"## ghl-exporter {command}\n" in reference, command
    settings = {name.upper() for name in Settings.model_fields}
    for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text):
        assert name in settings | {"KEY_ID"}, name


def test_what_the_pages_look_for_in_the_log_is_logged() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "exporter").rglob("*.py"))
    logged = set(re.findall(r"log\.\w+\(\s*\"(\w+)\"", code))
    for name in re.findall(r"Availability\(\s*\"(\w+)\"", code):
        logged |= {f"{name}_unavailable", f"{name}_available"}
    searched = [
        word
        for _, block in blocks("sh")
        for pattern in re.findall(r"grep (?:-\w+ )?(?:'([^']+)'|(\w+_\w+))", block)
        for word in re.findall(r"\w+", "".join(pattern))
    ]
    assert {"kpi_failed", "database_unavailable", "task_failed", "refused"} <= set(searched)
    fields = {"event", "outcome", "refused", "kpi", "a", "z_"}
    assert set(searched) - fields - logged == set()
    # Words with an underscore between back quotes are lines of the log, metrics, or one of these.
    others = {"pg_wal", "job_name", "waits_for", "correlation_id", "contact_id"}
    for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", spoken()):
        assert word in logged | others or word.startswith("ghl_"), word


def page(service: Service, path: str) -> str:
    status, body = service.get(path)
    assert status == 200
    html = body.decode()
    balanced = Balanced()
    balanced.feed(html)
    assert balanced.open == []
    return html


def test_the_service_shows_the_pages_that_alerts_lead_to(
    make_service: MakeService, database_url: str
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    assert 'href="/runbooks/"' in page(service, "/")
    index = page(service, "/runbooks/")
    assert page(service, "/runbooks") == index
    links = re.findall(r'href="(\w+\.md)"', index)
    assert {link.removesuffix(".md") for link in links} == set(BY_NAME)
    for link in links:
        shown = page(service, f"/runbooks/{link}")
        name = link.removesuffix(".md")
        assert f"<h1>{name}</h1>" in shown
        assert f"<title>{name} · ghl-exporter</title>" in shown
        assert [*re.findall("<h2>(.+)</h2>", shown)] == HEADINGS
        assert all(target in links for target in re.findall(r'href="(\w+\.md)"', shown))
        assert "<script" not in shown
    assert page(service, "/runbooks/GhlExporterDown") == page(
        service, "/runbooks/GhlExporterDown.md"
    )


def test_a_page_that_is_none_is_a_problem(make_service: MakeService, database_url: str) -> None:
    service = make_service(database_url=database_url)
    service.start()
    for name in ("Other", "..%2F..%2F..%2Fpyproject.toml", "README.md.md", "%00", "<b>"):
        status, body = service.get(f"/runbooks/{name}")
        assert status == 404, name
        assert orjson.loads(body) == {
            "title": "Not Found",
            "status": 404,
            "detail": "no alert has this name",
        }
