"""Keep events on the local disk while PostgreSQL is away: a SQLite file, fsynced at each commit.

SQLite's write-ahead log survives a torn last record by itself. A flipped bit in the file does not
show by itself, so each record carries its own checksum; a record that fails it, or that PostgreSQL
will never take, is set aside in the file and counted, and the rest goes on.
"""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from exporter.inbox.event import InboxEvent

log = structlog.get_logger()
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    location_id TEXT NOT NULL, source TEXT NOT NULL, endpoint TEXT NOT NULL,
    event_type TEXT NOT NULL, idempotency_key TEXT NOT NULL, correlation_id TEXT NOT NULL,
    received_at_us INTEGER NOT NULL, body BLOB NOT NULL, checksum BLOB NOT NULL,
    problem TEXT
);
CREATE INDEX IF NOT EXISTS spool_waiting ON spool (id) WHERE problem IS NULL;
"""
_COLUMNS = (
    "location_id, source, endpoint, event_type, idempotency_key, correlation_id,"
    " received_at_us, body, checksum"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# How long another process that drains the same file may hold it.
_BUSY_TIMEOUT = 0.5
_SALVAGE_GAP = 10_000


class SpoolUnavailable(Exception):
    """The spool can't take an event: its disk is full, it is too large, or the file is unusable."""


