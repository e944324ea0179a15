"""The service's live metrics: everything that is counted and timed as it happens, in one table."""

import contextlib
import platform

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from exporter import __version__
from exporter.domain.event import GHL, WORKFLOW
from exporter.domain.ghl_events import KNOWN_EVENTS
from exporter.domain.platform_calls import CALLS
from exporter.domain.slo import ANSWER_WITHIN_SECONDS
from exporter.telemetry.history_gauge import HistoryGauge
from exporter.telemetry.labels import OTHER, CappedLabel
from exporter.telemetry.spool_gauges import SpoolGauges

# A second series for each counter that nothing here reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_BOUNDS = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0}
# The objective counts a bucket, so what it promises is a bound exactly.
DURATION_BUCKETS = tuple(sorted(_BOUNDS | {ANSWER_WITHIN_SECONDS}))
PROJECTION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

# What becomes of a webhook in the end.
FINISHED = ("success", "quarantined", "refused")
OUTCOMES = ("stored", "duplicate", "spooled", "refused")
REJECTIONS = (
    "signature_missing",
    "signature_invalid",
    "secret_missing",
    "secret_invalid",
    "too_large",
    "bad_encoding",
    "aborted",
    "no_memory",
    "too_slow",
    "bad_request",
    "incomplete",
)
CONNECTIONS_CLOSED = ("connection_limit", "client_limit", "slow_headers")
API_REJECTIONS = ("400", "401", "403", "404", "409", "413", "422", "429", "503")
PROJECTIONS = ("projected", "ignored", "quarantined")


