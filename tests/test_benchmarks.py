"""The benchmarks run, at a size that says nothing about speed, and print their ratios."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("command", "ratios"),
    [
        ("ingest --seconds 0.3 --rounds 1 --connections 4 --most 3000", 6),
        ("tracking --seconds 0.3 --rounds 1 --connections 2", 3),
        ("refresh --sizes 1k 0.002m --rounds 1 --events 50", 4),
        ("dashboard --leads 2k --locations 2 --requests 3 --rounds 1", 2),
    ],
)
def test_a_benchmark_prints_its_ratios(command: str, ratios: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *f"benchmarks.{command}".split()],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^ratio  .+: (\d+\.\d\d+)$", done.stdout, re.MULTILINE)
    assert len(found) == ratios, done.stdout
    assert all(float(ratio) > 0 for ratio in found)
    not_taken = re.findall(r"│ +(\d+) │$", done.stdout, re.MULTILINE)
    if command.startswith("ingest"):
        assert not_taken == ["0"] * 5, done.stdout
