"""The rule files: by Prometheus's own checkers and cases, and against what a real service shows."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import asyncpg
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.demo.agency import DEFAULT_LOCATIONS, DEMO_PIPELINE_STAGES, Agency
from exporter.demo.servers import EmbeddedValkey
from exporter.demo.traffic import write_history
from exporter.domain.slo import BURNS, SERVICE, SLOS
from tests.conftest import MakeService, wait_until
from tests.promtool import ROOT, RULE_FILES, needs_promtool, promtool
from tests.rule_cases import WRITTEN, documents

Labels = dict[str, str]
# What Prometheus adds to each series that it scrapes, and the one that it makes.
_SCRAPED = {"job": SERVICE, "instance": "any"}
_TARGETS = {"up": [_SCRAPED]}
_ANNOTATIONS = {"summary", "description", "runbook_url", "dashboard_url"}
# It always fires.
_NEVER_SILENT = {"Watchdog"}
MADE = {
    name: content
    for name, content in documents().items()
    if name not in {path.name for path in WRITTEN}
}


def groups(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / file).read_text("utf-8"))["groups"]
    return found


RULES = [rule for file in RULE_FILES for group in groups(file) for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = [rule for rule in RULES if "record" in rule]


def test_the_files_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alerts.generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("file", RULE_FILES)
def test_promtool_finds_nothing_to_say(file: str) -> None:
    status, said = promtool("check", "rules", "--lint=all", "--lint-fatal", ROOT / file)
    assert status == 0, said


@needs_promtool
@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_the_rules_give_what_their_cases_say(path: Path) -> None:
    status, said = promtool("test", "rules", path)
    assert status == 0, said


@needs_promtool
@pytest.mark.parametrize("name", MADE)
def test_the_rules_give_what_the_made_cases_say(name: str, tmp_path: Path) -> None:
    content = MADE[name]
    files = [str((ROOT / "tests" / "rules" / file).resolve()) for file in content["rule_files"]]
    path = tmp_path / name
    path.write_text(yaml.safe_dump({**content, "rule_files": files}), "utf-8")
    status, said = promtool("test", "rules", path)
    assert status == 0, said


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for content in documents().values():
        for case in content["tests"]:
            for asked in case.get("alert_rule_test", ()):
                (fires if asked.get("exp_alerts") else silent).add(asked["alertname"])
    assert fires == set(ALERTS)
    assert silent == set(ALERTS) - _NEVER_SILENT


def test_cases_of_several_files_order_all_of_their_groups() -> None:
    """A group that is not in the order may be evaluated before what it reads is recorded."""
    several = [content for content in documents().values() if len(content["rule_files"]) > 1]
    assert several
    for content in several:
        files = [file.removeprefix("../../") for file in content["rule_files"]]
        names = [group["name"] for file in files for group in groups(file)]
        assert content["group_eval_order"] == names


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_is_and_who_is_told(name: str) -> None:
    rule = ALERTS[name]
    assert set(rule["annotations"]) == _ANNOTATIONS
    assert all(text.strip() for text in rule["annotations"].values())
    assert f"/{name}.md" in rule["annotations"]["runbook_url"]
    labels = rule["labels"]
    assert labels["service"] == SERVICE
    assert labels["team"] in {"on-call", "business"}
    assert labels["severity"] in {"page", "ticket", "none"}
    # Nobody is woken for the business.
    assert labels["team"] == "on-call" or labels["severity"] == "ticket"


@needs_promtool
@pytest.mark.parametrize(
    "external", [{}, {"grafana": "", "runbooks": ""}, {"grafana": "https://g", "runbooks": "r"}]
)
def test_a_link_is_given_only_where_it_leads_somewhere(
    external: dict[str, str], tmp_path: Path
) -> None:
    """A link without its beginning is broken, and an empty one is left out of messages."""
    links = {
        name: {kind: rule["annotations"][kind] for kind in ("runbook_url", "dashboard_url")}
        for name, rule in ALERTS.items()
    }
    always = [
        {"alert": name, "expr": "vector(1)", "annotations": annotations}
        for name, annotations in links.items()
    ]
    (tmp_path / "always.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "always", "rules": always}]})
    )

    def leads(name: str) -> dict[str, str]:
        if not external.get("grafana"):
            return dict.fromkeys(links[name], "")
        board = re.search(r"/d/[a-z-]+", links[name]["dashboard_url"])
        assert board
        place = "?var-location=" * ("var-location" in links[name]["dashboard_url"])
        return {"runbook_url": f"r/{name}.md", "dashboard_url": f"https://g{board[0]}{place}"}

    told = [
        {
            "alertname": name,
            "eval_time": "0s",
            "exp_alerts": [{"exp_labels": {}, "exp_annotations": leads(name)}],
        }
        for name in links
    ]
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["always.yml"],
                "tests": [{"interval": "1m", "external_labels": external, "alert_rule_test": told}],
            }
        )
    )
    assert promtool("test", "rules", tmp_path / "test.yml") == (0, ANY)


def test_each_burn_can_happen() -> None:
    # More than all of the events would have to be bad.
    paces = [burn.factor * slo.budget for slo in SLOS for burns in BURNS.values() for burn in burns]
    assert max(paces) < 1


def test_what_is_recorded_is_named_by_level_metric_and_operations() -> None:
    assert RECORDED
    for rule in RECORDED:
        level, metric, operations = rule["record"].split(":")
        assert set(level.split("_")) <= {"job", "location", "agent"}
        assert re.fullmatch(r"(ghl|slo)_[a-z_]+", metric)
        assert re.fullmatch(r"[a-z][a-z0-9_]*", operations)


def test_nothing_is_recorded_that_nobody_asks_for() -> None:
    boards = "".join(
        path.read_text("utf-8") for path in (ROOT / "grafana" / "dashboards").glob("*.json")
    )
    asked = boards + "\n".join(rule["expr"] for rule in RULES)
    names = {rule["record"] for rule in RECORDED}
    assert [name for name in names if not re.search(rf"(?<![\w:]){name}(?![\w:])", asked)] == []


def selectors(expression: promql.Expr) -> list[promql.VectorSelector]:
    """Return what an expression selects."""
    found: list[promql.VectorSelector] = []

    def note(node: promql.Expr) -> None:
        if isinstance(node, promql.VectorSelector):
            found.append(node)

    promql.walk(expression, note)
    return found


def test_a_name_or_a_value_that_nothing_has_is_noticed() -> None:
    series: dict[str, list[Labels]] = {
        "a": [{"job": "j", "b": "c"}, {"job": "j", "b": "d"}],
        "n": [{"job": "j"}],
    }
    for right in ('a{b="c"}', 'a{b!~"c|d"}', "sum by (job, b) (rate(a[5m]))", "n + on (job) n"):
        assert list(faults(right, series)) == [], right
    for wrong in (
        "m",
        'a{b="e"}',
        'a{b=~"c|e"}',
        'a{e="c"}',
        'a{b!="e"}',
        "sum by (e) (a)",
        "sum by (b) (a + n)",
        'n and on (b) a{b="c"}',
    ):
        assert list(faults(wrong, series)), wrong


def faults(text: str, series: dict[str, list[Labels]]) -> Iterator[str]:
    """Yield what an expression names that no series has: metrics, labels and their values."""
    tree = promql.parse(text)
    for selector in selectors(tree):
        name = selector.name or ""
        if name not in series:
            yield f"{name} does not exist"
            continue
        for matcher in selector.matchers.matchers:
            # Today may have had no deal yet: a window that some figure has is one.
            having = chain(*series.values()) if matcher.name == "window" else series[name]
            values = {labels.get(matcher.name, "") for labels in having}
            for value in matcher.value.split("|"):
                if not any(re.fullmatch(value, other) for other in values - {""}):
                    yield f'{name} has no {matcher.name}="{value}"'

    def note(node: Any) -> None:
        sides, labels = [], []
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            sides, labels = [node.expr], node.modifier.labels
        elif isinstance(node, promql.BinaryExpr) and node.modifier and node.modifier.matching:
            sides, labels = [node.lhs, node.rhs], node.modifier.matching.labels
        for selector in (s for side in sides for s in selectors(side)):
            having = {label for each in series.get(selector.name or "", ()) for label in each}
            missing.update((selector.name or "", label) for label in set(labels) - having)

    missing: set[tuple[str, str]] = set()
    promql.walk(tree, note)
    yield from (f"{name} has no {label}" for name, label in missing)


def recorded_series() -> dict[str, list[Labels]]:
    """Return what is recorded: the labels of its level, and those that the rules give it."""
    found: dict[str, list[Labels]] = {}
    for rule in RECORDED:
        level = dict.fromkeys(rule["record"].split(":")[0].split("_"), "any")
        found.setdefault(rule["record"], []).append(level | rule["labels"])
    return found


async def test_what_the_rules_name_is_what_a_service_shows(
    make_service: MakeService,
    connection: asyncpg.Connection,
    database_url: str,
    valkey: EmbeddedValkey,
) -> None:
    now = datetime.now(UTC)
    agency = Agency(seed=3, locations=(replace(DEFAULT_LOCATIONS[0], leads_per_day=15),))
    await write_history(connection, agency, now - timedelta(days=21), now, lambda *_: None)
    service = make_service(
        database_url=database_url,
        redis_url=valkey.url(),
        pipeline_stages=json.dumps(DEMO_PIPELINE_STAGES),
    )
    service.start()

    def shown() -> dict[str, list[Labels]]:
        families = text_string_to_metric_families(service.get("/metrics")[1].decode())
        found: dict[str, list[Labels]] = {}
        for sample in (sample for family in families for sample in family.samples):
            found.setdefault(sample.name, []).append(sample.labels | _SCRAPED)
        return found

    def named_in_vain() -> list[str]:
        series = shown() | recorded_series() | _TARGETS
        return [fault for rule in RULES for fault in faults(rule["expr"], series)]

    with contextlib.suppress(AssertionError):  # the next line says what is missing
        await wait_until(lambda: not named_in_vain(), 30)
    assert named_in_vain() == []
    # Alerts ask it for a location's name.
    assert {"location", "name"} <= set(shown()["ghl_location_info"][0])
