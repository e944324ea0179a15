"""The systemd units of docs/systemd: systemd takes them, and they give away little."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.service.serve import _STOP_WITHIN
from tests.stack import check

FOLDER = Path(__file__).parents[1] / "docs/systemd"
UNITS = sorted(path for path in FOLDER.iterdir() if path.suffix in {".service", ".socket"})
SERVICE = FOLDER / "ghl-exporter.service"
# From 0 (nothing to be had) to 10; without any restriction a service has 9.6.
MOST_EXPOSED = 2.0

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="not installed: systemd"
)


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, with a program that exists: systemd-analyze looks for it."""
    program = tmp_path / "ghl-exporter"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copies = []
    for unit in UNITS:
        text, found = re.subn("/opt/ghl-exporter/bin/ghl-exporter", str(program), unit.read_text())
        assert found == (unit == SERVICE)
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text)
    return copies


def test_systemd_knows_every_line(units: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    # It also warns of units of the system around; ours must not be in what it writes.
    complaints = [line for line in done.stderr.splitlines() if "ghl-exporter" in line]
    assert complaints == []


def test_the_service_gives_away_little() -> None:
    said = check("systemd-analyze", "security", "--offline=true", "--no-pager", SERVICE)
    exposure = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) < MOST_EXPOSED, said


def test_systemd_waits_longer_for_a_stop_than_the_service_takes() -> None:
    seconds = re.search(r"^TimeoutStopSec=(\d+)$", SERVICE.read_text("utf-8"), re.MULTILINE)
    assert seconds is not None
    assert int(seconds[1]) > _STOP_WITHIN
