"""PromQL that boards share: KPIs of the chosen locations and window, and what things are called."""

from grafanalib.core import Target

from recording_rules.figures import BASELINE_WEEKS, BASELINE_WINDOW, FIGURES

HERE = 'location=~"$location"'
# One title of a location: its name, and its currency where there is one.
TITLED = (
    'max by (location, title) (label_replace(label_join(ghl_location_info, "title", " · ", '
    '"name", "currency"), "title", "$1", "title", "(.+) · "))'
)
NAMES = f"max by (location, name, currency) (ghl_location_info{{{HERE}}})"
AGENT_NAMES = f"max by (location, agent, name) (ghl_agent_info{{{HERE}}})"


def _inside(labels: str, window: str) -> str:
    chosen = f'window="{window}"' if window else ""
    return ",".join(part for part in (HERE, chosen, labels) if part)


def kpi(metric: str, labels: str = "", *, by: str = "location", window: str = "$window") -> str:
    """Return a KPI of the chosen locations, one series for each value of `by`.

    A copy that has just lost the lead may still be scraped: the larger value of the two is taken.
    """
    return f"max by ({by}) (ghl_{metric}{{{_inside(labels, window)}}})"


def over_time(
    metric: str, labels: str = "", *, by: str = "location", window: str = "$window"
) -> str:
    """Return a KPI for a graph of weeks: its last value in each step, whatever the step is."""
    inside = _inside(labels, window)
    return f"max by ({by}) (last_over_time(ghl_{metric}{{{inside}}}[$__interval]))"


def named(expression: str) -> str:
    """Add the location's name as a label."""
    names = "max by (location, name) (last_over_time(ghl_location_info[1d]))"
    return f"{expression}\n  * on (location) group_left (name)\n{names}"


def named_agent(expression: str) -> str:
    """Add the agent's name as a label."""
    names = "max by (location, agent, name) (last_over_time(ghl_agent_info[1d]))"
    return f"{expression}\n  * on (location, agent) group_left (name)\n{names}"


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
    weeks = (
        over_time(figure.metric.removeprefix("ghl_"), figure.labels, window=BASELINE_WINDOW)
        for _ in BASELINE_WEEKS
    )
    past = "\n  or\n".join(
        f'label_replace({week.replace("]))", f"] offset {number}w))")}, "week", "{number}", "", "")'
        for number, week in zip(BASELINE_WEEKS, weeks, strict=True)
    )
    return f"quantile by (location) (0.5, {past})"


def graph(expr: str, legend: str = "", ref: str = "A", *, interval: str = "") -> Target:
    """Return a query over the board's time range."""
    return Target(expr=expr, legendFormat=legend, refId=ref, interval=interval)


def now(expr: str, legend: str = "", ref: str = "A") -> Target:
    """Return a query for the end of the board's time range alone."""
    return Target(expr=expr, legendFormat=legend, refId=ref, instant=True)


def rows(expr: str, ref: str = "A") -> Target:
    """Return a query for rows of a table: labels and a value."""
    return Target(expr=expr, refId=ref, instant=True, format="table")
