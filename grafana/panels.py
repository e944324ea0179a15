"""Panels as Grafana 10 to 13 read them.

What grafanalib's own panel classes write is of another age: thresholds that never leave their base
colour, tables and heatmaps that Grafana migrates wrongly. So there is one class here that takes a
panel's type, options and fields as they are, and functions for the types that the boards use.
"""

from typing import Any, TypeAlias

import attr
from grafanalib.core import Panel, Repeat, RowPanel, Target

from grafana.fields import Json, field, in_order, override


@attr.s
class ExactPanel(Panel):  # type: ignore[misc]
    """A panel whose type, options, field defaults and overrides are written as given."""

    kind: str = attr.ib(default="")
    options: Json = attr.ib(factory=dict)
    defaults: Json = attr.ib(factory=dict)
    overrides: list[Json] = attr.ib(factory=list)

    def to_json_data(self) -> Json:
        """Return the panel; the clean-up pass takes out what is empty."""
        return {
            "id": self.id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": self.gridPos,
            "datasource": self.dataSource,
            "targets": self.targets,
            "transformations": self.transformations,
            "interval": self.interval,
            "timeFrom": self.timeFrom,
            "links": self.links,
            "transparent": self.transparent,
            "options": self.options,
            "fieldConfig": {"defaults": self.defaults, "overrides": self.overrides},
        }


# A query, or several. grafanalib tells the type checker nothing of its own classes.
Targets: TypeAlias = Any
_make: Any = ExactPanel


def _panel(
    kind: str, title: str, about: str, targets: Targets, options: Json, defaults: Json, **more: Any
) -> ExactPanel:
    listed = [targets] if isinstance(targets, Target) else list(targets)
    made: ExactPanel = _make(
        kind=kind,
        title=title,
        description=about,
        targets=listed,
        options=options,
        defaults=defaults,
        **more,
    )
    return made


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def stat(
    title: str,
    about: str,
    targets: Targets,
    look: Json,
    *,
    sparkline: bool = False,
    text: str = "auto",
    colour: str = "value",
    orientation: str = "auto",
    **more: Any,
) -> ExactPanel:
    """Return large figures."""
    options = {
        "reduceOptions": _LAST,
        "colorMode": colour,
        "graphMode": "area" if sparkline else "none",
        "textMode": text,
        "justifyMode": "center",
        "orientation": orientation,
        "wideLayout": False,
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
    }
    return _panel("stat", title, about, targets, options, look, **more)


def bars(title: str, about: str, targets: Targets, look: Json, **more: Any) -> ExactPanel:
    """Return one bar for each series, at its last value."""
    options = {
        "reduceOptions": _LAST,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
        "valueMode": "color",
        "minVizWidth": 8,
        "minVizHeight": 14,
        "namePlacement": "left",
        "sizing": "auto",
    }
    return _panel("bargauge", title, about, targets, options, look, **more)


def lines(
    title: str,
    about: str,
    targets: Targets,
    look: Json,
    *,
    stacked: bool = False,
    legend: bool = True,
    limits: bool = False,
    **more: Any,
) -> ExactPanel:
    """Return lines over time. `limits`: the thresholds are drawn as dashed lines."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 2,
        "fillOpacity": 30 if stacked else 0,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limits else "off"},
        "axisSoftMin": 0,
        **look.pop("custom", {}),
    }
    look = {**look, "custom": custom}
    # An axis has no marks between what the decimals can tell: of a share that would be 0 and 100 %.
    look.pop("decimals", None)
    # One line alone keeps its plain colour: green would say that all is well.
    if legend:
        look["color"] = {"mode": "palette-classic"}
    options = {
        "legend": {
            "showLegend": legend,
            "displayMode": "list",
            "placement": "bottom",
            "calcs": [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, about, targets, options, look, **more)


def table(
    title: str,
    about: str,
    targets: Targets,
    columns: dict[str, str],
    overrides: list[Json],
    *,
    join: str | None = "location",
    sort: str | None = None,
    ascending: bool = False,
    empty: str = "no data",
    **more: Any,
) -> ExactPanel:
    """Return a table. `columns`: the fields that are shown, in their order, and their headings.

    `join`: the label that the queries' rows have in common; None where there is one query.
    """
    keep = "|".join(name.replace("#", r"\#") for name in columns)
    transformations: list[Json] = []
    if join:
        transformations.append({"id": "joinByField", "options": {"byField": join, "mode": "outer"}})
    transformations += [
        {"id": "filterFieldsByName", "options": {"include": {"pattern": f"^({keep})$"}}},
        {
            "id": "organize",
            "options": {"indexByName": in_order(list(columns)), "renameByName": columns},
        },
    ]
    options: Json = {
        "showHeader": True,
        "cellHeight": "sm",
        "sortBy": [{"displayName": sort, "desc": not ascending}] if sort else [],
    }
    look = field("short", noValue=empty)
    look["custom"] = {
        "align": "auto",
        "cellOptions": {"type": "auto"},
        "inspect": False,
        "minWidth": 60,
    }
    look["color"] = {"mode": "thresholds"}
    return _panel(
        "table",
        title,
        about,
        targets,
        options,
        look,
        transformations=transformations,
        overrides=[*_wide(columns), *overrides],
        **more,
    )


def _wide(columns: dict[str, str]) -> list[Json]:
    """Return room for names, which are longer than figures."""
    return [
        override(heading, custom__width=width)
        for heading, width in (("Location", 160), ("Agent", 120), ("Event", 210), ("KPI", 220))
        if heading in columns.values()
    ]


def timeline(title: str, about: str, targets: Targets, look: Json, **more: Any) -> ExactPanel:
    """Return states over time, a row for each series."""
    look = {**look, "custom": {"fillOpacity": 80, "lineWidth": 0}}
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "center",
        "rowHeight": 0.8,
        "legend": {
            "showLegend": True,
            "displayMode": "list",
            "placement": "bottom",
            "calcs": [],
        },
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("state-timeline", title, about, targets, options, look, **more)


def heatmap(title: str, about: str, target: Target, unit: str, **more: Any) -> ExactPanel:
    """Return a histogram's buckets over time."""
    target.format = "heatmap"
    options = {
        "calculate": False,
        "color": {
            "mode": "scheme",
            "scheme": "Blues",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
            "fill": "dark-blue",
            "scale": "exponential",
        },
        "cellGap": 1,
        "filterValues": {"le": 1e-9},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "legend": {"show": True},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
    }
    look = {"custom": {"scaleDistribution": {"type": "linear"}}}
    return _panel("heatmap", title, about, target, options, look, **more)


def text(content: str) -> ExactPanel:
    """Return a few words between the panels, in Markdown."""
    return _panel(
        "text", "", "", [], {"mode": "markdown", "content": content}, {}, transparent=True
    )


def row(title: str, *, repeat: str | None = None) -> RowPanel:
    """Return a heading; repeated, it stands with its panels for each value of a variable."""
    return RowPanel(title=title, repeat=Repeat(variable=repeat))
