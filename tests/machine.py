"""Boot a throwaway machine with systemd, where commands may change /etc, /opt and units.

Needs root, and this system's own systemd and util-linux; nothing is downloaded.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

BOOT = Path(__file__).with_name("machine.sh")
NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts")
NEW = f'exec unshare {" ".join(NAMESPACES)} --fork --kill-child sh "$@"'
PROGRAMS = ("ip", "nsenter", "setpriv", "unshare")
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
# What machine.sh mounts, in a namespace that is gone at once.
MOUNTS = """
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/machine
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/machine
    mount -t cgroup2 cgroup2 /mnt/machine/mnt
    mkdir "/mnt/machine/mnt$(sed -n 's/^0:://p' /proc/self/cgroup)/probe-$$"
    rmdir "/mnt/machine/mnt$(sed -n 's/^0:://p' /proc/self/cgroup)/probe-$$"
"""
_BOOT_WITHIN = 60.0
_END = "the block ended with"


class MachineError(RuntimeError):
    """The machine can't boot, or a script in it fails."""


def why_none() -> str | None:
    """Return what is missing for a machine here, or None."""
    if os.geteuid() != 0:
        return "a machine of its own needs root"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}"
    allowed = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "sh", "-euc", MOUNTS],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if allowed.returncode == 0 else f"no namespaces: {allowed.stderr.strip()}"


class Machine:
    """Boots when entered, and is gone with everything in it when left.

    `directory`: where the host keeps its files; `directory/root` is laid over the machine's root.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self._work = directory / f"machine-{secrets.token_hex(4)}"
        self.root = self._work / "root"
        self.root.mkdir(parents=True)
        self.environment = ENVIRONMENT | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self._work / "boot.log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            # It ends with this process, whatever ends that.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "sh", "-euc", NEW, "sh", BOOT, self._work],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_booted()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            with suppress(IndexError, ProcessLookupError):
                os.kill(self._first_process(), signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        for mounted in Path("/proc/mounts").read_text("utf-8").splitlines():
            _, where, kind, *_ = mounted.split()
            if kind == "cgroup2":
                for folder in Path(where).rglob(self._work.name):
                    _remove_groups(folder)

    def _first_process(self) -> int:
        assert self._process is not None
        of = f"/proc/{self._process.pid}/task/{self._process.pid}/children"
        return int(Path(of).read_text("ascii").split()[0])

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + _BOOT_WITHIN
        while True:
            with suppress(IndexError, OSError):
                name = Path(f"/proc/{self._first_process()}/comm").read_text("ascii").strip()
                if name == "systemd":
                    said = self.run("systemctl is-active machine.target", check=False)
                    if said.strip() == "active":
                        return
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"no machine: {self._log.read_text('utf-8', 'replace')}")
            time.sleep(0.1)

    def _enter(self) -> list[str]:
        target = str(self._first_process())
        inside = ["nsenter", "--target", target, *NAMESPACES, "--cgroup", "--root", "--wd"]
        return [*inside, "env", "--ignore-environment"] + [
            f"{name}={value}" for name, value in self.environment.items()
        ]

    def run(self, script: str, *, check: bool = True, timeout: float = 60.0) -> str:
        """Run a script by bash as root; return its output. Raises MachineError where it fails."""
        done = subprocess.run(
            [*self._enter(), "bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise MachineError(f"{script}\nended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def shell(self) -> "Shell":
        """Open a shell as root that keeps its directory and its variables, as a person's does."""
        return Shell([*self._enter(), "bash", "-uo", "pipefail"])


class Shell:
    """A shell in a machine; each block that it runs must succeed, line by line. Ends when left."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, block: str, answers: str = "") -> str:
        """Return what a block writes. Raises MachineError where one of its lines fails.

        `answers`: what a person types into its terminal; without any it has none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        mark = f"{_END} {secrets.token_hex(8)}"
        # `eval` reads all of it before anything in it could read from standard input.
        given = f"eval {_quoted(block)} </dev/null"
        if answers:
            terminal = f"script --quiet --return --command {_quoted(block)} /dev/null"
            given = f"{terminal} <<<{_quoted(answers)}"
        script = f"set -e; {given}; set +e; echo; echo '{mark}'\n"
        self._process.stdin.write(script)
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.strip() == mark:
                return "".join(lines)
            lines.append(line)
        raise MachineError(f"{block}\nended with {self._process.wait()}:\n{''.join(lines)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _remove_groups(folder: Path) -> None:
    deadline = time.monotonic() + 5
    while folder.exists() and time.monotonic() < deadline:
        for path, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):
                Path(path).rmdir()
        time.sleep(0.05)
