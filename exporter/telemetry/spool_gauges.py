"""Gauges of the local spool: what waits in it, what room it has, whether it can be used."""

from collections.abc import Callable
from typing import Protocol

from prometheus_client import Gauge


class SpoolState(Protocol):
    """What the gauges read of the spool."""

    @property
    def events(self) -> int: ...
    @property
    def set_aside(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def free_bytes(self) -> int: ...
    @property
    def usable(self) -> bool: ...


class SpoolGauges:
    """The spool's gauges, which read it at each scrape."""

    def __init__(self, gauge: Callable[[str, str], Gauge]) -> None:
        """`gauge` makes one from its name, without the prefix, and its help text."""
        self._events = gauge("spool_events", "Events on the local disk that wait for PostgreSQL.")
        self._set_aside = gauge(
            "spool_set_aside_events",
            "Events on the local disk that are damaged or that PostgreSQL refuses.",
        )
        self._bytes = gauge("spool_bytes", "Size of the spool on the local disk.")
        self._free = gauge(
            "spool_free_bytes",
            "Bytes free on the spool's disk; 0 where that can't be told. Asked every 10 seconds.",
        )
        self._usable = gauge(
            "spool_usable",
            "1 where the spool could take a webhook, 0 where its last use failed. Tried every 10"
            " seconds.",
        )
        self.limit = gauge(
            "spool_limit_bytes", "Size beyond which the spool takes nothing more: SPOOL_MAX_BYTES."
        )

    def show(self, spool: SpoolState) -> None:
        """Read this spool from now on."""
        self._events.set_function(lambda: spool.events)
        self._set_aside.set_function(lambda: spool.set_aside)
        self._bytes.set_function(lambda: spool.size_bytes)
        self._free.set_function(lambda: spool.free_bytes)
        self._usable.set_function(lambda: spool.usable)
