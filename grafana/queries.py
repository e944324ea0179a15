"""PromQL that boards share: KPIs of the chosen locations and window, and what things are called."""

from collections.abc import Callable, Iterable

from grafanalib.core import Target

from recording_rules.figures import BASELINE_WEEKS, BASELINE_WINDOW, FIGURES, LEAST_WEEKS

HERE = 'location=~"$location"'
# One title of a location: its name, and its currency where there is one.
TITLED = (
    'max by (location, title) (label_replace(label_join(ghl_location_info, "title", " · ", '
    '"name", "currency"), "title", "$1", "title", "(.+) · "))'
)
# One for each location, also while copies tell different ones: two would fail a join.
ALL_NAMES = "topk by (location) (1, max by (location, name) (ghl_location_info))"
NAMES = f"topk by (location) (1, max by (location, name, currency) (ghl_location_info{{{HERE}}}))"
AGENT_NAMES = (
    f"topk by (location, agent) (1, max by (location, agent, name) (ghl_agent_info{{{HERE}}}))"
)


def _inside(labels: str, window: str) -> str:
    chosen = f'window="{window}"' if window else ""
    return ",".join(part for part in (HERE, chosen, labels) if part)


def kpi(metric: str, labels: str = "", *, by: str = "location", window: str = "$window") -> str:
    """Return a KPI of the chosen locations, one series for each value of `by`.

    A copy that has just lost the lead may still be scraped: the larger value of the two is taken.
    """
    return f"max by ({by}) (ghl_{metric}{{{_inside(labels, window)}}})"


def over_time(
    metric: str,
    labels: str = "",
    *,
    by: str = "location",
    window: str = "$window",
    offset: str = "",
) -> str:
    """Return a KPI for a graph of weeks: its last value in each step, whatever the step is."""
    inside = _inside(labels, window)
    return f"max by ({by}) (last_over_time(ghl_{metric}{{{inside}}}[$__interval]{offset}))"


def named(expression: str) -> str:
    """Add the location's name as a label.

    For a day after it was renamed it has two: one of them is taken, or the graph would fail.
    """
    names = (
        "topk by (location) (1, max by (location, name) (last_over_time(ghl_location_info[1d])))"
    )
    return f"{expression}\n  * on (location) group_left (name)\n{names}"


def change(figure: str) -> str:
    """Return the change of a figure against the window of the same length just before."""
    return (
        "max by (location) (job_location:ghl_figure:change_ratio"
        f'{{figure="{figure}",{HERE},window="$window"}})'
    )


def usual(name: str) -> str:
    """Return what is usual for a figure at each moment: the median of the weeks before.

    As `recording_rules` has it for the alerts, but for any moment of the graph.
    """
    figure = next(figure for figure in FIGURES if figure.name == name)
    metric = figure.metric.removeprefix("ghl_")
    past = "\n  or\n".join(
        f"label_replace({over_time(metric, figure.labels, window=BASELINE_WINDOW, offset=offset)}, "
        f'"week", "{week}", "", "")'
        for week in BASELINE_WEEKS
        for offset in [f" offset {week}w"]
    )
    known = f"count by (location) ({past}) >= {LEAST_WEEKS}"
    return f"quantile by (location) (0.5, {past})\n  and\n{known}"


def numbered(queries: Iterable[tuple[str, str]], ask: Callable[..., Target]) -> list[Target]:
    """Return queries, each an expression and its legend, with the names A, B, C ..."""
    return [
        ask(expr, legend, chr(ord("A") + index)) for index, (expr, legend) in enumerate(queries)
    ]


def graph(expr: str, legend: str = "", ref: str = "A", *, interval: str = "") -> Target:
    """Return a query over the board's time range."""
    return Target(expr=expr, legendFormat=legend, refId=ref, interval=interval)


def now(expr: str, legend: str = "", ref: str = "A") -> Target:
    """Return a query for the end of the board's time range alone."""
    return Target(expr=expr, legendFormat=legend, refId=ref, instant=True)


def rows(expr: str, ref: str = "A") -> Target:
    """Return a query for rows of a table: labels and a value."""
    return Target(expr=expr, refId=ref, instant=True, format="table")
