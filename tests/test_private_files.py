"""Files with customers' data or secrets: nobody else can read them, and what is drained is gone."""

import os
import sqlite3
import stat
from pathlib import Path

import asyncpg
import pytest
import structlog.testing

from exporter.demo.servers import EmbeddedPostgres
from exporter.demo.signing import signing_key
from exporter.demo.simulate import make_key
from exporter.inbox.record import SCHEMA, to_row
from exporter.inbox.spool import Spool, SpoolUnavailable
from exporter.inbox.spool_file import JOURNAL_BYTES
from exporter.support.private_file import write_private

from .conftest import MakeService, Signer, wait_until
from .sender import Sender, contact
from .test_spool import an_event, as_root, drain, filled, opened, small_disk

SECRET = b"Ada Lovelace, ada@example.com"


@pytest.fixture(autouse=True)
def _wide_umask() -> object:
    """Nothing depends on how narrow the umask of the machine is."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, int]:
    """Return the rights of every file below a directory, by name."""
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode)
        for path in directory.rglob("*")
        if path.is_file()
    }


def holding(directory: Path, needle: bytes) -> list[str]:
    """Return the names of the files whose bytes hold the needle."""
    return [path.name for path in directory.iterdir() if needle in path.read_bytes()]


async def test_everything_that_the_spool_writes_is_private(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    path = directory / "spool.sqlite3"
    async with opened(path) as spool:
        await spool.append([an_event(1)])
        assert modes(directory) == {"spool.sqlite3": 0o600, "spool.sqlite3-journal": 0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    with path.open("r+b") as file:
        file.write(b"not a database any more")
    async with opened(path) as spool:
        assert len(await drain(spool)) == 1
    kept = modes(directory)
    assert any(".damaged-" in name for name in kept)
    assert set(kept.values()) == {0o600}


async def test_files_that_others_can_read_are_made_private_with_a_log_line(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    await filled(path, [an_event(1)])
    damaged = tmp_path / "spool.damaged-20260101T000000000000"
    damaged.write_bytes(SECRET)
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    with structlog.testing.capture_logs() as logs:
        async with opened(path) as spool:
            assert len(await drain(spool)) == 1
    assert set(modes(tmp_path).values()) == {0o600}
    made = [line["path"] for line in logs if line["event"] == "file_made_private"]
    assert sorted(made) == sorted(map(str, (path, f"{path}-journal", damaged)))
    with structlog.testing.capture_logs() as logs:
        async with opened(path):
            pass
    assert logs == []


@pytest.mark.parametrize("size", [40, 3_000, 90_000])
@pytest.mark.parametrize("left", [0, 3], ids=["all drained", "some left"])
async def test_what_was_drained_is_gone_from_the_file(tmp_path: Path, size: int, left: int) -> None:
    def event(number: int) -> object:
        name = b"kept" if number >= 12 - left else SECRET
        return an_event(number, body=name + b"x" * size)

    async with opened(tmp_path / "spool") as spool:
        for number in range(0, 12, 4):
            await spool.append([event(number + n) for n in range(4)])  # type: ignore[misc]
        assert holding(tmp_path, SECRET)
        await spool.remove([number for number, _ in await spool.oldest(12 - left)])
        assert holding(tmp_path, SECRET) == []
        assert spool.events == left
        if left:
            assert "spool" in holding(tmp_path, b"kept")


async def test_what_an_earlier_version_left_behind_goes_once_the_spool_is_empty(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool"
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in ("page_size = 4096", "journal_mode = PERSIST", "secure_delete = OFF"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(SCHEMA)
    for number in range(6):
        values = to_row(an_event(number, body=SECRET * 300))
        places = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO spool VALUES (NULL, {places})", values)
    connection.execute("DELETE FROM spool")
    connection.close()
    assert holding(tmp_path, SECRET)
    async with opened(path):
        assert holding(tmp_path, SECRET) == []


@as_root
async def test_a_full_disk_delays_the_wiping_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        taken = []
        spool = Spool(disk / "spool", 64 << 20)
        await spool.open()
        with pytest.raises(SpoolUnavailable, match="full"):
            for number in range(100):
                event = an_event(number, body=SECRET + b"x" * (2 * JOURNAL_BYTES))
                await spool.append([event])
                taken.append(event)
        with (disk / "other").open("wb", 0) as file, pytest.raises(OSError, match="No space"):
            while file.write(b"x" * 64):
                pass
        assert await drain(spool) == taken
        (disk / "other").unlink()
        await spool.append([an_event(1)])
        await drain(spool)
        assert holding(disk, SECRET) == []
        await spool.close()


async def test_the_service_leaves_nothing_that_others_can_read(
    make_service: MakeService, postgres: EmbeddedPostgres, signer: Signer, tmp_path: Path
) -> None:
    """The whole way: PostgreSQL away, spooled, PostgreSQL back, drained, gone."""
    folder = tmp_path / "data"
    admin = await asyncpg.connect(postgres.url())
    service = make_service(
        database_url=postgres.url("comes_later"), spool_path=folder / "spool.sqlite3"
    )
    service.start()
    sender = Sender(service.port, signer)
    answer = await sender.send(contact(firstName="Ada", email="ada@example.com"))
    assert answer.status == 202
    assert holding(folder, b"ada@example.com")
    assert set(modes(folder).values()) == {0o600}
    await admin.execute("CREATE DATABASE comes_later")
    try:
        await wait_until(lambda: service.metrics().get("ghl_exporter_spool_events") == 0)
        await wait_until(lambda: not holding(folder, b"ada@example.com"))
        assert set(modes(folder).values()) == {0o600}
        assert "ada@example.com" not in service.log.read_text()
    finally:
        service.kill()
        await admin.execute("DROP DATABASE comes_later WITH (FORCE)")
        await admin.close()


def test_keys_of_the_demo_are_private(tmp_path: Path) -> None:
    signing_key(tmp_path)
    make_key(tmp_path / "agency.key")
    found = modes(tmp_path)
    assert (found["signing.key"], found["agency.key"]) == (0o600, 0o600)


def test_a_secret_is_narrowed_before_it_is_written_and_follows_no_link(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("an older and longer secret")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), modes(tmp_path)) == ("new", {"secret": 0o600})
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        write_private(tmp_path / "link", "stolen")
    assert path.read_text() == "new"
