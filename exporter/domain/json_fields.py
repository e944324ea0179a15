"""Read JSON that somebody else wrote: bounded, and never raising for what it holds."""

import json
import math
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import orjson

# An id is part of several index keys, and PostgreSQL bounds those together to 2,704 bytes.
MAX_ID_BYTES = 255
# Beyond these years a conversion between time zones overflows.
_FIRST_YEAR, _LAST_YEAR = 2, 9998
_MAX_INTEGER_DIGITS = 400


class Unreadable(ValueError):
    """The body is no JSON that can be read."""


class _Absent:
    """The type of ABSENT."""

    def __repr__(self) -> str:
        return "ABSENT"


# A field that isn't there says nothing; one that is null says "none".
ABSENT: Final = _Absent()


def _integer(digits: str) -> int | float:
    # Python refuses to convert thousands of digits; such a number is out of every range anyway.
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else math.inf


def parse_json(body: bytes) -> Any:
    """Parse a body as leniently as GHL writes: half emoji, byte order marks, endless numbers.

    Raises Unreadable.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # The strict parser refuses what is usable but for one field; the lenient one is slow, and rare.
    try:
        return json.loads(body, parse_constant=lambda _: None, parse_int=_integer)
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise Unreadable(f"no JSON: {error}") from None


def dump_json(value: object) -> bytes:
    """Write as JSON what `parse_json` has read, half characters and huge numbers included."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def clean_text(value: object, max_bytes: int = MAX_ID_BYTES) -> str | None:
    """Return a text that PostgreSQL can store and index, or None.

    None for another type, an empty text, one with NUL or half a surrogate pair, one that is longer.
    """
    if not isinstance(value, str) or not value or "\x00" in value:
        return None
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return None
    return value if size <= max_bytes else None


def clean_number(value: object) -> float | int | None:
    """Return a finite number, or None. `true` is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def clean_time(value: object, naive_zone: tzinfo = UTC) -> datetime | None:
    """Return an ISO 8601 time in UTC, or None where it is unreadable.

    `naive_zone` is meant where the text gives no offset.
    """
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if not _FIRST_YEAR <= time.year <= _LAST_YEAR:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=naive_zone)
    return time.astimezone(UTC)
