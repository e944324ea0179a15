"""Do the recommended properties fit, and do they lead to showings and offers?"""

from grafana import targets
from grafana.board import Board, Line
from grafana.boards.state import final
from grafana.fields import (
    COLOURED,
    COUNT,
    SHARE,
    at_least,
    field,
    override,
    steps,
)
from grafana.panels import ExactPanel, bars, lines, row, stat, table
from grafana.queries import NAMES, change, graph, kpi, named, now, numbered, over_time, rows

_WORDS = {
    "viewed": "Viewed",
    "liked": "Liked",
    "scheduled": "Scheduled",
    "rejected": "Rejected",
    "shared": "Shared",
}
_MADE = kpi("recommendations_made")
_SHOWN = kpi("stage_contacts", 'stage="property_showing"')


def _of(whole: str, ratio: str) -> str:
    """Return a share over all the chosen locations, each with its own weight."""
    return f"sum({whole} * {kpi(ratio)}) / (sum({whole}) > 0)"


def _stats() -> list[ExactPanel]:
    return [
        stat(
            "Recommendations made",
            "In the window, by all the locations that are chosen.",
            now(f"sum({_MADE})", "made"),
            field(COUNT, decimals=0),
            text="value",
        ),
        stat(
            f"Accepted · target {targets.ACCEPTANCE:.0%}",
            "Of them, the share that was liked or scheduled by now.",
            now(_of(_MADE, "recommendation_acceptance_ratio"), "accepted"),
            field(SHARE, decimals=1, thresholds=at_least(targets.ACCEPTANCE)),
            text="value",
        ),
        stat(
            "Led to a showing",
            "Of them, the share whose showing was scheduled by now.",
            now(_of(_MADE, "match_to_showing_ratio"), "scheduled"),
            field(SHARE, decimals=1),
            text="value",
        ),
        stat(
            "Showing to offer",
            "Of the contacts that had a showing in the window, the share that made an offer by"
            " now.",
            now(_of(_SHOWN, "showing_to_offer_ratio"), "offers"),
            field(SHARE, decimals=1),
            text="value",
        ),
    ]


def _over_time() -> ExactPanel:
    return lines(
        f"Accepted · target {targets.ACCEPTANCE:.0%}",
        "Of the recommendations made in the chosen window up to each moment, the share accepted.",
        graph(named(over_time("recommendation_acceptance_ratio")), "{{name}}", interval="1h"),
        field(
            SHARE,
            decimals=0,
            min=0,
            custom={"axisSoftMax": 1.5 * targets.ACCEPTANCE},
            thresholds=steps((None, "transparent"), (targets.ACCEPTANCE, "green")),
        ),
        limits=True,
    )


def _interactions() -> ExactPanel:
    return bars(
        "What contacts did",
        "Interactions with properties in the window. Scheduled: a showing.",
        numbered(
            (
                (f"sum({kpi('property_interactions', label)})", word)
                for name, word in _WORDS.items()
                for label in [f'interaction="{name}"']
            ),
            now,
        ),
        field(COUNT, decimals=0, min=0),
    )


def _by_location() -> ExactPanel:
    return table(
        "By location",
        "Confidence: how far the score of a recommendation goes along with its acceptance, from -1"
        " to 1; it needs 30 recommendations.",
        [
            rows(NAMES, "A"),
            rows(kpi("recommendations_made"), "B"),
            rows(kpi("recommendation_acceptance_ratio"), "C"),
            rows(change("acceptance"), "D"),
            rows(kpi("match_to_showing_ratio"), "E"),
            rows(kpi("showing_to_offer_ratio"), "F"),
            rows(kpi("recommendation_confidence_correlation"), "G"),
        ],
        {
            "name": "Location",
            "Value #B": "Made",
            "Value #C": "Accepted",
            "Value #D": "Change",
            "Value #E": "To showing",
            "Value #F": "Showing to offer",
            "Value #G": "Confidence",
        },
        [
            override("Made", unit=COUNT, decimals=0),
            override(
                "Accepted",
                unit=SHARE,
                decimals=1,
                thresholds=at_least(targets.ACCEPTANCE),
                custom__cellOptions=COLOURED,
            ),
            override("Change", unit=SHARE, decimals=0),
            override("To showing", unit=SHARE, decimals=1),
            override("Showing to offer", unit=SHARE, decimals=1),
            override("Confidence", unit="none", decimals=2),
        ],
        sort="Accepted",
    )


def _confidence() -> ExactPanel:
    return lines(
        "Confidence and acceptance",
        "Correlation of a recommendation's score with its acceptance, in the chosen window up to"
        " each moment: 0 says that the score tells nothing.",
        graph(named(over_time("recommendation_confidence_correlation")), "{{name}}", interval="1h"),
        field("none", decimals=2),
    )


def board() -> Board:
    """Return the board."""
    return Board(
        uid="ghl-matching",
        title="Property matching",
        about="Recommendations, what contacts made of them, and whether the score says anything.",
        lines=[
            Line(3, [(24, final())]),
            Line(5, [(6, panel) for panel in _stats()]),
            Line(9, [(12, _over_time()), (12, _interactions())]),
            row("How the locations differ"),
            Line(7, [(24, _by_location())]),
            Line(8, [(24, _confidence())]),
        ],
    )
