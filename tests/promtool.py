"""promtool, and the files that `promtool test rules` reads where they are made and not written."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

Document = dict[str, Any]
Samples = Mapping[str, float]

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH")
ROOT = Path(__file__).parents[1]
RULE_FILES = tuple(
    str(path.relative_to(ROOT))
    for folder in ("alerts", "recording_rules")
    for path in sorted((ROOT / folder).glob("*.yml"))
)


def promtool(*arguments: str | Path) -> tuple[int, str]:
    """Run promtool, and return its exit status and what it says."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def document(rules: str, interval: str, cases: list[Document]) -> Document:
    """Return a test file's content. `rules`: the file, from the checkout on."""
    return {"rule_files": [f"../../{rules}"], "evaluation_interval": interval, "tests": cases}


def case(
    name: str, interval: str, series: Mapping[str, str], *expected: tuple[str, str, Samples]
) -> Document:
    """`expected`: an expression, the time at which it is asked, and its samples by their labels."""
    # A series that begins later than another is out of bounds, unless there is one from the start.
    series = {"start": "0", **series}
    return {
        "name": name,
        "interval": interval,
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": at,
                "exp_samples": [{"labels": key, "value": value} for key, value in samples.items()],
            }
            for expression, at, samples in expected
        ],
    }


def counter(end: int, grew: Mapping[int, float]) -> str:
    """Write a counter that grew so many steps before its end, by so much."""
    value, start, words = 0.0, 0, []
    for age, growth in (*sorted(grew.items(), reverse=True), (-1, 0)):
        words.append(f"{value:.12g}x{end - age - start - 1}")
        value, start = value + growth, end - age
    return " ".join(words)


def now_and_then(end: int, told: Mapping[int, float], after: str = "") -> str:
    """Write a series with samples so many steps before its end, and none between them."""
    words, place = [], 0
    for age in sorted(told, reverse=True):
        gap = end - age - place
        words += [f"_x{gap}"] if gap else []
        words += [f"{told[age]:.12g}", after] if after else [f"{told[age]:.12g}"]
        place = end - age + len(after.split()) + 1
    return " ".join(words)
