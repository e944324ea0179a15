"""The client on its own: where it can be installed, and what its wheel holds."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import asyncpg
import pytest
from packaging.requirements import Requirement

from exporter import __version__
from exporter.api.keys import create_key
from tests.conftest import MakeService

CHECKOUT = Path(__file__).parents[1]
CLIENT = CHECKOUT / "clients" / "python"
EXAMPLE_URL = "http://127.0.0.1:12105"
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


def test_the_client_alone_needs_three_packages_everywhere() -> None:
    assert needed_on_windows(CLIENT / "pyproject.toml") == {"aiohttp", "orjson", "pydantic"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", directory],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(directory.glob("*.whl"))


def closure(requirements: Iterable[Requirement], found: set[str]) -> set[str]:
    """Return the names of installed packages that requirements need, and what these need."""
    for one in requirements:
        if one.name in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(one.name)
        closure(map(Requirement, distribution(one.name).requires or ()), found)
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the client, and nothing but what its wheel says that it needs.

    The packages are copied from this environment, so no index is needed.
    """
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False)
    (site,) = directory.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python")]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    (metadata,) = site.glob("*.dist-info/METADATA")
    needed = re.findall(r"^Requires-Dist: (.+)$", metadata.read_text("utf-8"), re.MULTILINE)
    for name in closure(map(Requirement, needed), set()):
        for file in distribution(name).files or ():
            if ".." not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), site / file)
    subprocess.run([*pip, "check"], check=True)
    return directory


PROGRAM = """
import sys
from ghl_exporter_client import ArgumentError, Client, ConversionStage

url, key = sys.argv[1:]
with Client(url, key, location_id="loc") as client:
    stored: bool = client.track_conversion_stage("c", ConversionStage.LEAD_CREATED)
    assert stored and client.flush()
    assert client.get_health()
try:
    Client("localhost", key)
except ArgumentError as error:
    assert error.name == "url"
assert not {"exporter", "asyncpg", "redis", "uvloop", "structlog"} & set(sys.modules)
"""


async def test_the_wheel_alone_reaches_a_service(
    environment: Path,
    make_service: MakeService,
    database_url: str,
    connection: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    key = await create_key(connection, "platform", ["read", "track"], ["*"])
    service = make_service(database_url=database_url)
    service.start()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    python = environment / "bin" / "python"
    done = subprocess.run(
        [python, "-I", program, service.url, key],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 1
    options = ["--strict", "--config-file=", "--python-executable", str(python)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_wheel_is_all_typed_and_of_the_services_version(wheel: Path) -> None:
    assert wheel.name == f"ghl_exporter_client-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "ghl_exporter_client/py.typed" in names
    assert {name for name in names if name.startswith("ghl_exporter_client/client/")} == {
        f"ghl_exporter_client/client/{path.name}"
        for path in (CHECKOUT / "exporter" / "client").glob("*.py")
    }


async def test_the_programs_of_the_pages_run_as_they_stand(
    environment: Path, make_service: MakeService, database_url: str, connection: asyncpg.Connection
) -> None:
    key = await create_key(connection, "platform", ["read", "track"], ["*"])
    service = make_service(database_url=database_url)
    service.start()
    pages = (CHECKOUT / "docs" / "client.md", CLIENT / "README.md")
    text = "".join(page.read_text("utf-8") for page in pages)
    programs = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(programs) == 3
    for program in programs:
        done = subprocess.run(
            [environment / "bin" / "python", "-c", program.replace(EXAMPLE_URL, service.url)],
            env={"GHL_EXPORTER_KEY": key},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, "refused" in done.stderr) == (0, False), done.stderr
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 8
