"""Read the records of a damaged spool from its pages, without SQLite.

Each record is believed for its own checksum, so neither the file's header, nor its schema, nor the
tree above the records needs to be whole. What was removed and is not overwritten yet (a full disk
can delay that) comes back too: PostgreSQL knows it by its key. The format is https://www.sqlite.org/fileformat.html.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from exporter.inbox.record import COLUMN_COUNT, Damaged, check, placeholder

PAGE_BYTES = 4096
_LEAF = 0x0D
_LEAF_HEADER = 8
# No record of ours is smaller, so a page that claims to hold more of them is not believed.
_LEAST_RECORD_BYTES = 40
_MOST_RECORDS = PAGE_BYTES // _LEAST_RECORD_BYTES
# How much of a record lies in the leaf itself where it spills over to further pages.
_MOST_LOCAL = PAGE_BYTES - 35
_LEAST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

_ReadPage = Callable[[int], bytes]


class _NoRecord(Exception):
    """The bytes are no record of the spool."""


def whole_rows(path: Path) -> Iterator[tuple[object, ...]]:
    """Yield the `COLUMNS` of each record that is whole, and a note in place of one that isn't.

    Raises OSError where the file can't be opened.
    """
    seen = set()
    for row in _carve(path):
        if row is None:
            yield placeholder("damaged: it can't be read")
            continue
        try:
            check(row)
        except Damaged as error:
            yield placeholder(f"damaged: {error}")
            continue
        problem, checksum, *values = row
        if checksum not in seen:
            seen.add(checksum)
            yield (problem if isinstance(problem, str) else None, checksum, *values)


def _carve(path: Path) -> Iterator[tuple[object, ...] | None]:
    """Yield the `COLUMNS` of every record, unchecked; None for each that can't be read."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        most_bytes = os.fstat(descriptor).st_size

        def read_page(number: int) -> bytes:
            try:
                return os.pread(descriptor, PAGE_BYTES, (number - 1) * PAGE_BYTES)
            except (OSError, OverflowError):
                return b""

        # The first page holds the header and the schema.
        for number in range(2, most_bytes // PAGE_BYTES + 2):
            yield from _records(read_page(number), read_page, most_bytes)
    finally:
        os.close(descriptor)


def _records(
    page: bytes, read_page: _ReadPage, most_bytes: int
) -> Iterator[tuple[object, ...] | None]:
    """Yield the records of a page, also where the byte that says what page it is has flipped."""
    # Pages that a record spills over to begin with a small number, so with 0.
    if not page or page[0] == 0:
        return
    count = int.from_bytes(page[3:5])
    counted = count if page[0] == _LEAF and count <= _MOST_RECORDS else 0
    for index, at in enumerate(range(_LEAF_HEADER, len(page) - 1, 2)):
        start = int.from_bytes(page[at : at + 2])
        if start == 0 and index >= counted:
            return
        try:
            yield _columns(_payload(page, start, read_page, most_bytes))
        except (_NoRecord, IndexError):
            if index < counted and not _is_sequence(page, start):
                yield None


def _is_sequence(page: bytes, start: int) -> bool:
    """Tell whether a cell is the one of SQLite's own that keeps the last record number."""
    return b"spool" in page[start : start + 16]


def _payload(page: bytes, start: int, read_page: _ReadPage, most_bytes: int) -> bytes:
    size, at = _varint(page, start)
    _, at = _varint(page, at)
    if not _LEAST_RECORD_BYTES <= size <= most_bytes:
        raise _NoRecord
    local = size
    if size > _MOST_LOCAL:
        local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE_BYTES - 4)
        local = local if local <= _MOST_LOCAL else _LEAST_LOCAL
    parts, have = [page[at : at + local]], local
    following = int.from_bytes(page[at + local : at + local + 4])
    while have < size:
        further = read_page(following) if following else b""
        if len(further) < 4:
            raise _NoRecord
        parts.append(further[4:])
        have += PAGE_BYTES - 4
        following = int.from_bytes(further[:4])
    return b"".join(parts)[:size]


def _columns(payload: bytes) -> tuple[object, ...]:
    header_bytes, at = _varint(payload, 0)
    kinds = []
    while at < header_bytes:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    # The record number comes first; it is kept elsewhere, and here it is null.
    if len(kinds) != COLUMN_COUNT + 1 or kinds[0] != 0:
        raise _NoRecord
    values: list[object] = []
    for kind in kinds[1:]:
        value, at = _value(payload, at, kind)
        values.append(value)
    return tuple(values)


def _value(payload: bytes, at: int, kind: int) -> tuple[object, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind in _INTEGER_BYTES:
        end = at + _INTEGER_BYTES[kind]
        return int.from_bytes(payload[at:end], signed=True), end
    if kind < 12:
        raise _NoRecord
    end = at + (kind - 12) // 2
    part = payload[at:end]
    return (part.decode("utf-8", "replace") if kind % 2 else part), end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an integer of up to nine bytes, seven bits each. Raises IndexError at the data's end."""
    value = 0
    for offset in range(8):
        byte = data[at + offset]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + offset + 1
    return value << 8 | data[at + 8], at + 9
