"""The rule files, by Prometheus's own checkers, and against the metrics a real service gives."""

import re
import subprocess
from pathlib import Path

import promql_parser
import pytest

from tests.conftest import MakeService

ROOT = Path(__file__).parents[1]
RULES = sorted([*ROOT.glob("recording_rules/*.yml"), *ROOT.glob("alerts/*.yml")])
CASES = sorted((ROOT / "tests" / "rules").glob("*.yml"))
_ALERT = re.compile(r"^ *- alert: (\w+)$", re.MULTILINE)
_RECORD = re.compile(r"^ *- record: (\S+)$", re.MULTILINE)
_EXPRESSION = re.compile(r"^( *)expr: (?:\|\n((?:\1 +.*\n)+)|(.*)\n)", re.MULTILINE)


def expressions() -> list[str]:
    return [
        block or line
        for path in RULES
        for _, block, line in _EXPRESSION.findall(path.read_text("utf-8"))
    ]


def names_in(expression: str) -> set[str]:
    """Return the metric names that an expression selects."""
    # The parser checks it; the text of what it read has each selector's name before a brace.
    text = promql_parser.parse(expression).prettify()
    return set(re.findall(r"(?<![\w:])((?:ghl_exporter|job:ghl|up)[\w:]*)(?=\{|\[|$|\s|\))", text))


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_rules() -> None:
    assert {path.parent.name for path in RULES} == {"recording_rules", "alerts"}
    assert len(expressions()) == sum(
        len(_ALERT.findall(path.read_text("utf-8"))) + len(_RECORD.findall(path.read_text("utf-8")))
        for path in RULES
    )


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_promtool_finds_nothing_to_say(path: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", path)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_the_rules_give_what_their_cases_say(path: Path) -> None:
    promtool("test", "rules", path)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for path in CASES:
        for name, expected in re.findall(
            r"alertname: (\w+)\n +exp_alerts:( \[\])?", path.read_text("utf-8")
        ):
            (silent if expected else fires).add(name)
    alerts = {name for path in RULES for name in _ALERT.findall(path.read_text("utf-8"))}
    assert alerts
    assert fires == alerts
    assert silent == alerts


def test_every_metric_of_the_rules_is_one_that_a_service_gives(
    make_service: MakeService, database_url: str
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    given = set(re.findall(r"^(\w+)", service.get("/metrics")[1].decode(), re.MULTILINE))
    recorded = {name for path in RULES for name in _RECORD.findall(path.read_text("utf-8"))}
    used = set().union(*map(names_in, expressions()))
    assert len(used) > 10
    assert used <= given | recorded | {"up"}
