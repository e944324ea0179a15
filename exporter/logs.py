"""JSON lines (plain in a terminal) through structlog. No personal data: ids, counts and times."""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO

import orjson
import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


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
            *([] if plain else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Logger(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if not plain else logging.Formatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _JsonFormatter(logging.Formatter):
    """A library's line in the shape of ours."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()
