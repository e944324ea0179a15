"""The Dockerfile, read and replayed without Docker: each stage in a root of its own.

What a container is to a process is made with the kernel's own means: mounts that nobody else sees,
a root that can't be written, a user without a name, no capabilities. The base image's part is
played by this machine's Python and system. Needs root and Linux.
"""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Template

from tests.stack import ROOT

Mounts = Mapping[str, Path]
# Where a file system can be mounted, or is looked for by the programs of this machine.
_FOLDERS = ("usr", "etc", "proc", "dev", "tmp", "root", "opt", "var/lib", "run/secrets")
# First on the path of the base image, where they stand for its Python and its pip.
_TOOLS, _PIP = "/base/bin", "/base/pip"
_PATH = f"{_TOOLS}:/usr/bin:/bin"
# Where the path of who is no administrator does not lead.
_CHROOT = shutil.which("chroot", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
# By what pip finds its way here: proxies, certificates, an index.
_NETWORK = re.compile(r"(PIP_(?!NO_CACHE|DISABLE).*|SSL_CERT_.*|.*_proxy)", re.IGNORECASE)


def instructions() -> Iterator[tuple[str, str]]:
    """Yield the Dockerfile's instructions, each with the rest of its line."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, fields = line.partition(" ")
        yield name, fields.strip()


def context_files() -> Iterator[Path]:
    """Yield what .dockerignore lets through, relative to the checkout."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    everything, *rules = [line for line in lines if line and not line.startswith("#")]
    assert everything == "*", "read here: what is let through, and what nowhere"
    let_through = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    nowhere = {rule.removeprefix("**/") for rule in rules if not rule.startswith("!")}
    assert not any("*" in name or "/" in name for name in (*let_through, *nowhere))
    for top in sorted(let_through):
        found = [ROOT / top] if (ROOT / top).is_file() else sorted((ROOT / top).rglob("*"))
        for path in found:
            relative = path.relative_to(ROOT)
            if path.is_file() and not nowhere & set(relative.parts):
                yield relative


@dataclass
class Stage:
    """What a stage says of its containers."""

    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    directory: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_command: list[str] = field(default_factory=list)

    def read(self, name: str, fields: str) -> bool:
        """Take up an instruction that makes no files; return whether it is one."""
        match name:
            case "ENV" | "LABEL":
                known = {"PATH": _PATH, **self.environment}
                pairs = (part.partition("=") for part in shlex.split(fields))
                read = {key: Template(value).substitute(known) for key, _, value in pairs}
                (self.environment if name == "ENV" else self.labels).update(read)
            case "USER":
                self.user = fields
            case "WORKDIR":
                self.directory = fields
            case "ENTRYPOINT":
                self.entrypoint = _words(fields)
            case "CMD":
                self.command = _words(fields)
            case "HEALTHCHECK":
                self.health_command = _words(fields.partition("CMD ")[2])
            case "EXPOSE":
                pass
            case _:
                return False
        return True


def _words(fields: str) -> list[str]:
    """Read the exec form."""
    words: list[str] = json.loads(fields)
    return words


@cache
def final_stage() -> Stage:
    """Return what the Dockerfile says of the image's containers."""
    stage = Stage()
    for name, fields in instructions():
        if name == "FROM":
            stage = Stage()
        elif not stage.read(name, fields):
            assert name in ("COPY", "RUN"), name
    return stage


def can_mount() -> bool:
    """Tell whether this process may have mounts, users and limits of its own making."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("setpriv")):
        return False
    mounting = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return subprocess.run(mounting, capture_output=True, check=False).returncode == 0


class Image:
    """A root directory, made as the Dockerfile says."""

    def __init__(self, directory: Path) -> None:
        """Build below a directory. Raises AssertionError where an instruction fails."""
        self._roots: dict[str, Path] = {}
        self._directory = directory
        self._tools = directory / "tools"
        self._tools.mkdir(parents=True)
        python = f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}"
        for name, line in (("python", python), ("pip", f"env PYTHONPATH={_PIP} {python} -m pip")):
            (self._tools / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            (self._tools / name).chmod(0o755)
        self.stage = Stage()
        self.root = directory
        for name, fields in instructions():
            if name == "FROM":
                self._begin(fields)
            elif name == "COPY":
                self._copy(fields)
            elif name == "RUN":
                self._run(fields)
            else:
                assert self.stage.read(name, fields), name
                (self.root / self.stage.directory.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _begin(self, fields: str) -> None:
        name = fields.rsplit(maxsplit=1)[-1]
        self.root = self._directory / f"root-{len(self._roots)}"
        self._roots[name] = self.root
        for folder in (*_FOLDERS, _TOOLS, f"{_PIP}/pip", sys.base_prefix):
            (self.root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if (link := Path("/", name)).is_symlink():
                (self.root / name).symlink_to(link.readlink())
        self.stage = Stage()

    def _copy(self, fields: str) -> None:
        *sources, target = [part for part in fields.split() if not part.startswith("--")]
        to = self.root / Path(self.stage.directory, target).as_posix().lstrip("/")
        if found := re.search(r"--from=(\S+)", fields):
            (source,) = sources
            shutil.copytree(self._roots[found[1]] / source.lstrip("/"), to, symlinks=True)
            return
        for path in context_files():
            if sources == ["."] or path.as_posix() in sources:
                place = to / (path if sources == ["."] else path.name)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, place)

    def _run(self, fields: str) -> None:
        network = {name: value for name, value in os.environ.items() if _NETWORK.fullmatch(name)}
        command = self.container(["/bin/sh", "-c", fields], {"HOME": "/root", **network})
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"RUN {fields}\n{done.stdout}{done.stderr}"

    def container(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        read_only: bool = False,
        tmpfs: Sequence[str] = ("/tmp",),
        mounts: Mounts | None = None,
        read_only_mounts: Mounts | None = None,
    ) -> list[str]:
        """Return the command that runs a command in a container of the image.

        The process that is started is the command itself, so signals reach it.
        """
        root = self.root
        pip = Path(importlib.util.find_spec("pip").origin).parent  # type: ignore[union-attr,arg-type]
        system = {
            "/usr": Path("/usr"),
            "/etc": Path("/etc"),
            sys.base_prefix: Path(sys.base_prefix),
        }
        tools = {_TOOLS: self._tools, f"{_PIP}/pip": pip}
        steps = [f"mount --bind {root} {root}"]
        for target, source in {**system, **tools, **(read_only_mounts or {})}.items():
            steps += _bind(source, root, target, read_only=True)
        for target, source in (mounts or {}).items():
            steps += _bind(source, root, target, read_only=False)
        steps += [f"mount --rbind /{name} {root}/{name}" for name in ("proc", "dev")]
        for entry in tmpfs:
            target, _, options = entry.partition(":")
            steps.append(f"mount -t tmpfs -o mode=1777,{options} tmpfs {root}{target}")
        if read_only:
            steps.append(f"mount -o remount,bind,ro {root}")
        user, group = self.stage.user.split(":")
        variables = {**self.stage.environment, **(environment or {})}
        variables.setdefault("PATH", _PATH)
        limits: list[str] = []
        if user != "0":
            limits = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
            limits += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        inside = ["env", "-i", f"--chdir={self.stage.directory}"]
        inside += [f"{name}={value}" for name, value in variables.items()]
        script = " && ".join([*steps, f'exec {_CHROOT} {root} "$@"'])
        private = ["unshare", "--mount", "--propagation", "private"]
        return [*private, "/bin/sh", "-ec", script, "sh", *limits, *inside, *command]


def _bind(source: Path, root: Path, target: str, *, read_only: bool) -> Iterator[str]:
    place = Path(f"{root}{target}")
    if source.is_file():
        place.touch()
    yield f"mount --bind {source} {place}"
    if read_only:
        yield f"mount -o remount,ro,bind {place}"
