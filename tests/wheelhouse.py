"""Wheels of what is installed here, so that pip can install it again without a network."""

import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name


def write_wheels(directory: Path, *names: str) -> None:
    """Write wheels of distributions and of all that they require, but not of this project.

    Raises PackageNotFoundError where one is not installed.
    """
    waiting, done = [Requirement(name) for name in names], set()
    while waiting:
        requirement = waiting.pop()
        found = distribution(requirement.name)
        extras = ("", *requirement.extras)
        wanted = (canonicalize_name(requirement.name), extras)
        if wanted in done:
            continue
        done.add(wanted)
        for line in found.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in extras
            ):
                waiting.append(needed)
        if wanted[0] != "ghl-exporter":
            _write_wheel(directory, found)
    if not list(directory.glob("async_timeout-*")):
        _write_async_timeout(directory)


def _write_async_timeout(directory: Path) -> None:
    """Write what redis imports on a Python before 3.11.3, where the tests' own is newer."""
    name, version = "async_timeout", "5.0.1"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "from asyncio import timeout as timeout\n")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")


def _write_wheel(directory: Path, found: Distribution) -> None:
    lines = (found.read_text("WHEEL") or "").splitlines()
    tags = [tag for line in lines if line.startswith("Tag: ") for tag in parse_tag(line.split()[1])]
    parts = ({tag.interpreter for tag in tags}, {tag.abi for tag in tags})
    platforms = {tag.platform for tag in tags}
    name = canonicalize_name(found.name).replace("-", "_")
    tag = "-".join(".".join(sorted(part)) for part in (*parts, platforms))
    site = Path(str(found.locate_file("")))
    with zipfile.ZipFile(directory / f"{name}-{found.version}-{tag}.whl", "w") as wheel:
        for file in found.files or ():
            # Programs are made anew from the entry points.
            outside = file.parts[0] == ".." or "__pycache__" in file.parts
            if not outside and file.name not in {"INSTALLER", "REQUESTED", "direct_url.json"}:
                wheel.write(site / file, str(file))


def python_fits(program: str) -> bool:
    """Return whether wheels of this interpreter fit another one."""
    version = "import sys; print(sys.version_info[:2], sys.implementation.name)"
    done = subprocess.run([program, "-c", version], capture_output=True, text=True, check=False)
    return done.stdout.strip() == f"{sys.version_info[:2]} {sys.implementation.name}"
