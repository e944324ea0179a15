"""Keep events on the local disk while PostgreSQL is away: a SQLite file, fsynced at each commit.

The file has a rollback journal: in a write-ahead log one flipped bit would hide every commit after
it. A flipped bit in a record doesn't show by itself, so each record carries its own checksum; one
that fails it, or that PostgreSQL will never take, is set aside in the file and counted. A file
whose structure is damaged is kept for a person to look at, and its records move to a new one.
"""

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog

from exporter.domain.event import InboxEvent
from exporter.inbox.record import COLUMN_COUNT, COLUMNS, Damaged, to_event, to_row
from exporter.inbox.salvage import PAGE_BYTES, whole_rows
from exporter.inbox.spool_file import (
    JOURNAL_BYTES,
    check_header,
    check_structure,
    connect,
    is_damage,
    is_full,
    is_locked,
    sync_directory,
    transaction,
)
from exporter.inbox.wipe import wipe_journal
from exporter.support.private_file import PRIVATE_DIRECTORY, make_private, narrow

log = structlog.get_logger()
T = TypeVar("T")

_INSERT = f"INSERT INTO spool ({COLUMNS}) VALUES ({', '.join('?' * COLUMN_COUNT)})"
# Bodies of one batch that is drained: it is held in memory more than once.
_BATCH_BYTES = 8 * 1024 * 1024
_PROBE_BYTES = 64 * 1024


class SpoolUnavailable(Exception):
    """The spool can't take an event: its disk is full, it is too large, or the file is unusable."""


