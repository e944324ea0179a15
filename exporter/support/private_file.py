"""Create files that only this user can read: they hold customers' data or secrets."""

import contextlib
import os
import stat
from pathlib import Path

import structlog

log = structlog.get_logger()

PRIVATE = 0o600
PRIVATE_DIRECTORY = 0o700


def make_private(path: Path) -> None:
    """Create an empty file with mode 0600, or narrow the mode of one that exists.

    Made before anything is written, so that no moment exists in which others can read it. Raises
    OSError where it can't be created; a mode that can't be changed is logged.
    """
    # Whatever the umask is, nobody else gets any right.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        _narrow(path, descriptor)
    finally:
        os.close(descriptor)


def narrow(path: Path) -> None:
    """Take others' rights to a file away, if there is such a file. Logs what it changes."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _narrow(path, descriptor)
        finally:
            os.close(descriptor)


def write_private(path: Path, content: bytes | str) -> None:
    """Replace the content of a file that only this user can read; follow no symbolic link.

    Raises OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, PRIVATE), "wb") as file:
        # Narrowed before anything is written, for the file may be one that others can read.
        _narrow(path, file.fileno())
        file.truncate()
        file.write(content.encode() if isinstance(content, str) else content)


def _narrow(path: Path, descriptor: int) -> None:
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or not mode & ~PRIVATE:
        return
    try:
        os.fchmod(descriptor, mode & PRIVATE)
    except OSError as error:
        log.warning("file_readable_by_others", path=str(path), mode=f"{mode:04o}", why=str(error))
    else:
        log.warning("file_made_private", path=str(path), mode_before=f"{mode:04o}")
