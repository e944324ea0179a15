"""The local spool with a damaged file: whole records come out, damaged ones are set aside."""

import os
import random
import shutil
from pathlib import Path

import pytest

from exporter.inbox.event import InboxEvent

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
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    draw = random.Random(seed)
    rounds = int(os.environ.get("FLIP_ROUNDS", "100"))
    for number in range(rounds):
        path = a_copy(original, tmp_path / str(number))
        flips = draw.choice([1, 1, 1, 5])
        for _ in range(flips):
            flip(path, draw)
        taken, set_aside = await rescued(path)
        lost = set(events) - set(taken)
        assert set(taken) <= set(events), f"round {number}"
        assert len(lost) <= flips, f"round {number}"
        assert set_aside >= len(lost), (
            f"round {number}: {set_aside} set aside, {len(lost)} lost, {flips} flips"
        )
        shutil.rmtree(path.parent)
