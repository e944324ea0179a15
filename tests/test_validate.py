"""`ghl-exporter validate` as who sets the service up uses it."""

import os
import subprocess
import sys
from pathlib import Path

import asyncpg

from exporter.api.keys import create_key
from exporter.validate.report import Report, percentile
from tests.conftest import MakeService


def _validate(directory: Path, *flags: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "validate", *flags],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "COLUMNS": "160",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_with_servers_of_its_own_everything_is_right(tmp_path: Path) -> None:
    # What it measures hangs on the machine: that it meets a target is no test's business.
    status, said = _validate(tmp_path, "--setup-db", "--test-api", "--location-id", "mine")
    assert status == 0, said
    assert "0 failed" in said
    for part in ("all migrations are applied", "revenue grew", "a signed one is taken"):
        assert part in said
    assert "/dashboard/mine" in said


async def test_against_a_service_that_runs(
    make_service: MakeService, connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    key = await create_key(connection, "all", ["read", "track"], ["*"])
    flags = ("--url", service.url, "--test-api", "--location-id", "mine")
    status, said = _validate(tmp_path, *flags, GHL_EXPORTER_KEY=key)
    assert status == 0, said
    assert "1 could not be made" in said, "only GHL signs for a service that is not ours"
    # Once more: what was told before does not disturb it.
    status, said = _validate(tmp_path, *flags, GHL_EXPORTER_KEY=key)
    assert status == 0, said
    only_read = await create_key(connection, "reader", ["read"], ["*"])
    status, said = _validate(tmp_path, *flags, GHL_EXPORTER_KEY=only_read)
    assert status == 1, said
    assert "wrong" in said
    status, said = _validate(tmp_path, *flags)
    assert (status, "GHL_EXPORTER_KEY" in said) == (1, True), said


def test_a_figure_over_its_target_fails() -> None:
    report = Report()
    report.below("speed", "quick enough", 49.9, 50, "ms")
    assert report.failed == 0
    report.below("speed", "too slow", 50, 50, "ms")
    report.add("speed", "not measured", None)
    assert report.failed == 1
    assert percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9) == 9
    assert percentile([7], 0.9) == 7
