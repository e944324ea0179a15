"""The gauge of whether KPIs are of the whole history: only the copy that publishes them has it."""

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class HistoryGauge(Collector):
    """Reads, at each scrape, what the KPIs beside it are of."""

    def __init__(self) -> None:
        self._complete: Callable[[], bool | None] = lambda: None

    def show(self, complete: Callable[[], bool | None]) -> None:
        """Read this from now on; None is no sample."""
        self._complete = complete

    def collect(self) -> Iterable[Metric]:
        """Return the family, with a sample where KPIs are published."""
        family = GaugeMetricFamily(
            "ghl_exporter_history_complete",
            "1 where the KPIs that this copy publishes are of the whole history, 0 where they are "
            "of a part: events waited, an import had not come to its end, or a rebuild was due. "
            "Absent where another copy publishes.",
        )
        if (complete := self._complete()) is not None:
            family.add_metric([], float(complete))
        yield family
