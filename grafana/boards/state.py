"""What state the service is in, said also where nobody leads, and where nothing answers.

Where a state is known it has a value, and words for it: `noValue` stands for missing data alone.
"""

from exporter.domain.slo import FRESH_INTERVALS, FRESH_SLACK_SECONDS, SERVICE
from exporter.settings import Settings
from grafana.fields import (
    BAD,
    COUNT,
    FAIR,
    GOOD,
    MUTED,
    SECONDS,
    Json,
    at_most,
    field,
    steps,
    words,
)
from grafana.panels import ExactPanel, stat
from grafana.queries import now

# By the default of KPI_INTERVAL.
_FRESH_SECONDS = (
    FRESH_INTERVALS * Settings.model_fields["kpi_interval"].default + FRESH_SLACK_SECONDS
)
# In place of a value: a copy answers and says why there is none.
_NONE = "-1"
# The background of a state that needs nobody's look.
_PLAIN = "transparent"
_NO_LEADER = words({_NONE: "no instance leads"}, {_NONE: BAD})
_LED = "max(ghl_exporter_leader)"
_SUCCESS = "ghl_exporter_kpi_last_success_timestamp_seconds"
# An age that is Unix time itself: of what has never been.
NEVER: Json = {
    "type": "range",
    "options": {"from": 1e9, "to": None, "result": {"text": "never", "color": BAD, "index": 9}},
}
KPI_AGES = f"time() - max by (kpi) ({_SUCCESS})"
TOLD = f'service="{SERVICE}",severity=~"page|ticket"'


def _while_led(expr: str) -> str:
    """Return what only a leader knows, without labels; -1 where copies answer and none leads."""
    return f"({expr}) and {_LED} == 1\n  or\n({_LED} == 0) - 1"


def _is(title: str, about: str, expr: str, said: dict[str, str] | None = None) -> ExactPanel:
    """Return whether something is so: 1 is good, 0 is bad, -1 neither."""
    texts = {"1": "Up", "0": "Down", **(said or {})}
    return stat(
        title,
        about,
        now(expr, title),
        field(
            "none",
            mappings=words(texts, {"1": GOOD, "0": BAD, _NONE: MUTED}),
            thresholds=steps((None, MUTED), (0, BAD), (1, GOOD)),
        ),
        text="value",
        colour="background_solid",
    )


def firing() -> ExactPanel:
    """Return how many alerts fire; nothing is said where the alerts are not evaluated."""
    alerts = f'count(ALERTS{{alertstate="firing",{TOLD}}})'
    watchdog = 'max(ALERTS{alertname="Watchdog",alertstate="firing"})'
    return stat(
        "Firing",
        "Alerts that fire, pages and tickets. No data: Prometheus evaluates no alerts.",
        now(f"{alerts} or 0 * {watchdog}", "alerts"),
        field(
            COUNT,
            decimals=0,
            mappings=words({"0": "none"}, {"0": GOOD}),
            thresholds=steps((None, GOOD), (1, BAD)),
        ),
        text="value",
        colour="background_solid",
    )


def alerting() -> ExactPanel:
    """Return whether alerts are evaluated."""
    return _is(
        "Alerting",
        "The Watchdog, which always fires: Prometheus evaluates the alerts. Whether they arrive is"
        " known to the dead man's switch only.",
        'max(ALERTS{alertname="Watchdog",alertstate="firing"}) or vector(0)',
        {"0": "no Watchdog"},
    )


def exporter() -> ExactPanel:
    """Return whether any copy answers."""
    up = f'up{{job="{SERVICE}"}}'
    return _is(
        "Exporter",
        "Any copy answers its scrapes.",
        f"max({up}) or -absent({up})",
        {_NONE: "no target"},
    )


def copies() -> ExactPanel:
    """Return how many copies answer."""
    return stat(
        "Copies",
        "Copies of the service that answer; one of them leads.",
        now(f'sum(up{{job="{SERVICE}"}})', "copies"),
        field(COUNT, decimals=0),
        text="value",
    )


def database() -> ExactPanel:
    """Return whether PostgreSQL takes commits."""
    return _is("PostgreSQL", "Whether it takes commits.", "max(ghl_exporter_database_up)")


def redis() -> ExactPanel:
    """Return whether Redis answers, where there is one."""
    return _is(
        "Redis",
        "A cache: down is slower, never wrong.",
        f'max(ghl_exporter_redis_up)\n  or\n-(max(up{{job="{SERVICE}"}}) == 1)',
        {_NONE: "not used"},
    )


def leader() -> ExactPanel:
    """Return whether a copy leads."""
    return _is(
        "Leader",
        "A copy projects events and publishes KPIs.",
        _LED,
        {"0": "no instance leads"},
    )


def oldest_kpi() -> ExactPanel:
    """Return the age of the oldest KPI."""
    return stat(
        "Oldest KPI",
        "Age of the KPI that was refreshed longest ago. Never: one has not been computed yet.",
        now(_while_led(f"max({KPI_AGES})"), "age"),
        field(
            SECONDS,
            decimals=0,
            mappings=[*_NO_LEADER, NEVER],
            thresholds=at_most(_FRESH_SECONDS, 5 * _FRESH_SECONDS),
        ),
        text="value",
    )


def facts() -> ExactPanel:
    """Return whether the facts are due to be made anew."""
    said = {"0": "current", "1": "rebuild due", _NONE: "no instance leads"}
    return stat(
        "Facts",
        "Whether facts are of these settings and this version.",
        now(_while_led("max(ghl_exporter_rebuild_due * ghl_exporter_leader)"), "facts"),
        field(
            "none",
            mappings=words(said, {"0": GOOD, "1": FAIR, _NONE: BAD}),
            thresholds=steps((None, GOOD), (1, FAIR)),
        ),
        text="value",
    )


def final() -> ExactPanel:
    """Return whether figures are of the whole history, as a banner."""
    said = {"1": "of the whole history", "0": "NOT FINAL: of a part of the history"}
    return stat(
        "Figures",
        "Not final: events wait, an import has not come to its end, or a rebuild is due; the"
        " exporter's page says which. Meanwhile there is no grade.",
        now(_while_led("min(ghl_exporter_history_complete)"), "figures"),
        field(
            "none",
            mappings=words(
                {**said, _NONE: "no instance leads"}, {"1": _PLAIN, "0": BAD, _NONE: BAD}
            ),
            thresholds=steps((None, _PLAIN)),
        ),
        text="value",
        colour="background_solid",
    )


def updated() -> ExactPanel:
    """Return when the figures were last computed."""
    newest = f'1000 * max({_SUCCESS}{{kpi="leads_and_revenue"}} > 0)'
    return stat(
        "Last updated",
        "When the figures were last computed.",
        now(_while_led(newest), "figures"),
        field("dateTimeFromNow", mappings=_NO_LEADER),
        text="value",
    )
