"""The boards: current, of parts that Grafana reads, and saying what they show."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from alerts.generate import ALERTS
from exporter.demo.agency import DEFAULT_LOCATIONS
from exporter.domain.slo import ANSWER_WITHIN_SECONDS, BURNS, SLOS
from exporter.telemetry.metrics import DURATION_BUCKETS
from grafana import targets
from grafana.generate import boards
from tests.conftest import SHARED, needs_shared

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "grafana/dashboards").glob("*.json"))
UIDS = {board.uid for board in boards()}
# What works of grafanalib. Its own panels and thresholds are of an age that Grafana reads wrongly.
ALLOWED = {
    *("Annotations", "Dashboard", "GridPos", "Panel", "Repeat", "RowPanel", "Target", "Template"),
    *("Templating", "Time"),
}
AGENT = DEFAULT_LOCATIONS[0].agents[0].id
VARIABLES = {
    "$__rate_interval": "1m",
    "$__interval": "1h",
    "$__range": "1d",
    "$location": ".+",
    "$window": "30d",
    "$agent": AGENT,
}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what shows data: no rows, no texts."""
    yield from (panel for panel in board["panels"] if panel["type"] not in ("row", "text"))


def filled_in(expression: str) -> str:
    """Return an expression with variables replaced; longer names first."""
    for name in sorted(VARIABLES, key=len, reverse=True):
        expression = expression.replace(name, VARIABLES[name])
    return expression


def test_the_boards_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "grafana.generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in FILES} == UIDS
    assert len(UIDS) == 6


def test_only_what_works_of_grafanalib_is_used() -> None:
    used = set()
    for path in ROOT.glob("grafana/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "grafanalib.core":
                used |= {name.name for name in node.names}
            elif isinstance(node, ast.Import):
                assert not any(name.name.startswith("grafanalib") for name in node.names)
    assert used
    assert used <= ALLOWED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_board_has_what_all_boards_have(path: Path) -> None:
    board = read(path)
    assert board["uid"] == path.stem
    assert board["schemaVersion"] == 39
    assert board["refresh"] == "30s"
    assert board["graphTooltip"] == 1
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names[:2] == ["datasource", "location"]
    location = board["templating"]["list"][1]
    assert location["multi"]
    assert location["includeAll"]
    (links,) = board["links"]
    assert links["includeVars"]
    assert links["keepTime"]
    assert {one["name"] for one in board["annotations"]["list"]} == {
        "Alerts",
        "Restarts",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows(path: Path) -> None:
    board = read(path)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(board):
        assert panel["title"], panel
        assert len(panel["description"]) > 20, panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert "unit" in defaults or panel["type"] == "heatmap", panel["title"]
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            # A name of the code's is no word for people.
            assert not target.get("legendFormat", "").startswith("ghl_"), panel["title"]
        # In a table every column is chosen: no Time, no __name__.
        if panel["type"] == "table":
            assert [step["id"] for step in panel["transformations"]][-1] == "organize"


def test_nothing_is_left_of_old_grafanas() -> None:
    legacy = {"rows", "style", "sharedCrosshair", "hideControls", "span", "minSpan", "error"}
    for path in FILES:
        board = read(path)
        assert not legacy & set(board)
        for panel in board["panels"]:
            assert not legacy & set(panel)
        text = path.read_text("utf-8")
        assert '"null"' not in text
        assert '"maxDataPoints"' not in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_expression_is_promql(path: Path) -> None:
    board = read(path)
    found = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    found += [one["expr"] for one in board["annotations"]["list"]]
    assert found
    for expression in found:
        promql_parser.parse(filled_in(expression))
        # A sum or a mean of ratios would weigh a location of three leads like one of thousands.
        assert not re.search(r"(sum|avg) (by \([^)]*\) )?\(ghl_\w+_ratio\b", expression), expression


def test_every_link_of_a_row_finds_its_fields() -> None:
    linked = 0
    for path in FILES:
        for panel in panels(read(path)):
            fields = set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel)))
            if fields:
                shown = panel["transformations"][-1]["options"]["renameByName"].values()
                assert fields <= set(shown), panel["title"]
                linked += 1
    assert linked


def test_every_link_leads_to_a_board() -> None:
    linked = set()
    for path in FILES:
        linked |= set(re.findall(r"/d/([a-z-]+)", path.read_text("utf-8")))
    assert linked
    assert linked <= UIDS
    assert {alert.board for alerts in ALERTS.values() for alert in alerts} <= UIDS


def test_the_objectives_are_the_same_everywhere() -> None:
    assert ANSWER_WITHIN_SECONDS in DURATION_BUCKETS
    assert {slo.name: slo.objective for slo in SLOS} == targets.OBJECTIVES
    sla = (ROOT / "grafana/dashboards/ghl-webhook-sla.json").read_text("utf-8")
    for slo in SLOS:
        assert f"objective {slo.objective:.0%}" in sla
        assert f'"value": {slo.objective}' in sla
    for burns in BURNS.values():
        for burn in burns:
            # A share of bad events above 1 would be asked for: it could never fire.
            assert all(burn.factor * slo.budget < 1 for slo in SLOS)


def test_the_grades_of_the_boards_are_those_of_the_sql() -> None:
    sql = (ROOT / "sql/kpis/performance_grade.sql").read_text("utf-8")
    begins = {name: float(at) for name, at in re.findall(r"\('([A-F][+-]?)', (-?[\d.]+),", sql)}
    assert (
        begins["B-"],
        begins["C"],
        begins["D"],
    ) == (targets.B_SCORE, targets.C_SCORE, targets.D_SCORE)
    executive = (ROOT / "grafana/dashboards/ghl-executive.json").read_text("utf-8")
    for grade in begins:
        assert f'"options": "{grade}"' in executive, grade


# Its first run installs what it needs.
@needs_shared
@pytest.mark.timeout(900)
def test_grafanas_own_schema_finds_nothing() -> None:
    done = subprocess.run(
        [SHARED / "render/board-check", *FILES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout
