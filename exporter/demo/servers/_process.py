"""What the embedded servers share: port, spawn, readiness, stop, kill, pause."""

import importlib.util
import os
import random
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self, TypedDict

from exporter.support.private_file import write_private

START_LIMIT = 60.0  # seconds until a server must be ready; covers a crash recovery
RETRY_LIMIT = 15.0  # seconds in which a start is retried while a predecessor goes away
STOP_LIMIT = 20.0  # seconds before a polite stop becomes a SIGKILL
PORT_PATIENCE = 2.0  # seconds for a predecessor to give the remembered port back

# Holds the read end of a pipe. Each line is the list of processes to end once the pipe closes,
# server first; an empty line means that there is nothing left to end. Unlike PR_SET_PDEATHSIG
# this survives a change of user, and does not fire when merely the thread that called start()
# ends, as the threads of a pool do.
_WATCHDOG = """
pids=
while read -r line; do pids=$line; done
[ -n "$pids" ] || exit 0
set -- $pids
kill -s "$STOP_SIGNAL" "$1"
kill -s CONT "$@"
"""


class ServerError(RuntimeError):
    """A server is missing, cannot start, or is not running."""


class Credentials(TypedDict, total=False):
    """The other user to run as, as keyword arguments of subprocess.Popen."""

    user: int
    group: int
    extra_groups: list[int]


