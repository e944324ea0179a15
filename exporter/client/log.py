"""The client's logger, and a limit on how often it repeats itself.

No NullHandler: in a program that configures no logging, Python then prints warnings to standard
error. A client that loses calls must not be silent there.
"""

import logging
import threading
import time

log = logging.getLogger("ghl_exporter_client")
_QUIET_SECONDS = 60.0


class Throttle:
    """Logs a message of each topic at most once a minute, and how many it left out."""

    def __init__(self, quiet_seconds: float = _QUIET_SECONDS) -> None:
        self._quiet = quiet_seconds
        self._lock = threading.Lock()
        self._topics: dict[str, tuple[float, int]] = {}

    def log(self, level: int, topic: str, message: str) -> None:
        """Log `message`, unless the topic was logged within the last minute."""
        now = time.monotonic()
        with self._lock:
            last, left_out = self._topics.get(topic, (now - self._quiet, 0))
            due = now - last >= self._quiet
            self._topics[topic] = (now, 0) if due else (last, left_out + 1)
        if due:
            more = f" ({left_out} more like this since the last line)" if left_out else ""
            log.log(level, "%s%s", message, more)
