"""A wheel built from the checkout, used where the checkout is not."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import MakeService

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a directory of its own, as pip would lay it out."""
    directory = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


def run(installed: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=installed.parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_carries_sql_rules_runbooks_and_boards_and_nothing_of_the_workshop(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    bundled = {
        name.removeprefix("exporter/bundled/")
        for name in names
        if name.startswith("exporter/bundled/")
    }
    expected = {
        str(path.relative_to(CHECKOUT))
        for pattern in (
            "sql/**/*.sql",
            "recording_rules/*.yml",
            "alerts/*.yml",
            "alerts/alertmanager/**/*.*",
            "alerts/runbooks/*.md",
            "grafana/dashboards/*.json",
            "grafana/provisioning/**/*.yml",
        )
        for path in CHECKOUT.glob(pattern)
    }
    folders = {"sql", "recording_rules", "alerts", "grafana"}
    assert {path.partition("/")[0] for path in expected} == folders
    assert expected <= bundled
    # Not what writes them.
    assert not [name for name in bundled if name.endswith(".py")]
    assert "exporter/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"exporter"}


def test_works_without_the_checkout(
    installed: Path, make_service: MakeService, database_url: str
) -> None:
    where = (
        "import exporter; from exporter.support.bundled_files import bundled as b; "
        "print(exporter.__file__, b('sql'))"
    )
    assert run(installed, "-c", where).count(str(installed)) == 2
    assert "up to date" in run(installed, "-m", "exporter", "migrate", DATABASE_URL=database_url)
    said = run(installed, "-m", "exporter", "check", DATABASE_URL=database_url)
    assert "all migrations are applied" in said
    service = make_service(database_url=database_url)
    service.environment["PYTHONPATH"] = str(installed)
    service.start()
    assert service.metrics()["ghl_exporter_database_up"] == 1
