"""What is wrong right now, and how is the service itself?"""

from exporter.domain.event import GHL
from exporter.domain.slo import SERVICE
from grafana.board import Board, Line
from grafana.boards import state
from grafana.boards.state import KPI_AGES, NEVER, TOLD
from grafana.boards.waiting import at_risk, backlog, last_came
from grafana.fields import (
    BAD,
    COUNT,
    FAIR,
    PILL,
    SECONDS,
    Json,
    field,
    override,
    words,
)
from grafana.panels import ExactPanel, lines, row, table
from grafana.queries import ALL_NAMES, graph, numbered, rows

# Unix time in ms since when each fires.
_FIRING = (
    f"1000 * ALERTS_FOR_STATE{{{TOLD}}}\n  and ignoring (alertstate)\n"
    f'ALERTS{{alertstate="firing",{TOLD}}}'
)


def _firing() -> ExactPanel:
    return table(
        "Alerts that fire",
        "A page wakes somebody, a ticket waits for the day. Each alert's runbook is on the"
        " exporter, below /runbooks/. Whether none fires, or none is evaluated, is said above.",
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
        # It would stand in each empty cell too, beside a page that fires.
        empty="-",
    )


def _kpis() -> ExactPanel:
    return table(
        "KPIs by age",
        "Each KPI's age, the time of its last query, and how often it failed in the time that is"
        " shown.",
        [
            rows(KPI_AGES, "A"),
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
            override("Age", unit=SECONDS, decimals=0, mappings=[NEVER]),
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
    internals = _internals()
    first = (state.firing(), state.alerting(), state.exporter(), state.leader())
    second = (state.database(), state.redis(), state.copies(), state.oldest_kpi())
    risk, came = at_risk(), last_came(GHL, "GHL last came")
    return Board(
        uid="ghl-health",
        title="Alerts and health",
        about="What fires, what the service stands on, how old the figures are.",
        since="now-6h",
        window=None,
        lines=[
            Line(3, [(6, panel) for panel in first]),
            Line(3, [*((5, panel) for panel in second), (4, state.facts())]),
            Line(7, [(24, _firing())]),
            row("Does anything wait, could anything be lost?"),
            Line(4, [(6, panel) for panel in (came, *backlog(), risk[0])]),
            Line(4, [(6, panel) for panel in risk[1:]]),
            row("The service itself"),
            Line(9, [(24, _kpis())]),
            *(Line(7, [(8, panel) for panel in internals[n : n + 3]]) for n in (0, 3, 6)),
        ],
    )
