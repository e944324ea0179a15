"""Track whether a dependency can be used, and log each change once, with its reason."""

import time

import structlog

from exporter.database.errors import UNAVAILABLE, reason_of

log = structlog.get_logger()

# Reasons that one outage may log; a server that comes back gives a few different ones.
_MOST_REASONS = 10
# Seconds: an outage that follows another one sooner is the same one, as far as the log goes.
_SAME_OUTAGE = 60.0


class Availability:
    """Whether something that the service needs can be used.

    The first attempt counts as a change: a service that starts without its database says so.
    """

    def __init__(self, event: str, problem: str) -> None:
        """`event`: prefix of the log events. `problem`: what is wrong while it is away, for `/`."""
        self._event = event
        self.problem = problem
        self.reason: str | None = None
        """Why it can't be used; None while it can, and before the first attempt."""
        self._up: bool | None = None
        self._found_at = self._logged_at = 0.0
        self._quiet = False
        self._logged: set[str] = set()

    @property
    def up(self) -> bool:
        """Tell whether the last attempt succeeded."""
        return bool(self._up)

    @property
    def down(self) -> bool:
        """Tell whether the last attempt failed."""
        return self._up is False

    def failed(self, error: BaseException) -> None:
        """Note that an attempt failed with an error of PostgreSQL, or with a fault of our own."""
        self.lost(reason_of(error), None if isinstance(error, UNAVAILABLE) else error)

    def lost(self, reason: str, fault: BaseException | None = None) -> None:
        """Note that an attempt failed. Each reason is logged once in an outage.

        `fault`: an error of our own, which is logged with its traceback.
        """
        now = time.monotonic()
        if self._up is not False:
            if now - max(self._found_at, self._logged_at) > _SAME_OUTAGE:
                self._logged.clear()
            self._quiet = reason in self._logged
        if reason not in self._logged and len(self._logged) < _MOST_REASONS:
            self._logged.add(reason)
            self._logged_at = now
            self._quiet = False
            if fault is None:
                log.warning(f"{self._event}_unavailable", reason=reason)
            else:
                log.error(f"{self._event}_unavailable", reason=reason, exc_info=fault)
        self._up = False
        self.reason = reason

    def found(self, **details: object) -> None:
        """Note that an attempt succeeded."""
        if not self._up:
            self._found_at = time.monotonic()
            if not self._quiet:
                log.info(f"{self._event}_available", **details)
        self._up = True
        self.reason = None