class Spool:
    """The spool of one process. All of its work happens in one thread of its own."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._connection: sqlite3.Connection | None = None
        self.events = 0
        """Events that wait to be drained."""
        self.set_aside = 0
        """Events that can't be drained, kept in the file with their problem."""
        self.size_bytes = 0
        """Bytes the file takes, its write-ahead log included."""
        self.problem: str | None = "it is not open"
        """Why the last use of the file failed; None where it succeeded."""

    @property
    def usable(self) -> bool:
        """Tell whether the last use of the file succeeded."""
        return self.problem is None

    async def open(self) -> None:
        """Open the file, or set an unusable one aside and start a new one.

        Raises SpoolUnavailable where neither can be done.
        """
        await self._call(self._open)

    async def close(self) -> None:
        """Close the file."""
        await self._call(self._close)
        self._thread.shutdown()

    async def append(self, events: Sequence[InboxEvent]) -> list[None]:
        """Store events, fsynced, in one commit. Raises SpoolUnavailable."""
        await self._call(lambda: self._append(events))
        return [None] * len(events)

    async def oldest(self, limit: int) -> list[tuple[int, InboxEvent]]:
        """Return up to `limit` waiting events with their record numbers; damaged ones step aside."""
        return await self._call(lambda: self._oldest(limit))

    async def remove(self, numbers: Sequence[int]) -> None:
        """Forget records that PostgreSQL has committed."""
        await self._call(lambda: self._remove(numbers))

    async def put_aside(self, number: int, problem: str) -> None:
        """Keep a record out of the way, with the reason why PostgreSQL refuses it."""
        await self._call(lambda: self._put_aside([(problem, number)]))

    async def _call(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._guard, work)

    def _guard(self, work: Callable[[], T]) -> T:
        try:
            result = work()
        except sqlite3.DatabaseError as error:
            self.problem = str(error)
            if _is_damage(error):
                with contextlib.suppress(sqlite3.Error, OSError):
                    self._start_anew(error)
            else:
                self._close()
            raise SpoolUnavailable(str(error)) from error
        except OSError as error:
            self.problem = str(error)
            raise SpoolUnavailable(str(error)) from error
        except SpoolUnavailable as error:
            self.problem = str(error)
            raise
        self.problem = None
        return result

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._start_anew(error)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            # A flipped bit can make a text undecodable; its checksum tells, not an exception.
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
                self._count(connection)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _start_anew(self, error: sqlite3.DatabaseError) -> None:
        """Start a new file with every record of the damaged one that can still be read.

        The damaged file is kept, for a person to look at.
        """
        self._close()
        damaged = self.path.with_name(
            f"{self.path.name}.damaged-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}"
        )
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(damaged.with_name(damaged.name + suffix))
        connection = self._connect()
        rows = _salvage(damaged)
        with _transaction(connection):
            connection.executemany(
                f"INSERT INTO spool ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
        self._count(connection)
        log.error(
            "spool_damaged",
            path=str(self.path),
            error=str(error),
            kept_as=str(damaged),
            records_saved=len(rows),
        )

    def _count(self, connection: sqlite3.Connection) -> None:
        self.events, self.set_aside = connection.execute(
            "SELECT count(*) FILTER (WHERE problem IS NULL),"
            " count(*) FILTER (WHERE problem IS NOT NULL) FROM spool"
        ).fetchone()
        self._measure()

    def _measure(self) -> None:
        size = 0
        for suffix in ("", "-wal"):
            part = self.path.with_name(self.path.name + suffix)
            size += part.stat().st_size if part.exists() else 0
        self.size_bytes = size

    def _append(self, events: Sequence[InboxEvent]) -> None:
        connection = self._connect()
        incoming = sum(len(event.body) for event in events)
        if self.size_bytes + incoming > self._max_bytes and self.events:
            raise SpoolUnavailable(f"the spool has reached its {self._max_bytes} bytes")
        with _transaction(connection):
            connection.executemany(
                f"INSERT INTO spool ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(*(row := _row(event)), _checksum(row)) for event in events],
            )
        self.events += len(events)
        self._measure()

    def _oldest(self, limit: int) -> list[tuple[int, InboxEvent]]:
        connection = self._connect()
        good, damaged = [], []
        for number, *row, checksum in connection.execute(
            f"SELECT id, {_COLUMNS} FROM spool WHERE problem IS NULL ORDER BY id LIMIT ?", (limit,)
        ):
            try:
                if checksum != _checksum(row):
                    raise ValueError("the checksum does not match")
                good.append((number, _event(row)))
            except (TypeError, ValueError, OverflowError, AttributeError) as error:
                damaged.append((f"damaged: {error}", number))
        if damaged:
            self._put_aside(damaged)
        return good

    def _put_aside(self, problems: Sequence[tuple[str, int]]) -> None:
        connection = self._connect()
        with _transaction(connection):
            connection.executemany("UPDATE spool SET problem = ? WHERE id = ?", problems)
        self._count(connection)
        for problem, number in problems:
            log.error("spool_record_set_aside", record=number, problem=problem)

    def _remove(self, numbers: Sequence[int]) -> None:
        connection = self._connect()
        with _transaction(connection):
            connection.executemany("DELETE FROM spool WHERE id = ?", [(n,) for n in numbers])
        self._count(connection)
        if not self.events and not self.set_aside:
            # An empty spool gives its disk space back.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._measure()


class _transaction:
    """Take the file's write lock, commit, or roll back."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _salvage(damaged: Path) -> list[tuple[object, ...]]:
    """Read record by record what a damaged file still gives."""
    rows: list[tuple[object, ...]] = []
    try:
        connection = sqlite3.connect(damaged, isolation_level=None)
    except sqlite3.Error:
        return rows
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    number, failures = 0, 0
    # Past a damaged page the next number has to be guessed; give up where nothing follows.
    while failures < _SALVAGE_GAP:
        try:
            row = connection.execute(
                f"SELECT id, {_COLUMNS} FROM spool NOT INDEXED WHERE id >= ? ORDER BY id LIMIT 1",
                (number + 1,),
            ).fetchone()
        except sqlite3.Error:
            number, failures = number + 1, failures + 1
            continue
        if row is None:
            break
        number, failures = row[0], 0
        rows.append(row[1:])
    connection.close()
    return rows


def _row(event: InboxEvent) -> list[str | int | bytes]:
    return [
        event.location_id,
        event.source,
        event.endpoint,
        event.event_type,
        event.idempotency_key,
        event.correlation_id,
        (event.received_at - _EPOCH) // _MICROSECOND,
        event.body,
    ]


def _event(row: Sequence[object]) -> InboxEvent:
    *texts, microseconds, body = row
    if not all(isinstance(text, str) for text in texts) or not isinstance(body, bytes):
        raise TypeError("a column has another type")
    received_at = _EPOCH + int(str(microseconds)) * _MICROSECOND
    return InboxEvent(*[str(text) for text in texts], received_at=received_at, body=body)


def _checksum(row: Sequence[object]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for value in row:
        part = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
