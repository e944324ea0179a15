"""A service with an agency's data, a real Prometheus with the real rules: everything that boards,
rules and variables ask for has an answer.
"""

import asyncio
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from alerts.generate import ALERTS, files
from exporter.database.connect import connect
from exporter.demo import past
from exporter.demo.agency import (
    DEFAULT_LOCATIONS,
    DEMO_CURRENCIES,
    DEMO_LOCATION_NAMES,
    DEMO_PIPELINE_STAGES,
    DEMO_TIME_ZONES,
    Agency,
)
from exporter.demo.past import LOOKBACK, Past
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey, Prometheus
from exporter.demo.traffic import write_history
from exporter.domain.slo import TILE
from exporter.settings import load_settings
from tests.conftest import TEMPLATE, Service, Signer, free_port, wait_until
from tests.sender import Sender, contact
from tests.test_boards import FILES, filled_in, panels, read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Prometheus.available() and Past.available()), reason="no prometheus on PATH"
    ),
]

# Half a day apart: while one has no leads yet, because its day has just begun, it is noon in the
# other.
PLACES = tuple(replace(DEFAULT_LOCATIONS[place], leads_per_day=24) for place in (0, 3))
HISTORY = timedelta(days=75)
# Four weeks before are asked for, and the 30 days before.
KNOWN_PAST = timedelta(days=33)

# What has no answer while all is well, and why.
EMPTY = {
    'ALERTS{alertstate="firing",service="ghl-exporter",severity=~"page|ticket"}': "nothing fires",
    'changes(process_start_time_seconds{job="ghl-exporter"}[10m]) > 0': "nothing was restarted",
    'changes(process_start_time_seconds{job="ghl-exporter"}[30m]) > 0': "nothing was restarted",
}
EMPTY_RECORDS = {
    "job:slo_budget_lasts:seconds": "nothing burns",
}


@dataclass
class Stack:
    """What answers."""

    prometheus: Prometheus

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression gives now. Fails where it is refused."""
        query = urllib.parse.urlencode({"query": expression})
        address = f"{self.prometheus.url()}/api/v1/query?{query}"
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            with error:
                pytest.fail(f"{expression}: {error.read().decode()}")
        return found


def _rule_files(directory: Path) -> list[str]:
    """Copy the rules with shorter tiles and intervals: nobody waits five minutes here."""
    for name in files():
        text = (Path(__file__).parents[1] / name).read_text("utf-8")
        text = text.replace(f":{TILE}]", ":2s]").replace("interval: 1m", "interval: 1s")
        (directory / name.replace("/", "-")).write_text(text, "utf-8")
    return [str(directory / "*-*.yml")]


@pytest.fixture(scope="module")
def stack(
    postgres: EmbeddedPostgres,
    valkey: EmbeddedValkey,
    signer: Signer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    settings = {
        "database_url": postgres.url("stack"),
        "redis_url": valkey.url(),
        "time_zones": DEMO_TIME_ZONES,
        "pipeline_stages": DEMO_PIPELINE_STAGES,
        "location_names": DEMO_LOCATION_NAMES,
        "currencies": DEMO_CURRENCIES,
    }
    port = free_port()
    environment = {
        name.upper(): value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    } | {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "GHL_PUBLIC_KEYS": signer.pem,
        "KPI_INTERVAL": "1",
        "PROJECTION_BATCH_SIZE": "4000",
    }
    asyncio.run(_prepare(postgres, str(settings["database_url"])))
    service = Service(directory, environment, port)
    service.start()
    labels = {"job": "ghl-exporter", "instance": f"127.0.0.1:{port}"}
    config = (
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: {json.dumps(_rule_files(directory))}\n"
        "scrape_configs:\n"
        "  - job_name: ghl-exporter\n"
        f"    static_configs: [{{targets: ['{labels['instance']}']}}]\n"
    )
    try:
        with Prometheus(directory, config=config, lookback=LOOKBACK) as prometheus:
            made = Past(load_settings(_env_file=None, **settings), prometheus, labels)
            asyncio.run(_fill(made, prometheus, Sender(port, signer)))
            yield Stack(prometheus)
    finally:
        service.stop()


async def _prepare(postgres: EmbeddedPostgres, url: str) -> None:
    admin = await connect(load_settings(database_url=postgres.url()), "test")
    await admin.execute(f"CREATE DATABASE stack TEMPLATE {TEMPLATE}")
    await admin.close()
    connection = await connect(load_settings(database_url=url), "test")
    now = datetime.now(UTC)
    agency = Agency(seed=5, locations=PLACES)
    await write_history(connection, agency, now - HISTORY, now, lambda *_: None)
    await connection.close()


async def _fill(made: Past, prometheus: Prometheus, sender: Sender) -> None:
    """Write the past, send some webhooks meanwhile, and wait until Prometheus has both."""
    past.PAST, whole = KNOWN_PAST, past.PAST
    try:
        writing = asyncio.create_task(made.write())
        number = 0
        while not writing.done():
            number += 1
            await sender.send(contact(id=f"new-{number}", locationId=PLACES[number % 2].id))
            await asyncio.sleep(0.3)
        assert await writing
    finally:
        past.PAST = whole
    # At its start it loads the blocks at once, else within a minute.
    prometheus.stop()
    prometheus.start()
    stack = Stack(prometheus)
    await wait_until(lambda: stack.ask('ghl_revenue{window="30d"} offset 30d'), 100)
    # Two scrapes and two evaluations later all that follows is there too.
    since = time.monotonic()
    while time.monotonic() < since + 6:
        number += 1
        await sender.send(contact(id=f"new-{number}", locationId=PLACES[number % 2].id))
        await asyncio.sleep(0.3)


def _selectors(expression: Any) -> Iterator[str]:
    """Yield the selectors of a parsed expression, without ranges and offsets."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield re.sub(r" offset .*", "", expression.prettify())
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield from _selectors(expression.vector_selector)
    else:
        for part in ("lhs", "rhs", "expr", "param"):
            yield from _selectors(getattr(expression, part)) if hasattr(expression, part) else ()
        for argument in getattr(expression, "args", ()) or ():
            yield from _selectors(argument)