class Spool:
    """The spool of one process. All of its work happens in one thread of its own."""

    def __init__(self, path: Path, max_bytes: int, *, refused: bool = False) -> None:
        """`refused`: the path can't be used, and nothing is to be done with it."""
        self.path = path
        self._refused = refused
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._connection: sqlite3.Connection | None = None
        self._checked = False
        # The last record number that was handed out: who has it may yet remove that record.
        self._handed_out = 0
        self._used_bytes = 0
        # Whether the file may hold bytes of records that were removed from it.
        self._unclean = False
        self.events = 0
        """Events that wait to be drained."""
        self.set_aside = 0
        """Events that can't be drained, kept in the file with their problem."""
        self.size_bytes = 0
        """Bytes the file takes, its journal included."""
        self.free_bytes = 0
        """Bytes that its disk has free, when it was last opened; 0 where that can't be told."""
        self.problem: str | None = "it is not open"
        """Why the last use of the file failed; None where it succeeded."""

    @property
    def usable(self) -> bool:
        """Tell whether the last use of the file succeeded."""
        return self.problem is None

    async def open(self) -> None:
        """Open the file and find out whether it can be used, at the start or again.

        Writes a little beside it, and notes what its disk has free.

        A damaged one is set aside, and its records move to a new one. Raises SpoolUnavailable.
        """
        await self._call(self._open)

    async def close(self) -> None:
        """Close the file."""
        if not self._refused:
            await self._call(self._close)
        self._thread.shutdown()

    async def append(self, events: Sequence[InboxEvent]) -> list[None]:
        """Store events, fsynced, in one commit. Raises SpoolUnavailable."""
        await self._call(lambda: self._append(events))
        return [None] * len(events)

    async def oldest(self, limit: int) -> list[tuple[int, InboxEvent]]:
        """Return up to `limit` waiting events with their record numbers; damaged ones step aside.

        Fewer where their bodies are large. Raises SpoolUnavailable.
        """
        return await self._call(lambda: self._oldest(limit))

    async def remove(self, numbers: Sequence[int]) -> None:
        """Forget records that PostgreSQL has committed. Raises SpoolUnavailable."""
        await self._call(lambda: self._remove(numbers))

    async def put_aside(self, number: int, problem: str) -> None:
        """Keep a record out of the way, with the reason why PostgreSQL refuses it."""
        await self._call(lambda: self._put_aside([(problem, number)]))

    async def _call(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._guard, work)

    def _guard(self, work: Callable[[], T]) -> T:
        if self._refused:
            self.problem = "SPOOL_PATH can't be used"
            raise SpoolUnavailable(self.problem)
        try:
            try:
                result = work()
            except Exception as error:
                if not is_damage(error):
                    raise
                self._start_anew(error)
                result = work()
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            self.problem = str(error)
            if not (is_full(error) or is_locked(error)):
                self._close()
            raise SpoolUnavailable(str(error)) from error
        except SpoolUnavailable as error:
            self.problem = str(error)
            raise
        self.problem = None
        return result

    def _open(self) -> None:
        self.free_bytes = 0
        self.path.parent.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        self.free_bytes = shutil.disk_usage(self.path.parent).free
        if not self._checked:
            self._narrow_set_aside()
            # Left by a process that was killed while it moved the records of a damaged file.
            moved = self._beside(".new")
            if moved.exists() and not self.path.exists():
                moved.rename(self.path)
            check_header(self.path)
            check_structure(self._connect())
            self._checked = True
        # What is in the file can be drained also where nothing more goes in.
        self._clean(self._connect())
        self._check_room(0)
        probe = self._beside(".probe")
        try:
            make_private(probe)
            with probe.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            # An earlier version, or a process that was killed, may have left removed records.
            self._unclean |= self.path.exists()
            connection = connect(self.path)
            try:
                self._wipe_journal(connection)
                self._count(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _wipe_journal(self, connection: sqlite3.Connection) -> None:
        """Overwrite the journal, with its least size: a full disk would not let it grow later."""
        # Nobody else uses the journal inside a transaction of ours, and we not before a change.
        with transaction(connection), contextlib.suppress(OSError):
            # Without the room all is well until the disk is full.
            wipe_journal(self._beside("-journal"), JOURNAL_BYTES)

    def _narrow_set_aside(self) -> None:
        """Take others' rights away from files of damaged spools that are kept."""
        for path in self.path.parent.glob(f"{self.path.name}.damaged-*"):
            narrow(path)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _start_anew(self, error: Exception) -> None:
        """Move every record of a damaged file that is whole to a new file, and keep the old one.

        Killed meanwhile, the next start does it again or finds it done.
        """
        self._close()
        fresh = self._beside(".new")
        for suffix in (".new", ".new-journal"):
            self._beside(suffix).unlink(missing_ok=True)
        connection = connect(fresh)
        try:
            with transaction(connection):
                # Who still holds record numbers of the old file must not remove records of this.
                connection.execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES ('spool', ?)",
                    (self._handed_out,),
                )
                connection.executemany(_INSERT, whole_rows(self.path))
        finally:
            connection.close()
        damaged = f".damaged-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}"
        journal = self._beside("-journal")
        if journal.exists():
            journal.rename(self._beside(f"{damaged}-journal"))
        self.path.rename(self._beside(damaged))
        fresh.rename(self.path)
        sync_directory(self.path.parent)
        self._connect()
        log.error(
            "spool_damaged",
            path=str(self.path),
            error=error,
            kept_as=str(self._beside(damaged)),
            saved=self.events,
            set_aside=self.set_aside,
        )

    def _count(self, connection: sqlite3.Connection) -> None:
        self.events, self.set_aside = connection.execute(
            "SELECT count(*) FILTER (WHERE problem IS NULL),"
            " count(*) FILTER (WHERE problem IS NOT NULL) FROM spool"
        ).fetchone()
        self._measure(connection)

    def _measure(self, connection: sqlite3.Connection) -> None:
        paths = (self.path, self._beside("-journal"))
        self.size_bytes = sum(path.stat().st_size for path in paths if path.exists())
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        [free_pages] = connection.execute("PRAGMA freelist_count").fetchone()
        self._used_bytes = (pages - free_pages) * PAGE_BYTES

    def _check_room(self, incoming_bytes: int) -> None:
        if self._used_bytes + incoming_bytes > self._max_bytes and self.events:
            raise SpoolUnavailable(f"the spool has reached its {self._max_bytes} bytes")

    def _append(self, events: Sequence[InboxEvent]) -> None:
        connection = self._connect()
        self._check_room(sum(len(event.body) for event in events))
        with transaction(connection):
            connection.executemany(_INSERT, [to_row(event) for event in events])
        self.events += len(events)
        self._measure(connection)

    def _oldest(self, limit: int) -> list[tuple[int, InboxEvent]]:
        connection = self._connect()
        good, damaged, size = [], [], 0
        with contextlib.closing(
            connection.execute(
                f"SELECT id, {COLUMNS} FROM spool WHERE problem IS NULL ORDER BY id LIMIT ?",
                (limit,),
            )
        ) as rows:
            for number, *row in rows:
                try:
                    event = to_event(row)
                except Damaged as error:
                    damaged.append((f"damaged: {error}", number))
                    continue
                good.append((number, event))
                self._handed_out = max(self._handed_out, number)
                size += len(event.body)
                if size > _BATCH_BYTES:
                    break
        if damaged:
            self._put_aside(damaged)
        elif not good:
            # Another process has drained what this one has counted.
            self._count(connection)
        return good

    def _put_aside(self, problems: Sequence[tuple[str, int]]) -> None:
        connection = self._connect()
        with transaction(connection):
            connection.executemany("UPDATE spool SET problem = ? WHERE id = ?", problems)
        self._count(connection)
        for problem, number in problems:
            log.error("spool_record_set_aside", record=number, problem=problem)

    def _remove(self, numbers: Sequence[int]) -> None:
        connection = self._connect()
        try:
            removed = self._delete(connection, numbers)
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            removed = self._delete_on_a_full_disk(connection, numbers)
        self.events = max(self.events - removed, 0)
        self._wipe_journal(connection)
        self._measure(connection)
        self._clean(connection)

    def _delete_on_a_full_disk(self, connection: sqlite3.Connection, numbers: Sequence[int]) -> int:
        """Remove records one by one: the room that the journal keeps is enough for that.

        Overwriting them would take more room; that follows once all are drained.
        """
        self._unclean = True
        connection.execute("PRAGMA secure_delete = OFF")
        try:
            return sum(self._delete(connection, [number]) for number in numbers)
        finally:
            connection.execute("PRAGMA secure_delete = ON")

    def _clean(self, connection: sqlite3.Connection) -> None:
        """Write an empty spool's file anew: it gets small, and loses all traces of old records."""
        large = self.size_bytes > 2 * (self._used_bytes + JOURNAL_BYTES)
        if self.events or not (large or self._unclean):
            return
        # Another process or a full disk may stand against it.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")
            self._unclean = False
        self._wipe_journal(connection)
        self._measure(connection)

    def _delete(self, connection: sqlite3.Connection, numbers: Sequence[int]) -> int:
        with transaction(connection):
            rows = [(number,) for number in numbers]
            return connection.executemany("DELETE FROM spool WHERE id = ?", rows).rowcount
