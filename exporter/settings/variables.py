"""Read the variables that are set: in the environment, in `.env`, in the files of secrets.

A variable that is empty or blank is not set. White space, a byte order mark and line ends around
a value are no part of it: editors and `--env-file` leave them there.
"""

import difflib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from exporter.settings.faults import Fault

_FILE = "_FILE"
_MOST_BYTES = 1024 * 1024
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# Likeness from which a name counts as misspelt. The environment is full of other names.
_LIKE_IN_FILE = 0.84
_LIKE_IN_ENVIRONMENT = 0.9
_OWN_PREFIX = "GHL_"
# Variables of the commands, and those that Kubernetes makes for a service named ghl-exporter.
_OTHERS_PREFIX = "GHL_EXPORTER_"


@dataclass
class Variables:
    """What is set: texts by the names of the settings, and what is wrong or strange about them."""

    values: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _UnreadableError(ValueError):
    """A file or a value is not text that can be used; says why."""


def read_variables(
    settings: Collection[str],
    secrets: Collection[str],
    env_file: str | Path | None,
    environment: Mapping[str, str] = os.environ,
) -> Variables:
    """Read the variables of `settings` (names in lower case). Never raises: see `faults`.

    The environment comes before a secret's file, and that before `env_file`.
    """
    found = Variables()
    names = {name.upper() for name in settings}
    file_names = {f"{name.upper()}{_FILE}" for name in secrets}
    in_environment = dict(_usable(environment.items(), names | file_names, found))
    in_file = {}
    if env_file is not None:
        pairs = list(_dotenv(Path(env_file), found))
        in_file = dict(_usable(pairs, names | file_names, found))
        _report_unknown(
            [name for name, value in pairs if clean(value)], names, file_names, str(env_file), found
        )
    for name in settings:
        variable = name.upper()
        path = in_environment.get(variable + _FILE) or in_file.get(variable + _FILE)
        if variable in in_environment:
            found.values[name] = in_environment[variable]
        elif path is not None:
            try:
                found.values[name] = _secret(Path(path))
            except _UnreadableError as error:
                found.faults.append(Fault(variable + _FILE, str(error), name))
        elif variable in in_file:
            found.values[name] = in_file[variable]
    _note_misspelt(environment, names | file_names, found)
    return found


def clean(text: str) -> str:
    """Return a value without what is invisible around it."""
    return text.strip().strip("\ufeff").strip()


def _usable(
    pairs: Iterable[tuple[str, str]], known: Collection[str], found: Variables
) -> Iterator[tuple[str, str]]:
    """Yield the known variables that are set, in capitals; one that is written so comes last."""
    for name, value in sorted(pairs, key=lambda pair: pair[0].isupper()):
        variable = name.upper()
        if variable not in known or not clean(value):
            continue
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
            setting = variable.removesuffix(_FILE) if variable.endswith(_FILE) else variable
            found.faults.append(Fault(variable, "is not UTF-8 text", setting.lower()))
            continue
        yield variable, clean(value)


def _dotenv(path: Path, found: Variables) -> Iterator[tuple[str, str]]:
    """Yield the lines of the file. Values are literal: `${NAME}` in a password stays as it is."""
    if path.is_dir():  # a virtual environment, say
        return
    try:
        text = _text_of(path)
    except FileNotFoundError:
        return
    except _UnreadableError as error:
        found.faults.append(Fault(str(path), str(error)))
        return
    for binding in parse_stream(StringIO(text)):
        original = binding.original.string
        if binding.error or (binding.key is not None and binding.value is None):
            blank = original[: len(original) - len(original.lstrip())]
            line = binding.original.line + blank.count("\n")
            found.faults.append(Fault(str(path), f"line {line} is not NAME=value"))
        elif binding.key is not None and binding.value is not None:
            yield binding.key, binding.value


def _secret(path: Path) -> str:
    """Read a secret's file. The path is not shown: people put the secret itself there."""
    try:
        text = clean(_text_of(path))
    except FileNotFoundError:
        raise _UnreadableError("the secret's file does not exist") from None
    if not text:
        raise _UnreadableError("the secret's file is empty")
    if "\0" in text:
        raise _UnreadableError("the file is not UTF-8 text")
    return text


def _text_of(path: Path) -> str:
    """Return a file's text. Raises FileNotFoundError or _UnreadableError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name can't be used"
        raise _UnreadableError(f"the file can't be read: {reason}") from None
    if len(content) > _MOST_BYTES:
        raise _UnreadableError("the file is larger than 1 MiB")
    if content.startswith(_UTF16):
        raise _UnreadableError("the file is UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _UnreadableError("the file is not UTF-8 text") from None


def _report_unknown(
    written: Sequence[str],
    names: Collection[str],
    file_names: Collection[str],
    path: str,
    found: Variables,
) -> None:
    """Find misspelt names in the file. It may also hold variables of others: Compose's, say."""
    others = []
    for name in written:
        variable = name.upper()
        if variable in names or variable in file_names or variable.startswith(_OTHERS_PREFIX):
            continue
        if variable.endswith(_FILE) and variable.removesuffix(_FILE) in names:
            problem = f"no such setting in {path}; only secrets can come from files"
            found.faults.append(Fault(name, problem, fatal=False))
        elif meant := _nearest(variable, [*names, *file_names], _LIKE_IN_FILE):
            problem = f"no such setting in {path}; did you mean {meant}?"
            found.faults.append(Fault(name, problem, fatal=False))
        else:
            others.append(name)
    if others:
        found.notes.append(f"{path} has lines that are no settings: {', '.join(others)}")


def _note_misspelt(
    environment: Mapping[str, str], known: Collection[str], found: Variables
) -> None:
    for name in sorted(environment):
        variable = name.upper()
        if variable in known or not clean(environment[name]):
            continue
        if variable.startswith(_OTHERS_PREFIX):
            continue
        own = variable.startswith(_OWN_PREFIX)
        meant = _nearest(variable, known, _LIKE_IN_FILE if own else _LIKE_IN_ENVIRONMENT)
        if meant:
            found.notes.append(f"{name}: no such setting; did you mean {meant}?")
        elif own:
            found.notes.append(f"{name}: no such setting")


def _nearest(name: str, known: Collection[str], cutoff: float) -> str | None:
    matches = difflib.get_close_matches(name, sorted(known), 1, cutoff)
    return matches[0] if matches else None
