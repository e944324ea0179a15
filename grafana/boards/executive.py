"""How are we doing? The grade of each location, its figures with their targets, what moved."""

from grafanalib.core import Target

from exporter.domain.event import GHL
from exporter.domain.grade import GRADE_PARTS
from grafana import targets
from grafana.board import Board, Line
from grafana.boards.state import final, updated
from grafana.boards.waiting import last_came
from grafana.fields import (
    COLOURED,
    GAUGE_CELL,
    GRADE_COLOURS,
    GRADE_MAPPING,
    HIDDEN,
    KEEP,
    LOCATION_OF_ROW,
    MONEY,
    PILL,
    SECONDS,
    SHARE,
    Json,
    at_least,
    field,
    fixed,
    link,
    override,
    steps,
    words,
)
from grafana.panels import ExactPanel, bars, lines, row, stat, table, text
from grafana.queries import HERE, NAMES, change, graph, kpi, now, numbered, over_time, rows, usual
from recording_rules.figures import FIGURES

_HOW_TO_READ = (
    "Money is in each location's own currency; changes are against the window of the same length"
    " just before. Click a location to see it alone."
)
# The window that is chosen, in words.
_PERIOD = "${window:text}"
PART_WORDS = {
    "lead_conversion": "Conversion",
    "revenue_per_lead": "Revenue/lead",
    "webhook_success": "Automation",
    "recommendation_acceptance": "Acceptance",
}

SCORE = field(
    SHARE,
    decimals=0,
    min=0,
    max=1,
    thresholds=steps(
        (None, "text"),
        (0, "red"),
        (targets.D_SCORE, "orange"),
        (targets.C_SCORE, "yellow"),
        (targets.B_SCORE, "green"),
    ),
)
_CONVERSION = at_least(targets.CONVERSION)
_ACCEPTANCE = at_least(targets.ACCEPTANCE)
_PER_LEAD = at_least(targets.REVENUE_PER_LEAD)
_DEAL_SIZE = at_least(targets.DEAL_SIZE)
_TO_LOCATION = f"/d/ghl-executive?var-location={LOCATION_OF_ROW}&{KEEP}"


def _scoreboard() -> ExactPanel:
    held = kpi("performance_grade", by="location, grade") + " == 1"
    return table(
        "All locations",
        "Each location's grade and the figures behind it, in the window that is chosen. In 15 min:"
        " leads answered by then. Money is in the location's own currency. Click a name to see that"
        " location alone.",
        [
            rows(NAMES, "A"),
            rows(held, "B"),
            rows(kpi("performance_score_ratio"), "C"),
            rows(kpi("revenue"), "D"),
            rows(change("revenue"), "E"),
            rows(kpi("lead_conversion_ratio", 'basis="period"'), "F"),
            rows(kpi("average_deal_size"), "G"),
            rows(kpi("time_to_conversion_seconds", 'statistic="median"'), "H"),
            rows(kpi("recommendation_acceptance_ratio"), "I"),
            rows(kpi("first_response_within_ratio", 'limit_seconds="900"'), "J"),
        ],
        {
            "name": "Location",
            "currency": "Money",
            "grade": "Grade",
            "Value #C": "Score",
            "Value #D": "Revenue",
            "Value #E": "Change",
            "Value #F": "Conversion",
            "Value #G": "Deal size",
            "Value #H": "To deal",
            "Value #I": "Accepted",
            "Value #J": "In 15 min",
            # The link of the name needs it.
            "location": "location",
        },
        [
            override(
                "Location",
                links=link("Show this location alone", _TO_LOCATION),
            ),
            override("location", **HIDDEN),
            override("Money", custom__width=55),
            override(
                "Grade",
                custom__cellOptions=PILL,
                mappings=GRADE_MAPPING,
                custom__width=60,
                custom__align="center",
            ),
            override(
                "Score",
                unit=SHARE,
                decimals=0,
                min=0,
                max=1,
                custom__width=95,
                custom__cellOptions=GAUGE_CELL,
                thresholds=SCORE["thresholds"],
            ),
            override("Revenue", unit=MONEY, decimals=1),
            override("Change", unit=SHARE, decimals=0),
            override("Deal size", unit=MONEY, decimals=1),
            override("To deal", unit=SECONDS, decimals=1),
            override("In 15 min", unit=SHARE, decimals=0),
            *(
                override(
                    name,
                    unit=SHARE,
                    decimals=decimals,
                    thresholds=limits,
                    custom__cellOptions=COLOURED,
                )
                for name, limits, decimals in (
                    ("Conversion", _CONVERSION, 1),
                    ("Accepted", _ACCEPTANCE, 1),
                )
            ),
        ],
        sort="Score",
    )


def _grade() -> ExactPanel:
    held = kpi("performance_grade", by="grade") + " == 1"
    return stat(
        "Grade",
        "From A+ to F, by the score. No grade: fewer than half of its parts have a value.",
        now(held, "{{grade}}"),
        field("none", color=fixed("text")),
        text="name",
        colour="background_solid",
        overrides=[override(grade, color=fixed(colour)) for grade, colour in GRADE_COLOURS.items()],
    )


def _score() -> ExactPanel:
    return stat(
        "Score",
        "The weighted mean of the grade's parts, 100 % at best. A needs 90 %, B 80 %, C 70 %.",
        now(kpi("performance_score_ratio", by="job"), "score"),
        SCORE,
        text="value",
    )


