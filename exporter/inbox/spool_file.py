"""The spool's file as SQLite sees it: how it is opened, and how damage to it shows."""

import os
import sqlite3
from pathlib import Path

from exporter.inbox.record import SCHEMA
from exporter.inbox.salvage import PAGE_BYTES
from exporter.support.private_file import make_private, narrow

# Disk space that the journal keeps, so that on a full disk records can still be removed.
JOURNAL_BYTES = 256 * 1024

# How long another process that drains the same file may hold it, in seconds.
_BUSY_TIMEOUT = 0.5
# Bytes of the header that never change, and where: format, page size, journal; text encoding.
_HEADER = {
    0: b"SQLite format 3\0" + bytes.fromhex("1000 01 01 00 40 20 20"),
    44: bytes.fromhex("00000004 00000000 00000000 00000001"),
}


class DamagedFile(sqlite3.DatabaseError):
    """The file isn't as SQLite and we have written it."""


class transaction:
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


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, or make it, readable by this user only. Raises sqlite3.Error or OSError."""
    # SQLite gives the journal the mode of the file.
    make_private(path)
    narrow(path.with_name(f"{path.name}-journal"))
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    # A flipped bit can make a text undecodable; its checksum tells, not an exception.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = PERSIST")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        with transaction(connection):
            found = connection.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_schema"
            ).fetchall()
            if not found:
                connection.execute(SCHEMA)
            elif ("table", "spool", "spool", SCHEMA) not in found:
                raise DamagedFile("the file's schema is damaged")
    except BaseException:
        connection.close()
        raise
    return connection


def check_header(path: Path) -> None:
    """Find the flipped bits that SQLite itself would believe. Raises DamagedFile or OSError."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    for start, expected in _HEADER.items():
        if header and header[start : start + len(expected)] != expected:
            raise DamagedFile("the file's header is damaged")


def check_structure(connection: sqlite3.Connection) -> None:
    """Read the whole file. Raises sqlite3.DatabaseError where its structure is damaged."""
    [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamagedFile(verdict)


def is_damage(error: Exception) -> bool:
    """Tell whether the file's own bytes are at fault."""
    # A schema with a flipped bit is named in SQLite's messages, which are no UTF-8 then.
    if isinstance(error, DamagedFile | UnicodeDecodeError):
        return True
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_full(error: BaseException) -> bool:
    """Tell whether the disk has no room."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_locked(error: BaseException) -> bool:
    """Tell whether another process has the file's lock."""
    return _code(error) == sqlite3.SQLITE_BUSY


def sync_directory(directory: Path) -> None:
    """Make the names of a directory's files durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
