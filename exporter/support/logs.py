"""JSON lines (plain in a terminal) through structlog. No personal data: ids, counts and times.

Ids come from senders: nothing that they hold starts a line of its own or reaches a terminal as a
control character. Errors are described without the data that they quote.
"""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO

import orjson
import structlog

from exporter.support.error_text import describe_error, describe_traceback, escape_text

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


# Longer values are cut: an id has at most 255 bytes.
_LONGEST = 2000


def _describe_errors(_: Any, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Replace errors by their descriptions, and `exc_info` by where it was raised."""
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()[1]
    elif isinstance(raised, tuple):
        raised = raised[1]
    cleaned = {name: _clean(value) for name, value in event.items()}
    if isinstance(raised, BaseException):
        cleaned["exception"] = describe_traceback(raised)
    return cleaned


def _clean(value: Any) -> Any:
    match value:
        case str():
            return escape_text(value[:_LONGEST])
        case None | bool() | int() | float():
            return value
        case BaseException():
            return describe_error(value)
        case list() | tuple() | set() | frozenset():
            return [_clean(one) for one in value]
        case dict():
            return {escape_text(str(name)): _clean(one) for name, one in value.items()}
        case _:
            return escape_text(str(value)[:_LONGEST])


def _to_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr).decode()


class _Logger(structlog.WriteLogger):
    """Write lines, or lose them: a full disk, or a reader that has gone, must stop no webhook."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def configure_logs(log_format: str, level: str, stream: TextIO = sys.stderr) -> None:
    """Send structlog's lines, and those of the standard library from warning on, to `stream`."""
    plain = log_format == "plain" or (log_format == "auto" and stream.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if plain
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_errors,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Logger(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_PlainFormatter() if plain else _JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _PlainFormatter(logging.Formatter):
    """A library's line for people."""

    def format(self, record: logging.LogRecord) -> str:
        line = _line(record)
        return "\n".join(line[name] for name in ("event", "exception") if name in line)


class _JsonFormatter(logging.Formatter):
    """A library's line in the shape of ours."""

    def format(self, record: logging.LogRecord) -> str:
        return orjson.dumps(_line(record)).decode()


def _line(record: logging.LogRecord) -> dict[str, str]:
    message = record.getMessage()
    if record.name == "asyncio":
        # What follows shows tasks and errors as they are, with their data.
        message = message.partition("\n")[0]
    line = {
        "event": escape_text(message[:_LONGEST]),
        "logger": record.name,
        "level": record.levelname.lower(),
    }
    if record.exc_info and record.exc_info[1] is not None:
        line["exception"] = describe_traceback(record.exc_info[1])
    return line
