"""Overwrite what the spool's journal holds: copies of pages with records that were removed since.

SQLite's `secure_delete` overwrites records in the file itself, but a journal that persists keeps
pages as they were before the last transactions.
"""

import os
from pathlib import Path

_CHUNK = 64 * 1024


def wipe_journal(journal: Path, least_bytes: int) -> None:
    """Overwrite the journal with zeros, durably, and let it have `least_bytes` at least.

    The caller holds the file's write lock and has changed nothing: then SQLite has no use for the
    journal. A journal of zeros is as good as none. Raises OSError where the disk has no room, with
    all overwritten that there was.
    """
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write_zeros(descriptor, size)
            _write_zeros(descriptor, least_bytes - size)
        finally:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_zeros(descriptor: int, count: int) -> None:
    while count > 0:
        count -= os.write(descriptor, bytes(min(count, _CHUNK)))
