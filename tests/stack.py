"""docker-compose.yml as the tests read it, and servers that they start as it says."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-((?:[^{}]|\{[^{}]*\})*))?\}")


def resolve(text: str) -> str:
    """Put the defaults in the place of all variables."""
    while found := VARIABLE.search(text):
        text = text[: found.start()] + (found[2] or "") + text[found.end() :]
    return text


def mounts(name: str) -> Iterator[tuple[str, str, bool]]:
    """Yield source, target and whether it can't be written, of a service's volumes."""
    for volume in SERVICES[name].get("volumes", ()):
        source, target, *mode = volume.split(":")
        yield source, target, mode == ["ro"]


def check(*command: str | Path, **options: Any) -> str:
    """Run a command that has to succeed, and return what it wrote."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(
    command: Sequence[str | Path], directory: Path, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends. Its output is in the directory, in `output`."""
    with (directory / "output").open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, **options
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
    return found
