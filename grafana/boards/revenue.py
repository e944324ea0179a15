"""Where does the revenue come from, and where do leads get lost?"""

from grafana import targets
from grafana.board import Board, Line
from grafana.boards.state import final
from grafana.fields import (
    COUNT,
    MONEY,
    SECONDS,
    SHARE,
    STAGE_WORDS,
    field,
    override,
    steps,
)
from grafana.panels import ExactPanel, bars, lines, row, table
from grafana.queries import NAMES, change, graph, kpi, named, now, numbered, over_time, rows

_BY_NAME = "{{name}}"


def _over_time() -> list[ExactPanel]:
    return [
        lines(
            "Revenue",
            "Revenue of the chosen window up to each moment, in each location's own currency.",
            graph(named(over_time("revenue")), _BY_NAME, interval="1h"),
            field(MONEY, decimals=1, min=0),
        ),
        lines(
            "Deals closed",
            "Deals closed in the chosen window up to each moment.",
            graph(named(over_time("deals_closed")), _BY_NAME, interval="1h"),
            field(COUNT, decimals=0, min=0),
        ),
        lines(
            f"Lead conversion · target {targets.CONVERSION:.0%}",
            "Deals closed divided by leads created, both in the chosen window up to each moment.",
            graph(
                named(over_time("lead_conversion_ratio", 'basis="period"')), _BY_NAME, interval="1h"
            ),
            field(
                SHARE,
                decimals=0,
                min=0,
                custom={"axisSoftMax": 1.5 * targets.CONVERSION},
                thresholds=steps((None, "transparent"), (targets.CONVERSION, "green")),
            ),
            limits=True,
        ),
    ]


def _contacts(stage: str) -> str:
    return kpi("stage_contacts", f'stage="{stage}"')


def _went_on(stage: str) -> str:
    ratio = kpi("stage_conversion_ratio", f'stage="{stage}"')
    return f"sum({_contacts(stage)} * {ratio}) / (sum({_contacts(stage)}) > 0)"


def _funnel() -> ExactPanel:
    return bars(
        "Funnel",
        "Contacts that reached each stage in the window, of all the locations that are chosen.",
        numbered(((f"sum({_contacts(stage)})", word) for stage, word in STAGE_WORDS.items()), now),
        field(COUNT, decimals=0, min=0),
    )


def _stage_conversion() -> ExactPanel:
    stages = list(STAGE_WORDS.items())[:-1]
    return bars(
        "Went on so far",
        "Of the contacts that reached the stage in the window, the share that by now reached a"
        " later one. Many are still on their way, and AI qualification is no stage that all pass.",
        numbered(((_went_on(stage), word) for stage, word in stages), now),
        field(SHARE, decimals=0, min=0, max=1),
    )


def _figures() -> ExactPanel:
    return table(
        "Figures by location",
        "Money is in the location's own currency. Win rate: of the opportunities won or lost in"
        " the window, the share won. Open: now.",
        [
            rows(NAMES, "A"),
            rows(kpi("revenue"), "B"),
            rows(change("revenue"), "C"),
            rows(kpi("deals_closed"), "D"),
            rows(kpi("average_deal_size"), "E"),
            rows(kpi("win_ratio"), "F"),
            rows(kpi("open_pipeline_value", window=""), "G"),
            rows(kpi("open_opportunities", window=""), "H"),
            rows(kpi("appointment_no_show_ratio"), "I"),
        ],
        {
            "name": "Location",
            "currency": "Money",
            "Value #B": "Revenue",
            "Value #C": "Change",
            "Value #D": "Deals",
            "Value #E": "Deal size",
            "Value #F": "Win rate",
            "Value #G": "Open pipeline",
            "Value #H": "Open deals",
            "Value #I": "No-shows",
        },
        [
            override("Money", custom__width=60),
            override("Revenue", unit=MONEY, decimals=1),
            override("Change", unit=SHARE, decimals=0),
            override("Deals", unit=COUNT, decimals=0),
            override("Deal size", unit=MONEY, decimals=1),
            override("Win rate", unit=SHARE, decimals=0),
            override("Open pipeline", unit=MONEY, decimals=1),
            override("Open deals", unit=COUNT, decimals=0),
            override("No-shows", unit=SHARE, decimals=0),
        ],
        sort="Revenue",
    )


def _assisted_share() -> ExactPanel:
    part = over_time("attributed_revenue", 'attribution="ai_assisted"')
    return lines(
        "Share of the revenue that the AI had a part in",
        "Revenue of deals whose contact the AI qualified, recommended to, or was used for, in the"
        " 90 days up to the close, divided by all revenue.",
        graph(named(f"({part} / ({over_time('revenue')} > 0))"), _BY_NAME, interval="1h"),
        field(SHARE, decimals=0, min=0, max=1),
    )


def _attribution() -> ExactPanel:
    return table(
        "AI-assisted and manual",
        "The two add up to the revenue. Correlation and AUC: how well a lead's first AI score tells"
        " whether it becomes a deal; 0 and 0.5 are chance.",
        [
            rows(NAMES, "A"),
            rows(kpi("attributed_revenue", 'attribution="ai_assisted"'), "B"),
            rows(kpi("attributed_revenue", 'attribution="manual"'), "C"),
            rows(kpi("ai_score_correlation"), "D"),
            rows(kpi("ai_score_auc"), "E"),
        ],
        {
            "name": "Location",
            "Value #B": "With AI",
            "Value #C": "Manual",
            "Value #D": "Correlation",
            "Value #E": "AUC",
        },
        [
            override("With AI", unit=MONEY, decimals=1),
            override("Manual", unit=MONEY, decimals=1),
            override("Correlation", unit="none", decimals=2),
            override("AUC", unit="none", decimals=2),
        ],
        sort="With AI",
    )


def _time_to_conversion() -> ExactPanel:
    return table(
        "Time to conversion",
        "From a lead's creation to its deal, of the deals closed in the window.",
        [
            rows(NAMES, "A"),
            *(
                rows(kpi("time_to_conversion_seconds", f'statistic="{statistic}"'), ref)
                for statistic, ref in (("median", "B"), ("mean", "C"), ("p90", "D"))
            ),
        ],
        {
            "name": "Location",
            "Value #B": "Median",
            "Value #C": "Mean",
            "Value #D": "9 of 10 within",
        },
        [override(name, unit=SECONDS, decimals=1) for name in ("Median", "Mean", "9 of 10 within")],
        sort="Median",
        ascending=True,
    )


def _conversion_time_line() -> ExactPanel:
    median = over_time("time_to_conversion_seconds", 'statistic="median"')
    return lines(
        "Median time to conversion, in days",
        "Of the deals closed in the chosen window up to each moment.",
        graph(named(f"({median} / 86400)"), _BY_NAME, interval="1h"),
        field("none", min=0),
    )


def board() -> Board:
    """Return the board."""
    return Board(
        uid="ghl-revenue",
        title="Revenue and pipeline",
        about="Revenue and deals, the funnel, the AI's part, the open pipeline.",
        lines=[
            Line(3, [(24, final())]),
            Line(8, [(24, _figures())]),
            Line(9, [(8, panel) for panel in _over_time()]),
            row("Where leads get lost"),
            Line(10, [(12, _funnel()), (12, _stage_conversion())]),
            row("What the AI does for it"),
            Line(8, [(12, _attribution()), (12, _assisted_share())]),
            row("How long it takes"),
            Line(8, [(12, _time_to_conversion()), (12, _conversion_time_line())]),
        ],
    )
