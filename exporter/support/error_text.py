"""Describe errors without what they may quote: bodies, names and secrets stand in messages.

A message is only kept where its author can't have known any data: the operating system, SQLite,
Redis, PostgreSQL (but for faulty values) and the exporter itself. Of any other error its type is
left, and the place where it was raised.
"""

import traceback
from collections.abc import Iterator

_LONGEST = 500
_MOST_CAUSES = 5
# Errors by the module that defines them. A UnicodeError of theirs quotes bytes.
_HARMLESS = ("exporter.", "sqlite3", "redis.", "asyncpg.", "aiohttp.client_exceptions")
# Classes of SQLSTATE whose messages quote values: data exceptions. Others do so in DETAIL only.
QUOTING_CLASSES = ("22",)


def escape_text(text: str) -> str:
    """Escape what is no printable character: line ends, terminal codes, halves of surrogates."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def describe_error(error: BaseException) -> str:
    """Describe an error in one line, without data."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe_error(one) for one in error.exceptions)[:_LONGEST]
    kind = type(error).__name__
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str) and state.startswith(QUOTING_CLASSES):
        return f"{kind} (SQLSTATE {state})"
    # PostgreSQL's DETAIL and HINT, which its text would hold as well, can quote a row.
    text = str(error.args[0]) if state is not None and error.args else str(error)
    known = isinstance(error, OSError) or type(error).__module__.startswith(_HARMLESS)
    if not known or not text:
        return kind
    code = f" (SQLSTATE {state})" if isinstance(state, str) else ""
    return f"{kind}: {escape_text(' '.join(text.split()))[:_LONGEST]}{code}"


def describe_traceback(error: BaseException) -> str:
    """Return where an error and what caused it were raised, with descriptions for messages."""
    parts = []
    for one in _chain(error):
        frames = "".join(traceback.format_tb(one.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{describe_error(one)}")
    return "\n\nwhich led to\n\n".join(reversed(parts))


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None and id(one) not in seen and len(seen) < _MOST_CAUSES:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
