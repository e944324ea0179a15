"""The business figures that are held against their own past: the same figure, weeks ago.

The names of what is recorded of them are here too, for alerts and boards.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A KPI that is compared. `labels` lack the window, which each comparison adds."""

    name: str
    title: str
    metric: str
    labels: str = ""
    # Compared with its own weeks before, by alerts.
    has_baseline: bool = False

    def at(self, window: str, offset: str = "") -> str:
        """Return the figure of a window, one series for each job and location, as PromQL."""
        labels = f'window="{window}"' + (f",{self.labels}" if self.labels else "")
        return f"max by (job, location) ({self.metric}{{{labels}}}{offset})"


def final(expression: str, *offsets: str) -> str:
    """Return an expression without the jobs whose figures were of a part of the history then.

    `offsets`: the times, from now, that the expression's figures are of.
    """
    unless = "\n  unless on (job)\n(ghl_exporter_history_complete{} == 0)"
    return expression + "".join(unless.format(offset) for offset in offsets)


FIGURES = (
    Figure("revenue", "Revenue", "ghl_revenue", has_baseline=True),
    Figure("deals", "Deals closed", "ghl_deals_closed", has_baseline=True),
    Figure("leads", "Leads created", "ghl_leads_created"),
    Figure("revenue_per_lead", "Revenue per lead", "ghl_revenue_per_lead"),
    Figure(
        "conversion",
        "Lead conversion",
        "ghl_lead_conversion_ratio",
        'basis="period"',
        has_baseline=True,
    ),
    Figure("deal_size", "Average deal size", "ghl_average_deal_size"),
    Figure(
        "time_to_conversion",
        "Time to conversion",
        "ghl_time_to_conversion_seconds",
        'statistic="median"',
    ),
    Figure(
        "first_response",
        "First response",
        "ghl_first_response_seconds",
        'statistic="median"',
        has_baseline=True,
    ),
    Figure(
        "acceptance",
        "Recommendations accepted",
        "ghl_recommendation_acceptance_ratio",
        has_baseline=True,
    ),
    Figure("score", "Performance score", "ghl_performance_score_ratio"),
)

# A window is compared with the one of the same length just before it: day over day, week over week,
# month over month.
COMPARED_WINDOWS = ("1d", "7d", "30d")
# The window that a baseline is of, and the weeks before that it is the median of.
BASELINE_WINDOW = "7d"
BASELINE_WEEKS = (1, 2, 3, 4)
# Fewer known weeks are no baseline.
LEAST_WEEKS = 2
# Letters of the grade, worst first; what is recorded is a letter's place.
LETTERS = "FDCBA"
# The window that grades are alerted on.
GRADE_WINDOW = "30d"

CHANGE = "job_location:ghl_figure:change_ratio"
PAST_WEEK = "job_location:ghl_figure:past_week"
BASELINE = "job_location:ghl_figure:baseline"
LETTER = "job_location:ghl_performance_letter:rank"
