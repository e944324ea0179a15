"""The local spool: what it has acknowledged comes out again, whatever happens to its file."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.domain.event import InboxEvent
from exporter.inbox.spool import Spool, SpoolUnavailable

MIB = 1024 * 1024
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: needs root")


def an_event(number: int = 0, size: int = 900, **fields: object) -> InboxEvent:
    values: dict[str, object] = {
        "location_id": f"loc-{number % 7}",
        "source": "ghl",
        "endpoint": "ContactCreate",
        "event_type": "ContactCreate",
        "idempotency_key": f"key-{number}",
        "correlation_id": f"trace-{number}",
        "received_at": datetime(2026, 9, 1, tzinfo=UTC) + timedelta(microseconds=number),
        "body": random.Random(number).randbytes(size),
    }
    return InboxEvent(**{**values, **fields})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened(path: Path, max_bytes: int = 64 * MIB) -> AsyncIterator[Spool]:
    spool = Spool(path, max_bytes)
    try:
        await spool.open()
        yield spool
    finally:
        await spool.close()


async def drain(spool: Spool) -> list[InboxEvent]:
    """Take everything out, as the inbox does."""
    taken = []
    while records := await spool.oldest(100):
        taken += [event for _, event in records]
        await spool.remove([number for number, _ in records])
    return taken


async def filled(path: Path, events: Sequence[InboxEvent], batch: int = 10) -> None:
    async with opened(path) as spool:
        for start in range(0, len(events), batch):
            await spool.append(events[start : start + batch])


def files_beside(path: Path) -> list[str]:
    return sorted(file.name.removeprefix(path.name) for file in path.parent.glob(f"{path.name}*"))


texts = st.text(st.characters(codec="utf-8"), max_size=40)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.builds(
            InboxEvent,
            location_id=texts,
            source=texts,
            endpoint=texts,
            event_type=texts,
            idempotency_key=texts,
            correlation_id=texts,
            received_at=st.datetimes(timezones=st.just(UTC)),
            body=st.binary() | st.binary().map(lambda part: part * 3_000),
        ),
        max_size=5,
    )
)
async def test_what_goes_in_comes_out_as_it_was_and_in_order(
    tmp_path: Path, events: list[InboxEvent]
) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as directory:
        path = Path(directory) / "spool"
        async with opened(path) as spool:
            await spool.append(events)
            assert spool.events == len(events)
        async with opened(path) as spool:
            assert spool.events == len(events)
            assert await drain(spool) == events
            assert (spool.events, spool.set_aside) == (0, 0)


async def test_a_large_batch_is_handed_out_in_parts_that_fit_into_memory(tmp_path: Path) -> None:
    events = [an_event(number, size=MIB) for number in range(20)]
    async with opened(tmp_path / "spool") as spool:
        await spool.append(events)
        assert sum(len(event.body) for _, event in await spool.oldest(100)) < 10 * MIB
        assert await drain(spool) == events


async def test_an_emptied_spool_gives_its_disk_space_back_and_is_as_good_as_new(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path / "spool", max_bytes=4 * MIB) as spool:
        for _ in range(3):
            events = [an_event(number, size=20_000) for number in range(150)]
            await spool.append(events)
            await spool.put_aside((await spool.oldest(1))[0][0], "PostgreSQL refuses it")
            assert await drain(spool) == events[1:]
            assert spool.size_bytes < MIB
        assert (spool.events, spool.set_aside) == (0, 3)


async def test_a_spool_over_its_size_takes_nothing_until_it_is_drained(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        taken = 0
        with pytest.raises(SpoolUnavailable, match="has reached"):
            for _ in range(2_000):
                await spool.append([an_event(taken)])
                taken += 1
        assert not spool.usable
        assert 700 < taken < 1_100
        assert len(await drain(spool)) == taken
        await spool.append([an_event()])
        assert spool.usable


async def test_one_body_larger_than_the_spool_is_taken_by_an_empty_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool", max_bytes=MIB) as spool:
        await spool.append([an_event(size=2 * MIB)])
        assert len(await drain(spool)) == 1


APPENDER = """
    import asyncio, sys
    from pathlib import Path
    from tests.test_spool import an_event, opened

    async def main():
        async with opened(Path(sys.argv[1])) as spool:
            for number in range(int(sys.argv[2]), 10**9, 3):
                await spool.append([an_event(number + n) for n in range(3)])
                print(number + 3, flush=True)

    asyncio.run(main())
