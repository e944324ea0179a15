"""What waits, and what could be lost: the same figures on the boards of webhooks and of health."""

from grafana.fields import COUNT, MUTED, SECONDS, SHARE, Json, at_most, field, steps, words
from grafana.panels import ExactPanel, stat
from grafana.queries import graph, now

_ANY = steps((None, "green"), (1, "orange"))
# GHL is quiet at night: the alert on silence compares with last week, this only shows it.
# A copy that is cut off from PostgreSQL keeps what it saw last: that is no answer.
_SEEN = "{} and on (job, instance) ghl_exporter_database_up == 1"
_QUIET = at_most(3600, 6 * 3600)


def last_came(source: str, title: str) -> ExactPanel:
    """Return how long ago a source last sent a webhook."""
    came = f'ghl_exporter_last_webhook_timestamp_seconds{{source="{source}"}}'
    return stat(
        title,
        "How long ago a webhook last reached any copy of the exporter since it was started. Nights"
        " are quiet; an alert compares with the same hour of last week.",
        now(f"time() - max({came} > 0)\n  or\n(max({came}) == 0) - 1", title),
        field(
            SECONDS,
            decimals=0,
            mappings=words({"-1": "none yet"}, {"-1": MUTED}),
            thresholds=_QUIET,
        ),
        text="value",
    )


def _one(title: str, about: str, expr: str, look: Json) -> ExactPanel:
    return stat(title, about, graph(expr, title), look, sparkline=True, text="value")


def at_risk() -> list[ExactPanel]:
    """Return what was refused, set aside, and waits on the disk."""
    used = "ghl_exporter_spool_bytes / ghl_exporter_spool_limit_bytes"
    missing = "(1 - ghl_exporter_spool_free_bytes / ghl_exporter_spool_limit_bytes)"
    return [
        stat(
            "Refused, 24 h",
            "Webhooks that were stored nowhere and answered 429 in the last day. GHL sends each"
            " again, a dozen times at most; then it is lost.",
            now(
                'sum(increase(ghl_exporter_webhooks_total{outcome="refused"}[1d]))',
                "refused",
            ),
            field(COUNT, decimals=0, thresholds=steps((None, "green"), (1, "red"))),
            text="value",
        ),
        _one(
            "In the spool",
            "Webhooks that wait for PostgreSQL on the exporter's own disk. They are safe there.",
            "sum(ghl_exporter_spool_events)",
            field(COUNT, decimals=0, thresholds=_ANY),
        ),
        _one(
            "Spool used",
            "Of what the spool may hold, the share that is used, or that its disk has no room for."
            " When it is full, webhooks are refused.",
            f"max({used} > {missing} or {missing})",
            field(SHARE, decimals=0, min=0, max=1, thresholds=at_most(0.5, 0.8)),
        ),
        _one(
            "Set aside",
            "Webhooks in the spool that are damaged, or that PostgreSQL refuses.",
            "sum(ghl_exporter_spool_set_aside_events)",
            field(COUNT, decimals=0, thresholds=_ANY),
        ),
        _one(
            "In quarantine",
            "Events that were set aside with an error: they are in no figure until replayed.",
            f"max({_SEEN.format('ghl_exporter_quarantine_events')})",
            field(COUNT, decimals=0, thresholds=_ANY),
        ),
    ]


def backlog() -> list[ExactPanel]:
    """Return what is stored and not yet in the figures."""
    return [
        _one(
            "Backlog",
            "Stored events that no figure knows of yet. Usually a handful.",
            f"max({_SEEN.format('ghl_exporter_inbox_backlog_events')})",
            field(COUNT, decimals=0, thresholds=at_most(1000, 100_000)),
        ),
        _one(
            "Oldest waits",
            "Age of the oldest of them. Above five minutes somebody is woken.",
            f"max({_SEEN.format('ghl_exporter_inbox_oldest_age_seconds')})",
            field(SECONDS, decimals=0, thresholds=at_most(60, 300)),
        ),
    ]
