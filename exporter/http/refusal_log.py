"""Log what is refused without letting strangers fill the log: a line a minute, with counts."""

import asyncio
from collections import Counter
from typing import Any

import structlog

log = structlog.get_logger()

_INTERVAL = 60.0  # seconds


class RefusalLog:
    """Logs the first refusal at once, and what follows in one line for each interval."""

    def __init__(self, interval: float = _INTERVAL) -> None:
        """`interval`: seconds between two lines."""
        self._interval = interval
        self._counts: Counter[str] = Counter()
        self._last: dict[str, Any] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, reason: str, **details: Any) -> None:
        """Count a refusal. `details` are logged of the last one before each line."""
        self._counts[reason] += 1
        self._last = details
        if self._timer is None:
            self._log()

    def flush(self) -> None:
        """Log what was counted since the last line, at a stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._counts:
            self._write()

    def _log(self) -> None:
        """Log what was counted, and look again after the interval."""
        self._timer = None
        if self._counts:
            self._write()
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._log)

    def _write(self) -> None:
        counts = dict(sorted(self._counts.items()))
        self._counts.clear()
        log.warning("requests_refused", counts=counts, **self._last)
