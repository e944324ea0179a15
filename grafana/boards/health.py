"""What is wrong right now, and how is the service itself?"""

from exporter.inbox.event import GHL
from exporter.settings import Settings
from exporter.slo import FRESH_INTERVALS, FRESH_SLACK_SECONDS, SERVICE
from grafana.board import Board, Line
from grafana.boards.waiting import at_risk, backlog, last_came
from grafana.fields import (
    BAD,
    COUNT,
    FAIR,
    GOOD,
    MUTED,
    PILL,
    SECONDS,
    Json,
    at_most,
    field,
    override,
    steps,
    words,
)
from grafana.panels import ExactPanel, lines, row, stat, table
from grafana.queries import ALL_NAMES, graph, now, numbered, rows

# By the default of KPI_INTERVAL.
_FRESH_SECONDS = (
    FRESH_INTERVALS * Settings.model_fields["kpi_interval"].default + FRESH_SLACK_SECONDS
)
_UP = words({"1": "Up", "0": "Down"}, {"1": GOOD, "0": BAD})


_TOLD = f'service="{SERVICE}",severity=~"page|ticket"'

# Unix time in ms since when each fires.
_FIRING = (
    f"1000 * ALERTS_FOR_STATE{{{_TOLD}}}\n  and ignoring (alertstate)\n"
    f'ALERTS{{alertstate="firing",{_TOLD}}}'
)


def _firing() -> ExactPanel:
    return table(
        "Alerts that fire",
        "A page wakes somebody, a ticket waits for the day. Each alert's runbook is on the"
        " exporter, below /runbooks/.",
        rows(
            f"({_FIRING})\n  * on (location) group_left (name)\n{ALL_NAMES}\n"
            f"  or on (alertname, slo, kpi, label, instance, location)\n({_FIRING})"
        ),
        {
            "severity": "Severity",
            "alertname": "Alert",
            "Value": "Since",
            "name": "Location",
            "kpi": "KPI",
            "instance": "Copy",
            "team": "For",
        },
        [
            override("Alert", custom__width=260),
            override("Since", unit="dateTimeFromNow"),
            override(
                "Severity",
                custom__cellOptions=PILL,
                custom__width=90,
                mappings=words({"page": "Page", "ticket": "Ticket"}, {"page": BAD, "ticket": FAIR}),
            ),
        ],
        join=None,
        sort="Severity",
        ascending=True,
        empty="nothing fires",
    )


def _up(title: str, about: str, expr: str, more: str = "no data") -> ExactPanel:
    return stat(
        title,
        about,
        now(expr, title),
        field(
            "none", mappings=_UP, noValue=more, thresholds=steps((None, MUTED), (0, BAD), (1, GOOD))
        ),
        text="value",
        colour="background_solid",
    )


def _states() -> list[ExactPanel]:
    return [
        _up("Exporter", "Any copy answers its scrapes.", f'max(up{{job="{SERVICE}"}})'),
        _up("PostgreSQL", "Whether it takes commits.", "max(ghl_exporter_database_up)"),
        _up("Redis", "A cache: down is slower, never wrong.", "max(ghl_exporter_redis_up)", "none"),
        _up(
            "Alerting",
            "The Watchdog, which always fires: Prometheus evaluates the alerts. Whether they arrive"
            " is known to the dead man's switch only.",
            'max(ALERTS{alertname="Watchdog",alertstate="firing"})',
            "DEAD",
        ),
        _up(
            "Leader",
            "A copy projects events and publishes KPIs.",
            "max(ghl_exporter_leader)",
        ),
        stat(
            "Copies",
            "Copies of the service that answer; one of them leads.",
            now(f'count(up{{job="{SERVICE}"}} == 1)', "copies"),
            field(COUNT, decimals=0),
            text="value",
        ),
        stat(
            "Oldest KPI",
            "Age of the KPI that was refreshed longest ago.",
            now(
                "max(time() - max by (kpi) (ghl_exporter_kpi_last_success_timestamp_seconds))",
                "age",
            ),
            field(
                SECONDS,
                decimals=0,
                thresholds=at_most(_FRESH_SECONDS, 5 * _FRESH_SECONDS),
            ),
            text="value",
        ),
        stat(
            "Facts",
            "Whether facts are of these settings and this version.",
            now("max(ghl_exporter_rebuild_due * ghl_exporter_leader)", "facts"),
            field(
                "none",
                mappings=words({"0": "current", "1": "rebuild due"}, {"0": GOOD, "1": FAIR}),
                thresholds=steps((None, GOOD), (1, FAIR)),
            ),
            text="value",
        ),
    ]