def package_directory(package: str) -> Path:
    """Folder of an installed package, without importing it. Raises ServerError."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(
            f"the package {package} is not installed: pip install 'ghl-exporter[demo]'"
        )
    return Path(spec.submodule_search_locations[0])


def remembered_password(path: Path) -> str:
    """The password kept in a file; a random one is made on first use."""
    with suppress(FileNotFoundError):
        if password := path.read_text("utf-8").strip():
            return password
    password = secrets.token_urlsafe(24)
    write_private(path, password)
    return password


def server_environment() -> dict[str, str]:
    """English messages, and none of the caller's PG* settings or secrets."""
    kept = ("PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Without this a closed connection in TIME_WAIT would count as a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The command name may hold spaces and brackets: split after its last bracket.
            if int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


class Server(ABC):
    """A server that listens on 127.0.0.1 and lives as a direct child of this process.

    It runs in a session of its own, so Ctrl-C in the terminal does not reach it: the parent
    stops it. If the parent ends without doing so, even by SIGKILL, a small watchdog process
    asks the server to stop. Processes forked from the parent without exec keep it alive too.

    All methods block; an instance must be used by one thread at a time.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    # Lower-case texts in the log of a failed start that are worth another try.
    retry_on: ClassVar[tuple[str, ...]] = ("address already in use",)

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        """port 0 picks a free port once and keeps it in the directory."""
        self.directory = directory.absolute()
        self.log = self.directory / f"{self.name}.log"
        self._fixed_port = port
        self._port = port
        self._credentials = Credentials()
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []

    @abstractmethod
    def url(self) -> str:
        """Where clients reach the server. Known before the first start."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _is_ready(self, pid: int) -> bool: ...

    def _environment(self) -> dict[str, str]:
        return server_environment()

    def _prepare(self) -> None:
        """Make what a start needs; called before each start."""
        self.directory.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int | None:
        """Process id of the running server, else None."""
        alive = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and alive else None

    @property
    def port(self) -> int:
        """TCP port: known before the first start; a start may change one taken meanwhile."""
        if not self._port:
            with suppress(FileNotFoundError, ValueError):
                self._port = int(self._port_file.read_text("ascii"))
        return self._port or self._choose_port()

    @property
    def location(self) -> Path:
        """The folder that holds the server's own files."""
        return self.directory

    @property
    def _port_file(self) -> Path:
        return self.directory / f"{self.name}.port"

    def start(self) -> None:
        """Start and wait until ready; does nothing if it runs. Raises ServerError."""
        if self.pid is not None:
            return
        self._forget()
        self._prepare()
        begun = time.monotonic()
        while True:
            self._claim_port()
            log_start = self.log.stat().st_size if self.log.exists() else 0
            try:
                self._spawn()
                ready = self._wait_until_ready(begun + START_LIMIT)
            except BaseException:
                self.kill()
                raise
            if ready:
                return
            self._forget()
            said = self._log_end(log_start)
            retry = any(text in said.lower() for text in self.retry_on)
            if not retry or time.monotonic() > begun + RETRY_LIMIT:
                raise ServerError(f"{self.name} ended while starting; end of {self.log}:\n{said}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Ask the server to end; SIGKILL after 20 seconds. Does nothing if it is not running."""
        if self._process is not None and self.pid is not None:
            self._process.send_signal(self.stop_signal)
            self.resume()
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._forget()

    def kill(self) -> None:
        """SIGKILL the server, as a crash would, and wait for it."""
        if self._process is not None:
            self._process.kill()
            # Reaped at once: the next start would take a zombie for a running server.
            self._process.wait()
        self._forget()

    def pause(self) -> None:
        """SIGSTOP the server and its children: clients hang instead of being refused."""
        if (pid := self.pid) is None:
            raise ServerError(f"{self.name} is not running")
        os.kill(pid, signal.SIGSTOP)
        self._paused = [pid]
        # The stopped parent makes no more children; a second look finds one just being made.
        while new := [child for child in _children(pid) if child not in self._paused]:
            for child in new:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGSTOP)
            self._paused += new
        self._tell_watchdog(self._paused)

    def resume(self) -> None:
        """SIGCONT what pause() stopped. Does nothing if it is not paused."""
        for pid in self._paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._paused = []
        if (pid_now := self.pid) is not None:
            self._tell_watchdog([pid_now])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _choose_port(self) -> int:
        # Below the range of ephemeral ports, where an outgoing connection could take it later.
        self._port = random.randrange(20000, 32000)
        while not _port_is_free(self._port):
            self._port = random.randrange(20000, 32000)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._port_file.write_text(f"{self._port}\n", "ascii")
        return self._port

    def _claim_port(self) -> None:
        patience = time.monotonic() + PORT_PATIENCE
        while not _port_is_free(self.port):
            if time.monotonic() < patience:
                time.sleep(0.1)
            elif self._fixed_port:
                raise ServerError(f"{self.name}: port {self.port} is in use by another program")
            else:
                self._choose_port()

    def _spawn(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        log = os.open(self.log, flags, 0o600)
        try:
            self._watchdog = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"STOP_SIGNAL": self.stop_signal.name.removeprefix("SIG")},
                start_new_session=True,
                **self._credentials,
            )
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.location,
                env=self._environment(),
                start_new_session=True,
                **self._credentials,
            )
        finally:
            os.close(log)
        self._tell_watchdog([self._process.pid])

    def _tell_watchdog(self, pids: list[int]) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with suppress(BrokenPipeError):
                self._watchdog.stdin.write(" ".join(map(str, pids)).encode() + b"\n")

    def _wait_until_ready(self, deadline: float) -> bool:
        """False if the server ended by itself."""
        while (pid := self.pid) is not None:
            if self._is_ready(pid):
                return True
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} was not ready within {START_LIMIT:.0f} s; "
                    f"end of {self.log}:\n{self._log_end()}"
                )
            time.sleep(0.01)
        return False

    def _forget(self) -> None:
        """Clear up after a server that has ended."""
        self._process = None
        # Children that were paused outlive their parent, and would block the next start.
        self.resume()
        if (watchdog := self._watchdog) is not None:
            self._tell_watchdog([])
            if watchdog.stdin is not None:
                watchdog.stdin.close()
            watchdog.wait()
            self._watchdog = None

    def _log_end(self, start: int = 0) -> str:
        with suppress(FileNotFoundError):
            said = self.log.read_bytes()[start:].decode("utf-8", "replace")
            return "\n".join(said.splitlines()[-20:])
        return ""
