"""Is GHL reaching us, and do we keep what is promised?"""

from collections.abc import Callable

from grafanalib.core import Target

from exporter.domain.event import GHL
from exporter.domain.slo import (
    ANSWER_WITHIN_SECONDS,
    BUDGET_DAYS,
    BURNS,
    SLOS,
    Slo,
    bad_ratio,
    budget_lasts,
    budget_left,
)
from exporter.telemetry.metrics import REJECTIONS
from grafana.board import Board, Line
from grafana.boards.waiting import at_risk, backlog, last_came
from grafana.fields import (
    BAD,
    COUNT,
    FAIR,
    GAUGE_CELL,
    GOOD,
    SECONDS,
    SHARE,
    Json,
    field,
    fixed,
    override,
    reached,
    steps,
    words,
)
from grafana.panels import ExactPanel, bars, heatmap, lines, row, stat, table, timeline
from grafana.queries import HERE, NAMES, graph, now, numbered, rows

_WORDS = {
    "availability": "Up",
    "webhook-success": "Success",
    "webhook-latency": "In time",
    "kpi-freshness": "Fresh",
}
_SUCCESS, _LATENCY = (slo for slo in SLOS if slo.name.startswith("webhook-"))
# Seconds from which on a budget's end is too far away to be told.
_NO_END = 365 * 86_400
_LASTING = {"text": "no end", "color": GOOD, "index": 0}


def _each(expression: Callable[[Slo], str], ask: Callable[..., Target]) -> list[Target]:
    """Return a query for each objective."""
    return numbered(((expression(slo), _WORDS[slo.name]) for slo in SLOS), ask)


def _kept(slo: Slo) -> ExactPanel:
    budget = f"{BUDGET_DAYS}d"
    return stat(
        _WORDS[slo.name],
        f"{slo.title}: the share of {slo.events} that was good in the last {BUDGET_DAYS} days, and"
        " in the last hour. Nothing came is no share.",
        [
            now(
                f"1 - {bad_ratio(slo, budget)}",
                f"{BUDGET_DAYS} days, objective {slo.objective:.0%}",
            ),
            now(f"1 - {bad_ratio(slo, '1h')}", "last hour", "B"),
        ],
        field(
            SHARE,
            decimals=2,
            max=1,
            thresholds=reached(slo.objective),
        ),
        text="value_and_name",
        orientation="horizontal",
    )


def _left() -> ExactPanel:
    return bars(
        "Error budget left",
        f"Of what may go wrong in {BUDGET_DAYS} days, the share that is left. Below 0 the"
        " objective is missed.",
        _each(budget_left, now),
        field(
            SHARE, decimals=0, min=0, max=1, thresholds=steps((None, BAD), (0.1, FAIR), (0.5, GOOD))
        ),
    )


def _lasts_for(slo: Slo) -> str:
    """Return the seconds that a budget lasts: 0 where it is gone, a year where nothing burns."""
    left = budget_left(slo)
    return f"{budget_lasts(slo)}\n  or\n0 * ({left} > 0) + {_NO_END}\n  or\n0 * {left}"


def _lasts() -> ExactPanel:
    return stat(
        "Budget lasts",
        "Time until the error budget is used up, at the pace of the last six hours. No end:"
        " nothing went wrong in them.",
        _each(_lasts_for, now),
        field(
            SECONDS,
            decimals=1,
            mappings=[
                {"type": "range", "options": {"from": _NO_END, "to": None, "result": _LASTING}}
            ],
            thresholds=steps(
                (None, "text"), (0, BAD), (3 * 86_400, FAIR), (BUDGET_DAYS * 86_400, GOOD)
            ),
        ),
        text="value_and_name",
        orientation="horizontal",
    )


def _met() -> ExactPanel:
    return timeline(
        "Met or breached",
        "Whether the objective was met in the hour up to each moment. Gaps: nothing came.",
        _each(lambda slo: f"{bad_ratio(slo, '1h')} <= bool {slo.budget:g}", graph),
        field(
            "none",
            mappings=words({"1": "Met", "0": "Breached"}, {"1": GOOD, "0": BAD}),
            thresholds=steps((None, BAD), (1, GOOD)),
        ),
    )


def _burn() -> ExactPanel:
    limits = sorted(burn.factor for pair in BURNS.values() for burn in pair)
    return lines(
        "How fast the budget burns",
        f"1: it is used up in {BUDGET_DAYS} days. {limits[-1]:g} for an hour wakes somebody,"
        f" {limits[-2]:g} for six hours too.",
        _each(lambda slo: f"{bad_ratio(slo, '1h')} / {slo.budget:g}", graph),
        field(
            "none",
            decimals=1,
            min=0,
            custom={"axisSoftMax": 1.4 * limits[-1]},
            thresholds=steps((None, "transparent"), (1, FAIR), (limits[-1], BAD)),
        ),
        limits=True,
    )


def _answer_times() -> ExactPanel:
    return lines(
        "Time to answer",
        "Half of the webhooks, and 95 of 100, are answered within this time.",
        [
            graph("max(job:ghl_exporter_webhook_request_duration_seconds:p95_rate5m)", "95 %"),
            graph(
                "histogram_quantile(0.5, sum by (le) (rate("
                "ghl_exporter_webhook_request_duration_seconds_bucket[$__rate_interval])))",
                "50 %",
                "B",
            ),
        ],
        field(
            SECONDS,
            min=0,
            thresholds=steps((None, "transparent"), (ANSWER_WITHIN_SECONDS, BAD)),
            custom={"axisSoftMax": 1.2 * ANSWER_WITHIN_SECONDS},
        ),
        limits=True,
    )


