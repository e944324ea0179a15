"""Alerts on the business: for those who run it, by day. An outlier among agents is none of them."""

from alerts.alert import BUSINESS, LOCATION, TICKET, Alert
from recording_rules.figures import (
    BASELINE,
    BASELINE_WINDOW,
    FIGURES,
    GRADE_WINDOW,
    LETTER,
    final,
)

_EXECUTIVE, _REVENUE = "ghl-executive", "ghl-revenue"
_AGENTS, _MATCHING = "ghl-agents", "ghl-matching"
_FIGURE = {figure.name: figure for figure in FIGURES}
# Figures move from one week to the next by chance alone: those of a handful of deals by half. So
# what is usual has to be enough; last week alone would end an alert that lasts longer.
_LOW = 0.5
_LEAST_DEALS = 10
_LEAST_EXPECTED = 15
_LEAST_LEADS = 20
_SLOW = 2
# Answers within minutes are good, however much quicker they once were.
_QUICK_SECONDS = 300


def _now(name: str) -> str:
    return _FIGURE[name].at(BASELINE_WINDOW)


def _baseline(name: str) -> str:
    return f'{BASELINE}{{figure="{name}"}}'


def _expected(count: str, share: str) -> str:
    """Return the guard of a share: of this week's `count`, so many would be usual."""
    return f"{count}\n  * on (job, location)\n{_baseline(share)}\n  >= {_LEAST_EXPECTED}"


def _against_baseline(name: str, comparison: str, factor: float, guard: str) -> str:
    return final(
        f"(\n  {_now(name)}\n    {comparison} on (job, location)\n"
        f"  ({factor} * {_baseline(name)})\n)\n"
        f"  and on (job, location)\n({guard})",
        "",
    )


_GRADE = (
    f"{{{{ with printf \"ghl_performance_grade{{location=%q,window='{GRADE_WINDOW}'}} == 1\""
    ' $labels.location | query }}{{ . | first | label "grade" }}{{ end }}'
)
_WEEK = "the last seven days"
_PAST = "the median of the four weeks before, each up to the same hour of the same weekday"

BUSINESS_ALERTS = (
    Alert(
        "GhlGradeFell",
        f"{LETTER} < {LETTER} offset 1d",
        TICKET,
        _EXECUTIVE,
        f"The grade of {LOCATION} fell by a letter within a day",
        f"The performance grade over {GRADE_WINDOW} was better by a letter at this time yesterday. "
        "The board shows which part it is.",
        team=BUSINESS,
        wait="30m",
    ),
    Alert(
        "GhlGradeBelowC",
        # Without the grade as a label: from D to F it is the same alert.
        "max by (job, location) "
        f'(ghl_performance_grade{{grade=~"C-|D|F",window="{GRADE_WINDOW}"}}) == 1',
        TICKET,
        _EXECUTIVE,
        f"The grade of {LOCATION} is {_GRADE}",
        f"The performance grade over {GRADE_WINDOW} is below C. The board shows which part it is.",
        team=BUSINESS,
        wait="1h",
    ),
    Alert(
        "GhlRevenueLow",
        _against_baseline(
            "revenue",
            "<",
            _LOW,
            f"{_baseline('deals')} >= {_LEAST_DEALS}",
        ),
        TICKET,
        _REVENUE,
        f"Revenue of {LOCATION} is far below its past weeks",
        f"{{{{ $value | humanize }}}} in {_WEEK}: less than half of what is usual, {_PAST}.",
        team=BUSINESS,
        wait="2h",
    ),
    Alert(
        "GhlConversionLow",
        _against_baseline(
            "conversion",
            "<",
            _LOW,
            _expected(_now("leads"), "conversion"),
        ),
        TICKET,
        _REVENUE,
        f"Lead conversion of {LOCATION} is far below its past weeks",
        f"{{{{ $value | humanizePercentage }}}} in {_WEEK}: less than half of what is usual, "
        f"{_PAST}.",
        team=BUSINESS,
        wait="2h",
    ),
    Alert(
        "GhlAcceptanceLow",
        _against_baseline(
            "acceptance",
            "<",
            _LOW,
            _expected(
                f'max by (job, location) (ghl_recommendations_made{{window="{BASELINE_WINDOW}"}})',
                "acceptance",
            ),
        ),
        TICKET,
        _MATCHING,
        f"Fewer recommendations are accepted in {LOCATION} than in its past weeks",
        f"{{{{ $value | humanizePercentage }}}} in {_WEEK}: less than half of what is usual, "
        f"{_PAST}.",
        team=BUSINESS,
        wait="2h",
    ),
    Alert(
        "GhlResponseSlow",
        _against_baseline(
            "first_response",
            ">",
            _SLOW,
            f"{_now('first_response')} > {_QUICK_SECONDS} and {_now('leads')} >= {_LEAST_LEADS}",
        ),
        TICKET,
        _AGENTS,
        f"Leads of {LOCATION} wait longer for a first answer than in its past weeks",
        f"The median is {{{{ $value | humanizeDuration }}}} in {_WEEK}: more than twice what is "
        f"usual, {_PAST}.",
        team=BUSINESS,
        wait="2h",
    ),
)