"""


class Appender:
    """A process that appends numbered events, three to a commit, until it is killed."""

    def __init__(self, path: Path, first: int = 0) -> None:
        self.acknowledged = first
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(APPENDER), str(path), str(first)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> "Appender":
        self.wait(1)
        return self

    def wait(self, commits: int) -> None:
        assert self._process.stdout is not None
        for _ in range(commits):
            self.acknowledged = int(self._process.stdout.readline())

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        rest, _ = self._process.communicate()
        if whole := rest.split("\n")[:-1]:
            self.acknowledged = int(whole[-1])


async def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "spool", set()
    draw = random.Random(3)
    for first in range(0, 5_000, 1_000):
        with Appender(path, first) as appender:
            appender.wait(draw.randrange(100))
        acknowledged |= {f"key-{number}" for number in range(first, appender.acknowledged)}
    async with opened(path) as spool:
        keys = [event.idempotency_key for event in await drain(spool)]
        assert spool.set_aside == 0
    assert len(keys) == len(set(keys))
    assert acknowledged <= set(keys)
    assert len(keys) <= len(acknowledged) + 5 * 3


async def test_two_processes_share_one_file(tmp_path: Path) -> None:
    path, mine = tmp_path / "spool", []
    async with opened(path) as spool:
        with Appender(path) as appender:
            for number in range(30):
                # The other one may hold the lock for too long on a slow disk.
                with contextlib.suppress(SpoolUnavailable):
                    await spool.append([an_event(number, location_id="mine")])
                    mine.append(f"key-{number}")
        drained = await drain(spool)
    assert mine
    assert [x.idempotency_key for x in drained if x.location_id == "mine"] == mine
    others = {x.idempotency_key for x in drained if x.location_id != "mine"}
    assert {f"key-{number}" for number in range(appender.acknowledged)} <= others


async def test_what_another_process_has_drained_is_no_longer_counted(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    await filled(path, [an_event(1), an_event(2)])
    async with opened(path) as spool:
        async with opened(path) as other:
            assert len(await drain(other)) == 2
        assert spool.events == 2
        assert await spool.oldest(10) == []
        assert spool.events == 0


async def test_a_record_that_postgresql_refuses_is_kept_counted_and_out_of_the_way(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool"
    async with opened(path) as spool:
        await spool.append([an_event(1), an_event(2)])
        [(number, first), (_, second)] = await spool.oldest(10)
        await spool.put_aside(number, "PostgreSQL refuses it: why")
        assert [event for _, event in await spool.oldest(10)] == [second]
        assert (spool.events, spool.set_aside) == (1, 1)
    assert first.body == an_event(1).body
    async with opened(path) as spool:
        assert (spool.events, spool.set_aside) == (1, 1)


@contextlib.contextmanager
def small_disk(directory: Path, mib: int) -> Iterator[Path]:
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={mib}m"]
    if subprocess.run(["mount", *options, "spool-test", directory], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@as_root
@pytest.mark.parametrize("size", [1_300, 70_000])
@pytest.mark.parametrize("restarted", [True, False], ids=["restarted", "running"])
async def test_a_full_disk_refuses_loses_nothing_and_can_be_emptied(
    tmp_path: Path, size: int, restarted: bool
) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        taken: list[InboxEvent] = []
        async with contextlib.AsyncExitStack() as stack:
            spool = await stack.enter_async_context(opened(disk / "spool"))
            with pytest.raises(SpoolUnavailable, match="full"):
                for number in range(10_000):
                    await spool.append([an_event(number, size)])
                    taken.append(an_event(number, size))
            assert len(taken) * size > MIB
            # Full to the last byte, and full it stays.
            with contextlib.suppress(OSError), (disk / "other").open("wb", 0) as file:
                while file.write(b"x"):
                    pass
            if restarted:
                await stack.aclose()
                spool = Spool(disk / "spool", 64 * MIB)
                stack.push_async_callback(spool.close)
            with pytest.raises(SpoolUnavailable):
                await spool.open()
            assert not spool.usable
            assert spool.events == len(taken)
            assert await drain(spool) == taken
            await spool.append([an_event(1)])
            await spool.open()
            assert spool.usable


LIMITED = """
    import asyncio, resource, signal, sys
    from pathlib import Path
    from exporter.inbox.spool import SpoolUnavailable
    from tests.test_spool import an_event, drain, opened

    async def main():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        async with opened(Path(sys.argv[1])) as spool:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, 1024 * 1024))
            taken = 0
            try:
                while True:
                    await spool.append([an_event(taken)])
                    taken += 1
            except SpoolUnavailable:
                print(taken, spool.usable, len(await drain(spool)))

    asyncio.run(main())
"""


async def test_a_file_that_may_not_grow_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """As where a quota ends it: no root is needed for this one."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path / "spool")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    taken, usable, drained = run.stdout.split()
    assert int(taken) > 500
    assert (usable, drained) == ("False", taken)


@pytest.mark.parametrize("name", ["file/below/spool", "directory", "n" * 300])
async def test_a_path_that_can_not_be_written_is_unavailable_and_nothing_worse(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("a file, where a directory should be")
    (tmp_path / "directory").mkdir()
    spool = Spool(tmp_path / name, MIB)
    for use in (spool.open(), spool.append([an_event()]), spool.oldest(1), spool.remove([1])):
        with pytest.raises(SpoolUnavailable):
            await use
    assert not spool.usable
    assert spool.problem
    await spool.close()


@as_root
async def test_a_disk_that_is_read_only_is_unavailable_until_it_can_be_written_again(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        await filled(disk / "spool", [an_event(1)])
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        spool = Spool(disk / "spool", MIB)
        for use in (spool.open(), spool.append([an_event(2)])):
            with pytest.raises(SpoolUnavailable):
                await use
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        await spool.open()
        await spool.append([an_event(3)])
        assert await drain(spool) == [an_event(1), an_event(3)]
        await spool.close()


async def test_a_directory_that_appears_later_is_used_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("not mounted yet")
    spool = Spool(tmp_path / "disk" / "spool", MIB)
    with pytest.raises(SpoolUnavailable):
        await spool.open()
    (tmp_path / "disk").unlink()
    (tmp_path / "disk").mkdir()
    await filled(tmp_path / "disk" / "spool", [an_event(1)])
    await spool.open()
    assert spool.events == 1
    await spool.close()
