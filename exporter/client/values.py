"""Turn the values that callers really have into the JSON that the exporter reads.

Each function returns built-in types only, or raises ValueError with what is wrong: what it returns
is exactly what is written. NumPy's scalars and arrays without dimensions are taken by their
`item()`, so nothing here imports NumPy.
"""

import math
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from numbers import Real
from typing import Any
from uuid import UUID

import orjson

# A call stays far below the exporter's limit for a body, whatever is in its accessory data.
MAX_ACCESSORY_BYTES = 65_536
_MAX_DEPTH = 50
# Beyond it a float no longer holds every integer, and JSON readers differ.
_EXACT_INTEGERS = 2**53


def kind(value: object) -> str:
    """Name a value's type for a message."""
    return type(value).__name__


def plain(value: object) -> object:
    """Return what an Enum's member, or a scalar of NumPy, stands for."""
    if isinstance(value, Enum):
        return plain(value.value)
    if getattr(value, "shape", None) == () and callable(item := getattr(value, "item", None)):
        return item()
    return value


def text(value: object) -> str:
    """Return an id or a name as text: a text, an int, a UUID, or an Enum of them."""
    found = plain(value)
    if isinstance(found, str):
        return str.__str__(found)
    if isinstance(found, UUID):
        return str(UUID(int=found.int))
    if isinstance(found, int) and not isinstance(found, bool):
        return int.__repr__(found)
    raise ValueError(f"must be text, an int or a UUID, not {kind(value)}")


def number(value: object) -> float | int:
    """Return a finite number: an int, a float, a Decimal, a Fraction, or one of NumPy's."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, Real | Decimal):
        raise ValueError(f"must be a number, not {kind(value)}")
    if isinstance(found, int) and abs(found) <= _EXACT_INTEGERS:
        return int(found)
    try:
        finite = float(found)
    except (OverflowError, ValueError):
        finite = math.nan
    if not math.isfinite(finite):
        raise ValueError("must be a finite number")
    return finite


def boolean(value: object) -> bool:
    """Return True or False: a bool, or NumPy's."""
    found = plain(value)
    if isinstance(found, bool):
        return found
    raise ValueError(f"must be True or False, not {kind(value)}")


def moment(value: object) -> str:
    """Return a moment as ISO 8601: a datetime with an offset, or such a text."""
    found = plain(value)
    if isinstance(found, datetime):
        if found.utcoffset() is None:
            raise ValueError("must have an offset: datetime.now(UTC), not datetime.now()")
        return str(found.isoformat())
    if isinstance(found, str):
        return str.__str__(found)
    if isinstance(found, date):
        raise ValueError("must be a moment with an offset, not a date")
    raise ValueError(f"must be a datetime with an offset, or ISO 8601 text, not {kind(value)}")


def accessory(value: object) -> Any:
    """Return data that goes along with a call: JSON's types, and what has an obvious JSON form."""
    written = _accessory(value, 0)
    if len(orjson.dumps(written)) > MAX_ACCESSORY_BYTES:
        raise ValueError(f"is longer than {MAX_ACCESSORY_BYTES} bytes")
    return written


def _accessory(value: object, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"is cyclic, or nested more than {_MAX_DEPTH} deep")
    found = plain(value)
    if found is None or isinstance(found, bool):
        return found
    if isinstance(found, Real | Decimal):
        return number(found)
    if isinstance(found, str | UUID):
        written = text(found)
        written.encode()  # half a surrogate pair can't be written
        return written
    if isinstance(found, date):
        return str(found.isoformat())
    if isinstance(found, Mapping):
        return {text(key): _accessory(one, depth + 1) for key, one in found.items()}
    if isinstance(found, Sequence | Set) and not isinstance(found, bytes | bytearray | memoryview):
        return [_accessory(one, depth + 1) for one in found]
    if hasattr(found, "shape") and callable(tolist := getattr(found, "tolist", None)):
        return _accessory(tolist(), depth + 1)
    raise ValueError(f"holds a {kind(found)}, which has no JSON form")


def writable_part(value: object) -> tuple[Any, list[str]]:
    """Return what can be written of accessory data, and what is left out, each with its reason.

    Of a mapping each entry is taken or left out by itself; the first is None where nothing is left.
    """
    left_out: list[str] = []
    if not isinstance(value, Mapping):
        try:
            return accessory(value), left_out
        except Exception as error:  # whatever was passed must not break who passed it
            return None, [reason(error)]
    kept: dict[str, Any] = {}
    size = 0
    try:
        entries = list(value.items())
    except Exception as error:
        return None, [reason(error)]
    for key, one in entries:
        try:
            name = text(key)
            name.encode()
            written = accessory(one)
            size += len(orjson.dumps({name: written}))
            if size > MAX_ACCESSORY_BYTES:
                raise ValueError(f"is longer than {MAX_ACCESSORY_BYTES} bytes")
            kept[name] = written
        except Exception as error:
            left_out.append(f"{_shown(key)} {reason(error)}")
    return (kept if kept or not left_out else None), left_out


def reason(error: Exception) -> str:
    """Say why a value can't be written, whatever its own methods raised."""
    if isinstance(error, UnicodeEncodeError):
        return "has half a surrogate pair"
    if type(error) is ValueError:
        return str(error)
    return f"raised {kind(error)} when it was read"


def _shown(key: object) -> str:
    return ascii(str.__str__(key)[:40]) if isinstance(key, str) else kind(key)