def _delay() -> ExactPanel:
    return lines(
        "Time to become a fact",
        "95 of 100 webhooks are in the figures within this time after they came.",
        graph("max(job:ghl_exporter_webhook_projection_delay_seconds:p95_rate5m)", "95 %"),
        field(
            SECONDS,
            # A history that is brought in waits for hours, a webhook for milliseconds.
            custom={"scaleDistribution": {"type": "log", "log": 10}},
        ),
    )


def _latency() -> ExactPanel:
    return heatmap(
        "Times to answer, in full",
        f"How many webhooks a second were answered within which time. The objective:"
        f" {_LATENCY.objective:.0%} within {ANSWER_WITHIN_SECONDS:g} s.",
        graph(
            "sum by (le) (rate("
            "ghl_exporter_webhook_request_duration_seconds_bucket[$__rate_interval]))",
            "{{le}}",
        ),
        SECONDS,
    )


_OUTCOMES = {
    "stored": ("Stored", GOOD),
    "duplicate": ("Seen before", "blue"),
    "spooled": ("On the local disk", FAIR),
    "refused": ("Refused", BAD),
}


def _coloured(names: dict[str, tuple[str, str]]) -> list[Json]:
    return [
        override(name, displayName=text, color=fixed(colour))
        for name, (text, colour) in names.items()
    ]


def _received() -> ExactPanel:
    return lines(
        "Webhooks a second",
        "What came from GHL and from workflows, and what became of it.",
        graph("sum by (outcome) (job:ghl_exporter_webhooks:rate5m)", "{{outcome}}"),
        field("reqps", min=0, custom={"axisSoftMax": 1}),
        stacked=True,
        overrides=_coloured(_OUTCOMES),
    )


def _rejected() -> ExactPanel:
    return lines(
        "Rejected on purpose, a second",
        "Requests without a good signature or secret, too large, or broken off. They are in no"
        " objective.",
        graph("sum by (reason) (job:ghl_exporter_webhooks_rejected:rate5m)", "{{reason}}"),
        field("reqps", min=0, custom={"axisSoftMax": 1}),
        overrides=[
            override(reason, displayName=reason.replace("_", " ").capitalize())
            for reason in REJECTIONS
        ],
    )


def _finished(labels: str = "") -> str:
    return (
        "sum by (event) (increase(ghl_exporter_webhooks_finished_by_event_total"
        f"{{{labels}}}[$__range]))"
    )


def _by_event() -> ExactPanel:
    most = f"topk(15, {_finished()} > 0)"
    success = _finished('outcome="success"')
    return table(
        "By event",
        "What came in the time that is shown, by GHL's event, the 15 most frequent, and the share"
        " that succeeded.",
        [rows(most, "A"), rows(f"{success} / on (event) {most}", "B")],
        {"event": "Event", "Value #A": "Webhooks", "Value #B": "Success"},
        [
            override("Webhooks", unit=COUNT, decimals=0),
            override(
                "Success",
                unit=SHARE,
                decimals=1,
                min=0,
                max=1,
                thresholds=reached(_SUCCESS.objective),
                custom__cellOptions=GAUGE_CELL,
            ),
        ],
        join="event",
        sort="Webhooks",
    )


def _by_location() -> ExactPanel:
    share = "1 - job_location:slo_bad_events:ratio_increase{}{{{}}}"
    return table(
        "By location",
        "Each location's webhooks, the quietest first, and the share that succeeded in one day and"
        f" in {BUDGET_DAYS} days.",
        [
            rows(NAMES, "A"),
            rows(
                "sum by (location) (increase(ghl_exporter_webhooks_by_location_total"
                f"{{{HERE}}}[1h]))",
                "E",
            ),
            rows(f"max by (location) (job_location:slo_events:increase1d{{{HERE}}})", "B"),
            rows(f"max by (location) ({share.format('1d', HERE)})", "C"),
            rows(f"max by (location) ({share.format('30d', HERE)})", "D"),
        ],
        {
            "name": "Location",
            "Value #E": "Last hour",
            "Value #B": "Last day",
            "Value #C": "1 day",
            "Value #D": f"{BUDGET_DAYS} days",
        },
        [
            override("Last hour", unit=COUNT, decimals=0),
            override("Last day", unit=COUNT, decimals=0),
            *(
                override(
                    name,
                    unit=SHARE,
                    decimals=1,
                    min=0,
                    max=1,
                    thresholds=reached(_SUCCESS.objective),
                    custom__cellOptions=GAUGE_CELL,
                )
                for name in ("1 day", f"{BUDGET_DAYS} days")
            ),
        ],
        sort="Last hour",
        ascending=True,
    )


def board() -> Board:
    """Return the board."""
    risk = at_risk()
    waiting = [last_came(GHL, "GHL last came"), *backlog(), risk[0]]
    return Board(
        uid="ghl-webhook-sla",
        title="Webhook SLA",
        about="Is GHL reaching us, are webhooks stored and answered in time, does anything wait?",
        since="now-24h",
        window=None,
        lines=[
            Line(4, [(6, _kept(slo)) for slo in SLOS]),
            Line(6, [(14, _left()), (10, _lasts())]),
            Line(4, [(6, panel) for panel in waiting]),
            Line(4, [(6, panel) for panel in risk[1:]]),
            Line(6, [(24, _met())]),
            row("How it went"),
            Line(8, [(12, _received()), (12, _burn())]),
            Line(8, [(12, _answer_times()), (12, _delay())]),
            Line(9, [(12, _latency()), (12, _rejected())]),
            row("Where it comes from"),
            Line(10, [(13, _by_location()), (11, _by_event())]),
        ],
    )
