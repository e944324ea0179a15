"""What commands print: results apart from progress and errors, and nothing as markup."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from exporter.api.keys import READ, create_key
from exporter.demo.servers import EmbeddedPostgres
from tests.conftest import MakeService, Signer, free_port, wait_until
from tests.sender import Sender, contact
from tests.test_commands import command

ROOT = Path(__file__).parents[1]


def piped(line: str, directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash whose pipes fail if one of their commands does."""
    return subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", line.replace("PYTHON", sys.executable)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **{name.upper(): value for name, value in settings.items()},
        },
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", ["[demo]", "[/x]", "[red]", ":smile:", "a\x1b[2Jb\x07", "Łódź"])
async def test_a_name_is_printed_as_it_is(
    connection: asyncpg.Connection, database_url: str, name: str
) -> None:
    await create_key(connection, name, [READ], ["[/loc]"])
    done = command("keys", "list", database_url=database_url)
    assert done.returncode == 0, done.stderr
    shown = name.replace("\x1b", "\\x1b").replace("\x07", "\\x07")
    assert done.stdout.endswith(f"  {shown}\n")
    assert "[/loc]" in done.stdout
    assert done.stderr == ""
    # A terminal that has no such letter gets its escape.
    done = command("keys", "list", database_url=database_url, pythonioencoding="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("wrong", ["[demo]", "[/x]", "[red]x[/red]"])
def test_an_error_is_printed_as_it_is(database_url: str, tmp_path: Path, wrong: str) -> None:
    missing = tmp_path / wrong
    for arguments in (
        ("import", str(missing)),
        ("keys", "revoke", wrong),
        ("simulate", "--settings", "--key-file", str(missing)),
        ("simulate", "--make-key", "--key-file", str(missing / "no" / "key")),
    ):
        done = command(*arguments, database_url=database_url)
        assert wrong in done.stdout + done.stderr, arguments
        assert "Traceback" not in done.stderr
    for name in ("listen_address", "database_url"):
        done = command("migrate", **{name: wrong})
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith(f"wrong  {name.upper()}: ")


@pytest.mark.parametrize(
    "arguments",
    ["--help", "keys list", "check", "migrate", "rebuild", "replay", "check 2>&1"],
)
async def test_a_reader_that_goes_ends_a_command_quietly(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path, arguments: str
) -> None:
    for number in range(3):
        await create_key(connection, f"key {number}", [READ], ["*"])
    done = piped(f"PYTHON -m exporter {arguments} | true", tmp_path, database_url=database_url)
    assert "Error" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 141


async def test_progress_and_errors_do_not_get_into_a_pipe(
    database_url: str, tmp_path: Path, connection: asyncpg.Connection
) -> None:
    done = command("rebuild", database_url=database_url)
    assert done.stdout == "0 events; rows that differ: 0\n"
    nowhere = command("rebuild", database_url="postgresql://u:hunter2@127.0.0.1:1/x")
    assert nowhere.returncode == 1
    assert nowhere.stdout == ""
    [line] = nowhere.stderr.splitlines()
    assert line.startswith("wrong  DATABASE_URL: ")
    assert "hunter2" not in line


async def test_the_service_goes_on_when_nobody_reads_its_log(
    database_url: str, make_service: MakeService, signer: Signer
) -> None:
    service = make_service(database_url=database_url)
    service.start(
        command=["/bin/bash", "-c", f"{sys.executable} -m exporter serve 2>&1 | head -1; sleep 60"]
    )
    sender = Sender(service.port, signer)
    await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    for _ in range(3):
        assert (await sender.send(contact())).status == 200
    assert service.get("/")[0] == 200


def test_the_address_that_is_taken_is_the_one_that_is_named(
    database_url: str, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = f"127.0.0.1:{free_port()}"
        spool = str(tmp_path / "spool.sqlite3")
        for listen, metrics, named in (
            (address, free, "LISTEN_ADDRESS"),
            (free, address, "METRICS_ADDRESS"),
        ):
            done = command(
                "serve",
                database_url=database_url,
                listen_address=listen,
                metrics_address=metrics,
                spool_path=spool,
            )
            assert done.returncode == 1
            assert done.stderr == f"wrong  {named} {address}: Address already in use\n"
        done = piped("PYTHON -m exporter demo --directory demo", tmp_path, listen_address=address)
        assert done.returncode == 1
        assert done.stderr == f"wrong  LISTEN_ADDRESS {address}: Address already in use\n"
        # Nothing was started, and no history was written.
        assert [path.name for path in (tmp_path / "demo").iterdir()] == ["lock"]


def test_a_demo_with_an_address_that_is_none_says_so(
    tmp_path: Path, postgres: EmbeddedPostgres
) -> None:
    done = piped("PYTHON -m exporter demo --directory demo", tmp_path, listen_address="nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("wrong  LISTEN_ADDRESS: ")
    assert "Traceback" not in done.stderr