def _without(stack: Stack, expressions: dict[str, str]) -> dict[str, str]:
    return {name: expr for name, expr in expressions.items() if not stack.ask(expr)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_has_data(stack: Stack, path: Path) -> None:
    asked = {
        f"{panel['title']} {target['refId']}": filled_in(target["expr"])
        for panel in panels(read(path))
        for target in panel["targets"]
        if target["expr"] not in EMPTY and "ALERTS_FOR_STATE" not in target["expr"]
    }
    assert asked
    assert not _without(stack, asked)


def test_the_board_of_alerts_names_those_that_fire(stack: Stack) -> None:
    [asked] = [
        target["expr"]
        for path in FILES
        for panel in panels(read(path))
        for target in panel["targets"]
        if "ALERTS_FOR_STATE" in target["expr"]
    ]
    # Nothing else fires: the Watchdog has to do.
    found = stack.ask(asked.replace('severity=~"page|ticket"', 'alertname="Watchdog"'))
    assert [series["metric"]["alertname"] for series in found] == ["Watchdog"]
    assert abs(float(found[0]["value"][1]) / 1000 - time.time()) < 3600


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_variable_has_values_and_every_annotation_can_be_asked(
    stack: Stack, path: Path
) -> None:
    board = read(path)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"query_result\((.*)\)", variable["query"], re.DOTALL)
            assert match is not None
            found = stack.ask(filled_in(match[1]))
            assert found, variable["name"]
            # As Grafana writes a series, for the variable's regular expression to read.
            pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
            for series in found:
                labels = ",".join(f'{key}="{text}"' for key, text in series["metric"].items())
                read_as = pattern.search(f"{{{labels}}} 1 0")
                assert read_as is not None, labels
                assert read_as["text"]
                assert read_as["value"]
    for annotation in board["annotations"]["list"]:
        assert annotation["expr"] in EMPTY
        stack.ask(annotation["expr"])


def test_every_recorded_rule_has_data(stack: Stack) -> None:
    asked = {
        f"{rule['record']} {rule['labels']}": rule["expr"].replace(f":{TILE}]", ":2s]")
        for name, content in files().items()
        if name.startswith("recording_rules/")
        for group in content["groups"]
        for rule in group["rules"]
        if rule["record"] not in EMPTY_RECORDS
        # The day before may have been a Sunday, without a deal.
        and (rule["labels"].get("window") != "1d" or rule["labels"]["figure"] == "leads")
    }
    assert len(asked) > 100
    assert not _without(stack, asked)


def test_every_recorded_rule_is_recorded(stack: Stack) -> None:
    names = {
        rule["record"]
        for name, content in files().items()
        if name.startswith("recording_rules/")
        for group in content["groups"]
        for rule in group["rules"]
    }
    assert not _without(stack, {name: name for name in names - EMPTY_RECORDS.keys()})


def test_every_alert_asks_for_what_there_is_and_is_silent(stack: Stack) -> None:
    asked: dict[str, str] = {}
    for alerts in ALERTS.values():
        for alert in alerts:
            stack.ask(alert.expr)
            for selector in _selectors(promql_parser.parse(alert.expr)):
                asked[f"{alert.name} {selector}"] = selector
    assert len(asked) > 30
    assert not _without(stack, asked)
    firing = stack.ask('ALERTS{alertstate="firing",alertname!="Watchdog",team="on-call"}')
    assert not [series["metric"]["alertname"] for series in firing]