def _kpis() -> ExactPanel:
    return table(
        "KPIs by age",
        "Each KPI's age, the time of its last query, and how often it failed in the time that is"
        " shown.",
        [
            rows("time() - max by (kpi) (ghl_exporter_kpi_last_success_timestamp_seconds)", "A"),
            rows("max by (kpi) (ghl_exporter_kpi_refresh_duration_seconds)", "B"),
            rows("sum by (kpi) (increase(ghl_exporter_kpi_refresh_failures_total[$__range]))", "C"),
        ],
        {
            "kpi": "KPI",
            "Value #A": "Age",
            "Value #B": "Query",
            "Value #C": "Failed",
        },
        [
            override("Age", unit=SECONDS, decimals=0),
            override("Query", unit=SECONDS, decimals=1),
            override("Failed", unit=COUNT, decimals=0),
        ],
        join="kpi",
        sort="Age",
    )


def _line(title: str, about: str, queries: dict[str, str], look: Json) -> ExactPanel:
    targets = numbered(((expr, legend) for legend, expr in queries.items()), graph)
    return lines(title, about, targets, look)


def _internals() -> list[ExactPanel]:
    rate = "[$__rate_interval]"
    return [
        _line(
            "Memory",
            "Resident memory of each copy.",
            {"{{instance}}": f'process_resident_memory_bytes{{job="{SERVICE}"}}'},
            field("bytes", min=0),
        ),
        _line(
            "CPU",
            "Cores in use by each copy.",
            {"{{instance}}": f'rate(process_cpu_seconds_total{{job="{SERVICE}"}}{rate})'},
            field("none", decimals=2, min=0),
        ),
        _line(
            "Events that share a commit",
            "Mean of the group commit: it grows with the load.",
            {
                "events": f"sum(rate(ghl_exporter_group_commit_events_sum{rate}))"
                f" / (sum(rate(ghl_exporter_group_commit_events_count{rate})) > 0)"
            },
            field("none", decimals=1, min=0),
        ),
        _line(
            "Events a second that become facts",
            "Taken from the inbox, by what became of them.",
            {"{{outcome}}": f"sum by (outcome) (rate(ghl_exporter_events_projected_total{rate}))"},
            field("reqps", min=0, custom={"axisSoftMax": 1}),
        ),
        _line(
            "Tracking calls a second",
            "What the AI platform tells, by call.",
            {"{{call}}": f"sum by (call) (rate(ghl_exporter_tracking_calls_total{rate}))"},
            field("reqps", min=0, custom={"axisSoftMax": 1}),
        ),
        _line(
            "API requests refused, a second",
            "Refused on purpose, by HTTP status.",
            {
                "{{status}}": "sum by (status) (rate("
                f"ghl_exporter_api_requests_rejected_total{rate}))"
            },
            field("reqps", min=0, custom={"axisSoftMax": 1}),
        ),
        _line(
            "Time of a projection's transaction",
            "95 of 100 are done within this time.",
            {
                "95 %": "histogram_quantile(0.95, sum by (le) (rate("
                f"ghl_exporter_projection_batch_duration_seconds_bucket{rate})))"
            },
            field(SECONDS, min=0),
        ),
        _line(
            "Connections to PostgreSQL",
            "Of the pools for KPIs, by state.",
            {"{{state}}": "sum by (state) (ghl_exporter_database_pool_connections)"},
            field("none", decimals=0, min=0),
        ),
        _line(
            "Label values cut, in an hour",
            "Values over a limit: they have no series of their own.",
            {"{{label}}": "sum by (label) (increase(ghl_exporter_label_values_cut_total[1h]))"},
            field("none", decimals=0, min=0, custom={"axisSoftMax": 1}),
        ),
    ]


def board() -> Board:
    """Return the board."""
    states, internals = _states(), _internals()
    risk, came = at_risk(), last_came(GHL, "GHL last came")
    return Board(
        uid="ghl-health",
        title="Alerts and health",
        about="What fires, what the service stands on, how old the figures are.",
        since="now-6h",
        window=None,
        lines=[
            Line(3, [(6, panel) for panel in states[:4]]),
            Line(3, [(6, panel) for panel in states[4:]]),
            Line(7, [(24, _firing())]),
            row("Does anything wait, could anything be lost?"),
            Line(4, [(6, panel) for panel in (came, *backlog(), risk[0])]),
            Line(4, [(6, panel) for panel in risk[1:]]),
            row("The service itself"),
            Line(9, [(24, _kpis())]),
            *(Line(7, [(8, panel) for panel in internals[n : n + 3]]) for n in (0, 3, 6)),
        ],
    )