class LiveMetrics:
    """One registry and its instruments. Every labelled child exists from the start, at 0."""

    def __init__(
        self,
        *,
        locations: frozenset[str] = frozenset(),
        location_limit: int = 1000,
        with_redis: bool = True,
    ) -> None:
        self.location_limit = location_limit
        self.registry = registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"ghl_exporter_{name}", help_text, labels, registry=registry)

        def gauge(name: str, help_text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"ghl_exporter_{name}", help_text, labels, registry=registry)

        def histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"ghl_exporter_{name}", help_text, buckets=buckets, registry=registry)

        build = Info("ghl_exporter_build", "The running version.", registry=registry)
        build.info({"version": __version__, "python": platform.python_version()})

        # The way in
        self.webhooks = counter(
            "webhooks_total",
            "Webhooks that proved to be their sender's, by what became of them: stored, duplicate "
            "(stored before), spooled (kept on the local disk while PostgreSQL is away), refused "
            "(answered 429: stored nowhere, the sender comes again).",
            ("source", "outcome"),
        )
        self.webhooks_by_event = counter(
            "webhooks_received_total", "Webhooks that proved to be GHL's, by event.", ("event",)
        )
        self.webhooks_by_location = counter(
            "webhooks_by_location_total",
            "Webhooks that proved to be their sender's, by location (none: the body names none).",
            ("location",),
        )
        self.finished = counter(
            "webhooks_finished_total",
            "Webhooks by what became of them in the end, and by location (none: the body names "
            "none): success (facts were made of it, or it was only kept), quarantined (set aside "
            "with an error; once more where a replay fails again), refused (answered 429). A "
            "duplicate is none of these, nor what the spool has set aside.",
            ("location", "outcome"),
        )
        self.finished_by_event = counter(
            "webhooks_finished_by_event_total",
            "Webhooks by what became of them in the end, and by event.",
            ("event", "outcome"),
        )
        self.last_webhook = gauge(
            "last_webhook_timestamp_seconds",
            "Unix time at which this copy last took a webhook, by source; 0 before the first.",
            ("source",),
        )
        self.rejected = counter(
            "webhooks_rejected_total",
            "Requests to the receiver that were refused before they proved to be their sender's, "
            "by reason; incomplete: workflows' webhooks that name no location.",
            ("reason",),
        )
        self.connections = gauge("connections", "Open connections of clients.")
        self.connections_limit = gauge(
            "connections_limit",
            "Connections of clients that may be open: MAX_CONNECTIONS, or fewer where the limit of "
            "file descriptors leaves fewer. At the limit new ones wait.",
        )
        self.connections_closed = counter(
            "connections_closed_total",
            "Connections that the service closed without an answer: connection_limit (the oldest "
            "idle one, to make room), client_limit (the same of one client), slow_headers.",
            ("reason",),
        )
        self.request_duration = histogram(
            "webhook_request_duration_seconds",
            "Time from a webhook's headers to its answer. Refused requests are not in it.",
            DURATION_BUCKETS,
        )
        self.calls = counter(
            "tracking_calls_total",
            "Tracking calls of the platform that were taken, by what became of them: stored, "
            "duplicate, spooled, refused (answered 429: not all of a request could be stored).",
            ("call", "outcome"),
        )
        self.api_rejected = counter(
            "api_requests_rejected_total",
            "Requests to the API that were refused on purpose, by status.",
            ("status",),
        )
        self.audit_dropped = counter(
            "audit_entries_dropped_total",
            "Entries of the audit table that were lost: PostgreSQL was away for too long.",
        )
        self.call_duration = histogram(
            "tracking_request_duration_seconds",
            "Time from the headers of a request with tracking calls to its answer.",
            DURATION_BUCKETS,
        )
        self.group_commit_events = histogram(
            "group_commit_events", "Events that shared one commit to the inbox.", BATCH_BUCKETS
        )
        self.label_values_cut = counter(
            "label_values_cut_total",
            "Observations whose label value was over a cap, and so went to `other` or had no "
            "series, by label.",
            ("label",),
        )

        # The way through
        self.projected = counter(
            "events_projected_total",
            "Events taken from the inbox: projected (facts follow from them), ignored (kept, and "
            "of no event that facts are made of), quarantined (set aside with an error).",
            ("outcome",),
        )
        self.projection_delay = histogram(
            "webhook_projection_delay_seconds",
            "Time from a webhook's receipt to the commit of the facts that follow from it.",
            PROJECTION_BUCKETS,
        )
        self.projection_duration = histogram(
            "projection_batch_duration_seconds",
            "Time of one projection transaction.",
            DURATION_BUCKETS,
        )
        self.backlog = gauge("inbox_backlog_events", "Stored events that are not yet projected.")
        self.oldest_age = gauge(
            "inbox_oldest_age_seconds", "Age of the oldest event not yet projected; 0 without one."
        )
        self.quarantine = gauge("quarantine_events", "Events set aside with an error.")
        self.spool = SpoolGauges(gauge)
        self.leader = gauge(
            "leader", "1 where this copy projects events and publishes KPIs, 0 elsewhere."
        )
        self.history = HistoryGauge()
        registry.register(self.history)
        self.rebuild_due = gauge(
            "rebuild_due",
            "1 where the facts were made by other settings than these, or by an older version.",
        )

        # What it stands on
        self.database_up = gauge("database_up", "1 while PostgreSQL takes commits, else 0.")
        # Without a Redis that there should be, there is none that could be down.
        self.redis_up = (
            gauge(
                "redis_up",
                "1 while Redis sets and reads keys, else 0; absent without REDIS_URL.",
            )
            if with_redis
            else None
        )
        self.pool_connections = gauge(
            "database_pool_connections", "Connections of the pool, by state.", ("state",)
        )

        # KPIs
        self.kpi_interval = gauge(
            "kpi_interval_seconds", "Time from one refresh of the KPIs to the next: KPI_INTERVAL."
        )
        self.kpi_series = gauge(
            "kpi_series",
            "Series of KPIs that this instance computed; KPI_SERIES_LIMIT bounds them.",
        )
        self.kpi_last_success = gauge(
            "kpi_last_success_timestamp_seconds",
            "Unix time of the last refresh of a KPI that succeeded; 0 before the first.",
            ("kpi",),
        )
        self.kpi_duration = gauge(
            "kpi_refresh_duration_seconds", "Time of a KPI's last query.", ("kpi",)
        )
        self.kpi_failures = counter(
            "kpi_refresh_failures_total", "Refreshes of a KPI that failed.", ("kpi",)
        )
        self.kpi_rows_dropped = counter(
            "kpi_rows_dropped_total",
            "Rows of a KPI that could not become a sample (no finite number, no text).",
            ("kpi",),
        )

        self.event_label = CappedLabel("event", self.label_values_cut, allowed=KNOWN_EVENTS)
        self.location_label = CappedLabel(
            "location", self.label_values_cut, allowed=locations, limit=location_limit
        )
        self._create_children(locations)

    def _create_children(self, locations: frozenset[str]) -> None:
        # A counter that first appears with 1 shows no increase: all of them start at 0.
        for source in (GHL, WORKFLOW):
            self.last_webhook.labels(source)
            for outcome in OUTCOMES:
                self.webhooks.labels(source, outcome)
        for event in (*sorted(KNOWN_EVENTS), OTHER):
            self.webhooks_by_event.labels(event)
            for outcome in FINISHED:
                self.finished_by_event.labels(event, outcome)
        for location in (*sorted(locations), OTHER, "none"):
            self.webhooks_by_location.labels(location)
            self._create_finished(location)
        self.label_values_cut.labels("agent")
        for call in CALLS:
            for outcome in OUTCOMES:
                self.calls.labels(call, outcome)
        for status in API_REJECTIONS:
            self.api_rejected.labels(status)
        for reason in REJECTIONS:
            self.rejected.labels(reason)
        for reason in CONNECTIONS_CLOSED:
            self.connections_closed.labels(reason)
        for outcome in PROJECTIONS:
            self.projected.labels(outcome)
        for state in ("idle", "in_use"):
            self.pool_connections.labels(state)

    def _create_finished(self, location: str) -> None:
        for outcome in FINISHED:
            self.finished.labels(location, outcome)

    def receive(self, location_id: str) -> None:
        """Count a webhook by its location; what becomes of it is counted from 0 on."""
        location = self.location_label(location_id) if location_id else "none"
        self._create_finished(location)
        self.webhooks_by_location.labels(location).inc()

    def finish(
        self, location_id: str, event_type: str | None, outcome: str, count: int = 1
    ) -> None:
        """Count webhooks of which is known now what became of them."""
        location = self.location_label(location_id, again=True) if location_id else "none"
        self._create_finished(location)
        self.finished.labels(location, outcome).inc(count)
        event = self.event_label(event_type, again=True) if event_type else OTHER
        self.finished_by_event.labels(event, outcome).inc(count)

    def create_location_children(self, locations: list[str]) -> None:
        """Create the children of locations that are known from before this process."""
        for location in locations:
            label = self.location_label(location, again=True)
            self.webhooks_by_location.labels(label)
            self._create_finished(label)

    def forget_location(self, location_id: str) -> None:
        """Take an erased location's series away; what still comes for it counts as `other`."""
        self.forget_locations(self.location_label.banned | {location_id})

    def forget_locations(self, erased: frozenset[str]) -> None:
        """Take away the series of all locations that are erased, and of no others."""
        new = erased - self.location_label.banned
        self.location_label.ban(erased)
        for location in new:
            for metric, labels in (
                (self.webhooks_by_location, ((location,),)),
                (self.finished, tuple((location, outcome) for outcome in FINISHED)),
            ):
                for values in labels:
                    with contextlib.suppress(KeyError):
                        metric.remove(*values)

    def create_kpi_children(self, names: list[str]) -> None:
        """Create the children of the KPIs that there are."""
        for name in names:
            self.kpi_last_success.labels(name)
            self.kpi_duration.labels(name)
            self.kpi_failures.labels(name)
            self.kpi_rows_dropped.labels(name)


def gauge_value(gauge: Gauge) -> float:
    """Read a gauge without labels."""
    return float(next(iter(gauge.collect())).samples[0].value)