def _figure(
    title: str, about: str, expression: str, figure: str, look: Json, target: str = ""
) -> ExactPanel:
    """Return a figure with its target, and below it how it has changed."""
    queries: list[Target] = [
        now(expression, _PERIOD + (f", target {target}" if target else "")),
        now(change(figure), "relative change", "B"),
    ]
    return stat(
        title,
        about + " Change: against the window of the same length just before.",
        queries,
        look,
        text="value_and_name",
        orientation="vertical",
        overrides=[
            override("relative change", unit=SHARE, decimals=0, color=fixed("text")),
        ],
    )


def _figures() -> list[ExactPanel]:
    return [
        _figure(
            "Revenue",
            "Sum of the deals closed, in the location's currency.",
            kpi("revenue"),
            "revenue",
            field(MONEY, decimals=1),
        ),
        _figure(
            "Revenue per lead",
            "Revenue divided by leads created, both in the window.",
            kpi("revenue_per_lead"),
            "revenue_per_lead",
            field(MONEY, decimals=1, thresholds=_PER_LEAD),
            f"{targets.REVENUE_PER_LEAD:,.0f}",
        ),
        _figure(
            "Lead conversion",
            "Deals closed divided by leads created, both in the window.",
            kpi("lead_conversion_ratio", 'basis="period"'),
            "conversion",
            field(SHARE, decimals=1, thresholds=_CONVERSION),
            f"{targets.CONVERSION:.0%}",
        ),
        _figure(
            "Deal size",
            "Revenue divided by the deals that have a value.",
            kpi("average_deal_size"),
            "deal_size",
            field(MONEY, decimals=1, thresholds=_DEAL_SIZE),
            f"{targets.DEAL_SIZE / 1000:,.0f}K",
        ),
        _figure(
            "Time to conversion",
            "Median time from a lead's creation to its deal.",
            kpi("time_to_conversion_seconds", 'statistic="median"'),
            "time_to_conversion",
            field(SECONDS, decimals=1),
        ),
        _figure(
            "Recommendations accepted",
            "Of the recommendations made, the share that was liked or scheduled.",
            kpi("recommendation_acceptance_ratio"),
            "acceptance",
            field(SHARE, decimals=1, thresholds=_ACCEPTANCE),
            f"{targets.ACCEPTANCE:.0%}",
        ),
    ]


def _moved() -> ExactPanel:
    moved = f'max by (figure) (job_location:ghl_figure:change_ratio{{{HERE},window="$window"}})'
    return table(
        "What moved most",
        "The figures that changed most against the window of the same length just before. There is"
        " no change for 90 days.",
        rows(f"{moved}\n  and\ntopk(5, abs({moved}))"),
        {"figure": "Figure", "Value": "Change"},
        [
            override("Figure", mappings=words({f.name: f.title for f in FIGURES})),
            override("Change", unit=SHARE, decimals=0, custom__width=95),
        ],
        join=None,
        sort="Change",
    )


def _points(part: str) -> str:
    score = kpi("performance_part_ratio", f'part="{part}"', by="part")
    return f"{GRADE_PARTS[part].weight:g} * {score}"


def _parts() -> ExactPanel:
    """Return the parts as points: together they are the score, where every part has a value."""
    weights = {part: setting.weight for part, setting in GRADE_PARTS.items()}
    return bars(
        "Where the score comes from, in points",
        "Each part's points of those it can have; where all have a value they add up to the score."
        " Automation: the lower success of GHL's webhooks and of the AI platform's. A part's target"
        " is not yet its full marks: 40 % of recommendations accepted are three quarters of them.",
        numbered(((_points(part), word) for part, word in PART_WORDS.items()), now),
        field(
            "none",
            decimals=1,
            min=0,
            thresholds={
                "mode": "percentage",
                "steps": [
                    {"value": None, "color": "red"},
                    {"value": 60, "color": "orange"},
                    {"value": 73, "color": "yellow"},
                    {"value": 80, "color": "green"},
                ],
            },
        ),
        overrides=[
            override(word, max=weights[part], unit=f"suffix: of {weights[part]:g}")
            for part, word in PART_WORDS.items()
        ],
    )


def _score_over_time() -> ExactPanel:
    return lines(
        "Score over time",
        "The performance score at each moment, of the window up to it.",
        graph(over_time("performance_score_ratio", by="job"), "score", interval="1h"),
        field(SHARE, decimals=0, max=1, custom={"axisSoftMin": 0.5}),
        legend=False,
    )


def board() -> Board:
    """Return the board."""
    figures, came = _figures(), last_came(GHL, "GHL last came")
    return Board(
        uid="ghl-executive",
        title="Executive summary",
        about="How are we doing, what changed, who needs help, and are the figures fresh?",
        lines=[
            Line(3, [(10, text(_HOW_TO_READ)), (6, final()), (4, updated()), (4, came)]),
            Line(7, [(24, _scoreboard())]),
            row("$location", repeat="location"),
            Line(8, [(4, _grade()), (4, _score()), (6, _score_over_time()), (10, _parts())]),
            Line(5, [(8, panel) for panel in figures[:3]]),
            Line(5, [(8, panel) for panel in figures[3:]]),
            Line(7, [(12, _moved()), (12, _revenue_over_time())]),
        ],
    )


def _revenue_over_time() -> ExactPanel:
    return lines(
        "Revenue and what is usual for the week",
        "Revenue of the last seven days at each moment, beside the median of the four weeks before,"
        " each up to the same hour of the same weekday.",
        [
            graph(over_time("revenue", window="7d"), "last 7 days", interval="1h"),
            graph(usual("revenue"), "usual", "B", interval="1h"),
        ],
        field(MONEY, decimals=1, min=0),
        overrides=[
            override("last 7 days", color=fixed("blue")),
            override(
                "usual",
                color=fixed("text"),
                custom__lineStyle={"fill": "dash", "dash": [6, 6]},
                custom__lineWidth=1,
            ),
        ],
    )
