"""The client on its own: where it can be installed, and what its wheel holds."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[1]
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}
# Packages without a wheel for Windows.
UNIX_ONLY = {"uvloop"}


def needed_on_windows(pyproject: Path) -> set[str]:
    """Return the names of the dependencies that pip would install on Windows."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    given = (Requirement(line) for line in project["dependencies"])
    return {one.name for one in given if one.marker is None or one.marker.evaluate(WINDOWS)}


def test_windows_needs_nothing_that_has_no_wheel_for_it() -> None:
    names = needed_on_windows(CHECKOUT / "pyproject.toml")
    assert "aiohttp" in names
    assert not names & UNIX_ONLY


@pytest.mark.parametrize("lock", ["service.txt", "demo.txt", "dev.txt"])
def test_the_pinned_dependencies_carry_the_marker_too(lock: str) -> None:
    text = (CHECKOUT / "requirements" / lock).read_text("utf-8")
    for name in UNIX_ONLY:
        line = re.search(rf"^{name}==.*$", text, re.MULTILINE)
        assert line is not None
        marker = Requirement(line[0].rstrip("\\ ")).marker
        assert marker is not None
        assert not marker.evaluate(WINDOWS)
