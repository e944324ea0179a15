"""The local spool with a damaged file: whole records come out, damaged ones are set aside."""

import os
import random
import shutil
from pathlib import Path

import pytest

from exporter.domain.event import InboxEvent
from exporter.inbox.spool import SpoolUnavailable

from .test_spool import an_event, drain, opened

PAGE = 4096


@pytest.fixture(scope="module")
def events() -> list[InboxEvent]:
    draw = random.Random(1)
    sizes = [0, 1, 300, 900, 1_300, 3_900, 4_100, 9_000, 30_000]
    return [an_event(number, size=draw.choice(sizes)) for number in range(120)]


@pytest.fixture
async def original(events: list[InboxEvent], tmp_path: Path) -> Path:
    """A spool that some events have left already, as any that has been in use."""
    path = tmp_path / "original" / "spool"
    async with opened(path) as spool:
        for start in range(0, len(events), 6):
            await spool.append(events[start : start + 6])
            await spool.append([an_event(start, location_id="drained", size=2_000)])
        numbers = [n for n, event in await spool.oldest(1_000) if event.location_id == "drained"]
        await spool.remove(numbers)
        assert spool.events == len(events)
    return path


def a_copy(original: Path, directory: Path) -> Path:
    directory.mkdir()
    for file in original.parent.iterdir():
        shutil.copy(file, directory)
    return directory / original.name


def flip(path: Path, draw: random.Random) -> None:
    """Flip a bit: anywhere, in the first page, or in what says how a page is laid out."""
    with path.open("r+b") as file:
        anywhere = draw.randrange(path.stat().st_size)
        at = draw.choice([anywhere, draw.randrange(PAGE), anywhere // PAGE * PAGE + anywhere % 24])
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << draw.randrange(8)]))


async def rescued(path: Path) -> tuple[list[InboxEvent], int]:
    """What comes out, and how many are set aside. PostgreSQL knows what it had drained before."""
    async with opened(path) as spool:
        taken = await drain(spool)
        assert spool.usable
        assert spool.events == 0
        await spool.append([an_event(7)])
        # Damage that shows only now brings back what was removed: PostgreSQL knows the keys.
        assert "key-7" in [event.idempotency_key for event in await drain(spool)]
        return [event for event in taken if event.location_id != "drained"], spool.set_aside


async def test_a_flipped_bit_anywhere_costs_no_more_than_the_record_it_is_in(
    original: Path, events: list[InboxEvent], tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for number in range(100):
        path = a_copy(original, tmp_path / str(number))
        flips = draw.choice([1, 1, 1, 5])
        for _ in range(flips):
            flip(path, draw)
        taken, set_aside = await rescued(path)
        lost = set(events) - set(taken)
        assert set(taken) <= set(events), f"round {number}"
        assert len(lost) <= min(flips, set_aside), f"round {number}: {set_aside} set aside"
        shutil.rmtree(path.parent)


async def test_a_file_that_was_cut_off_costs_no_more_than_what_was_cut(
    original: Path, events: list[InboxEvent], tmp_path: Path
) -> None:
    draw = random.Random(5)
    size = original.stat().st_size
    for number, length in enumerate([size - 1, size - PAGE, *draw.sample(range(size), 12)]):
        path = a_copy(original, tmp_path / str(number))
        os.truncate(path, length)
        taken, _ = await rescued(path)
        assert set(taken) <= set(events)
        # Records are as large as their bodies, and a page that is cut takes a few with it.
        cut = sum(len(event.body) for event in set(events) - set(taken))
        assert cut <= size - length + 60 * PAGE


async def test_a_page_of_zeros_or_noise_costs_no_more_than_what_was_on_it(
    original: Path, events: list[InboxEvent], tmp_path: Path
) -> None:
    pages = original.stat().st_size // PAGE
    for page in [*range(6), *random.Random(6).sample(range(6, pages), 14)]:
        path = a_copy(original, tmp_path / str(page))
        with path.open("r+b") as file:
            file.seek(page * PAGE)
            file.write(random.Random(page).randbytes(PAGE) if page % 2 else bytes(PAGE))
        taken, _ = await rescued(path)
        assert set(taken) <= set(events)
        # The smallest events of the fixture have some 160 bytes with all of their fields.
        assert len(events) - len(set(taken)) <= PAGE // 160


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"not a database\n" * 500, bytes(3 * PAGE), b"SQLite format 3\0" + bytes(PAGE)],
    ids=["empty", "a byte", "text", "zeros", "header only"],
)
async def test_what_is_no_spool_is_kept_aside_and_a_new_one_begins(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "spool"
    path.write_bytes(content)
    assert await rescued(path) == ([], 0)
    kept = [file.read_bytes() for file in tmp_path.glob("spool.damaged-*[0-9]")]
    assert kept == ([content] if content else [])


async def test_a_file_that_is_replaced_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    async with opened(path) as spool:
        await spool.append([an_event(1)])
        path.rename(tmp_path / "elsewhere")
        # The first use may say that the file is gone; the next one has a new file.
        for _ in range(2):
            try:
                await spool.append([an_event(2)])
                break
            except SpoolUnavailable:
                continue
    async with opened(path) as again:
        assert [event.idempotency_key for event in await drain(again)] == ["key-2"]


async def test_damage_that_shows_while_events_are_taken_out_removes_none_that_came_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool"
    async with opened(path) as spool:
        await spool.append([an_event(number) for number in range(10)])
        held = [number for number, _ in await spool.oldest(100)]
        # Another process finds out and starts a new file, while PostgreSQL takes these ten.
        path.write_bytes(b"noise" * 10_000)
        async with opened(path) as other:
            assert other.events == 0
        for _ in range(2):
            try:
                await spool.append([an_event(number) for number in range(50, 60)])
                break
            except SpoolUnavailable:
                continue
        await spool.remove(held)
        left = [event.idempotency_key for event in await drain(spool)]
    assert set(left) >= {f"key-{number}" for number in range(50, 60)}


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "half moved"])
async def test_a_kill_while_a_damaged_file_is_replaced_loses_nothing(
    original: Path, events: list[InboxEvent], tmp_path: Path, moved: bool
) -> None:
    path = a_copy(original, tmp_path / "killed")
    fresh = path.with_name(f"{path.name}.new")
    if moved:
        # All records are in the new file, the old one has its new name, and then the kill.
        shutil.copy(path, fresh)
        path.rename(path.with_name(f"{path.name}.damaged-then"))
        path.with_name(f"{path.name}-journal").unlink()
    else:
        fresh.write_bytes(path.read_bytes()[: 7 * PAGE])
        with path.open("r+b") as file:
            file.write(b"noise")
    taken, _ = await rescued(path)
    assert set(taken) == set(events)
    assert not fresh.exists()
