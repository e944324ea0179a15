"""What the boards say while no copy leads, and while the service is down: asked of Prometheus."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alerts.generate import files
from exporter.demo.servers import Prometheus
from tests.conftest import MakeService, Service, free_port, wait_until
from tests.test_boards import FILES, ROOT, filled_in, panels, read

needs_prometheus = pytest.mark.skipif(not Prometheus.available(), reason="no prometheus on PATH")
NO_LEADER = "no instance leads"
# What stands for data that is missing, and says nothing more.
MISSING = {"no data", "-"}


def every_panel() -> dict[str, dict[str, Any]]:
    """Return the panels by their titles; the later board's where two have the same."""
    return {panel["title"]: panel for path in FILES for panel in panels(read(path))}


def shown(panel: dict[str, Any], value: float | None) -> str:
    """Return what a panel writes for a value: a word of its mappings, or the value."""
    defaults = panel["fieldConfig"]["defaults"]
    if value is None:
        return str(defaults["noValue"])
    for mapping in defaults.get("mappings", ()):
        options = mapping["options"]
        if mapping["type"] == "value" and f"{value:g}" in options:
            return str(options[f"{value:g}"]["text"])
        if mapping["type"] == "range" and value >= options["from"]:
            return str(options["result"]["text"])
    return f"{value:g}"


def test_missing_data_is_never_called_anything_else() -> None:
    found = {
        text
        for path in FILES
        for text in re.findall(r'"noValue": "([^"]*)"', path.read_text("utf-8"))
    } | {
        str(one["value"])
        for path in FILES
        for panel in panels(read(path))
        for field in panel["fieldConfig"]["overrides"]
        for one in field["properties"]
        if one["id"] == "noValue"
    }
    assert found <= MISSING


def test_no_age_is_that_of_a_time_that_has_never_been() -> None:
    """`time() - 0` is 57 years: either what is 0 is left out, or it has a word of its own."""
    for path in FILES:
        for panel in panels(read(path)):
            for target in panel["targets"]:
                if "timestamp_seconds" in target["expr"]:
                    assert "> 0" in target["expr"] or '"never"' in json.dumps(panel), panel["title"]


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """Return a service that finds nobody where PostgreSQL should be."""
    return make_service(database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none")


@pytest.fixture
def asked(tmp_path: Path, service: Service) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Yield what asks a Prometheus that scrapes the service. Its alerts wait for nothing."""
    for name in files():
        text = (ROOT / name).read_text("utf-8").replace("interval: 1m", "interval: 1s")
        text = re.sub(r"^( +for:) .+$", r"\1 0s", text, flags=re.MULTILINE)
        (tmp_path / name.replace("/", "-")).write_text(text, "utf-8")
    config = (
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: {json.dumps([str(tmp_path / '*-*.yml')])}\n"
        "scrape_configs:\n"
        "  - job_name: ghl-exporter\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{service.port}']}}]\n"
    )
    with Prometheus(tmp_path, config=config) as prometheus:

        def ask(expression: str) -> list[dict[str, Any]]:
            query = urllib.parse.urlencode({"query": filled_in(expression)})
            with urllib.request.urlopen(f"{prometheus.url()}/api/v1/query?{query}") as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found

        yield ask


@needs_prometheus
async def test_what_is_said_without_a_leader_and_without_the_service(
    service: Service, asked: Callable[[str], list[dict[str, Any]]]
) -> None:
    every = every_panel()

    def say(title: str) -> str:
        found = asked(every[title]["targets"][0]["expr"])
        return shown(every[title], float(found[0]["value"][1]) if found else None)

    def all_of(expected: dict[str, str]) -> bool:
        said.clear()
        said.update({title: say(title) for title in expected})
        return said == expected

    async def are_said(**expected: str) -> None:
        wanted = {title.replace("_", " "): text for title, text in expected.items()}
        try:
            await wait_until(lambda: all_of(wanted), 40)
        except AssertionError:
            assert said == wanted

    said: dict[str, str] = {}
    # No copy leads, and no KPI was ever computed.
    service.start()
    await are_said(
        Exporter="Up",
        Leader=NO_LEADER,
        PostgreSQL="Down",
        Redis="not used",
        Copies="1",
        Oldest_KPI=NO_LEADER,
        Facts=NO_LEADER,
        Last_updated=NO_LEADER,
        GHL_last_came="none yet",
        Alerting="Up",
        Backlog="no data",
        Oldest_waits="no data",
    )
    ages = asked(every["KPIs by age"]["targets"][0]["expr"])
    assert ages
    [age] = [one for one in every["KPIs by age"]["fieldConfig"]["overrides"]
             if one["matcher"]["options"] == "Age"]  # fmt: skip
    [never] = [one["value"][0] for one in age["properties"] if one["id"] == "mappings"]
    assert all(float(one["value"][1]) > never["options"]["from"] for one in ages)
    firing = every["Alerts that fire"]["targets"][0]["expr"]
    await wait_until(
        lambda: "GhlExporterNoLeader" in {one["metric"]["alertname"] for one in asked(firing)}, 20
    )

    service.stop()
    await are_said(
        Exporter="Down",
        Copies="0",
        Leader="no data",
        PostgreSQL="no data",
        Redis="no data",
        Oldest_KPI="no data",
        Facts="no data",
        Last_updated="no data",
        GHL_last_came="no data",
        Alerting="Up",
    )
    await wait_until(
        lambda: "GhlExporterDown" in {one["metric"]["alertname"] for one in asked(firing)}, 20
    )
    # As many as the table has rows, and no "none" beside them.
    await wait_until(lambda: say("Firing") == str(len(asked(firing))) != "0", 20)
    # The objective sees it too.
    await wait_until(
        lambda: [one["value"][1] for one in asked("job:ghl_exporter_down:min")] == ["1"], 20
    )
