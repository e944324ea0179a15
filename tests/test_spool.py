"""The local spool: what it has acknowledged comes out again, whatever happens to its file."""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.inbox.event import InboxEvent
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
