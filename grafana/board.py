"""A board: panels in rows, the variables and links that all boards share, and a clean-up pass."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafanalib._gen import DashboardEncoder
from grafanalib.core import Annotations, Dashboard, GridPos, RowPanel, Template, Templating, Time

from exporter.domain.slo import SERVICE
from exporter.kpis.windows import EXPORTED_DAYS
from grafana.panels import ExactPanel
from grafana.queries import TITLED

SCHEMA_VERSION = 39
COLUMNS = 24
REFRESH = "30s"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "ghl"

# Windows by what they are called.
WINDOWS = {f"{days}d": "Today" if days == 1 else f"{days} days" for days in EXPORTED_DAYS}


@dataclass
class Line:
    """Panels side by side: their height in grid units, and each with its share of 24 columns."""

    height: int
    panels: Sequence[tuple[int, ExactPanel]]


@dataclass
class Board:
    """What makes a board."""

    uid: str
    title: str
    about: str
    lines: Sequence[Line | RowPanel]
    since: str = "now-30d"
    window: str | None = "30d"
    with_agent: bool = False
    variables: list[Template] = field(default_factory=list)


def _variables(board: Board) -> list[Template]:
    found = [
        Template(name="datasource", label="Data source", type="datasource", query="prometheus"),
        Template(
            name="location",
            label="Location",
            query=f"query_result({TITLED})",
            regex='/location="(?<value>[^"]+)".*title="(?<text>[^"]+)"/',
            multi=True,
            includeAll=True,
            refresh=2,
            sort=1,
        ),
    ]
    if board.window:
        found.append(
            Template(
                name="window",
                label="Window",
                type="custom",
                query=",".join(f"{words} : {name}" for name, words in WINDOWS.items()),
                options=[
                    {"text": words, "value": name, "selected": name == board.window}
                    for name, words in WINDOWS.items()
                ],
            )
        )
    if board.with_agent:
        found.append(
            Template(
                name="agent",
                label="Agent",
                query='query_result(max by (agent, name) (ghl_agent_info{location=~"$location"}))',
                regex='/agent="(?<value>[^"]+)".*name="(?<text>[^"]+)"/',
                refresh=2,
                sort=1,
            )
        )
    return found


def _annotations(board: Board) -> list[dict[str, Any]]:
    # Prometheus answers 11,000 points at most: boards of weeks look less closely. A restart is seen
    # where a window has samples from before and after it, so windows overlap.
    step, wider = ("15m", "30m") if board.since.endswith("d") else ("2m", "10m")
    # On weeks they would be hundreds: there they are to be turned on.
    shared = {"datasource": DATASOURCE, "enable": step == "2m", "hide": False, "step": step}
    return [
        {
            **shared,
            "name": "Alerts",
            "expr": f'ALERTS{{alertstate="firing",service="{SERVICE}",severity=~"page|ticket"}}',
            "titleFormat": "{{alertname}}",
            "textFormat": "{{severity}} {{location}} {{instance}}",
            "iconColor": "red",
        },
        {
            **shared,
            "name": "Restarts",
            "expr": f'changes(process_start_time_seconds{{job="{SERVICE}"}}[{wider}]) > 0',
            "titleFormat": "started anew",
            "textFormat": "{{instance}}",
            "iconColor": "blue",
        },
    ]


def _placed(lines: Sequence[Line | RowPanel]) -> list[Any]:
    panels: list[Any] = []
    y = 0
    for line in lines:
        if isinstance(line, RowPanel):
            line.gridPos = GridPos(h=1, w=COLUMNS, x=0, y=y)
            panels.append(line)
            y += 1
            continue
        x = 0
        for width, panel in line.panels:
            panel.gridPos = GridPos(h=line.height, w=width, x=x, y=y)
            panels.append(panel)
            x += width
        if x > COLUMNS:
            raise ValueError(f"{x} columns in a line of {COLUMNS}")
        y += line.height
    for number, panel in enumerate(panels, 1):
        panel.id = number
        panel.dataSource = DATASOURCE
        for target in panel.targets:
            target.datasource = DATASOURCE
    return panels


def dashboard(board: Board) -> dict[str, Any]:
    """Return a board as Grafana reads it."""
    made = Dashboard(
        title=board.title,
        uid=board.uid,
        description=board.about,
        tags=[TAG],
        time=Time(board.since, "now"),
        refresh=REFRESH,
        timezone="browser",
        schemaVersion=SCHEMA_VERSION,
        graphTooltip=1,
        panels=_placed(board.lines),
        templating=Templating(list=_variables(board) + board.variables),
        annotations=Annotations(list=_annotations(board)),
        links=[
            {
                "type": "dashboards",
                "title": "Boards",
                "icon": "dashboard",
                "tags": [TAG],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "",
                "url": "",
            }
        ],
    )
    return _clean(json.loads(json.dumps(made.to_json_data(), cls=DashboardEncoder)))


# Keys of old Grafanas, which new ones would migrate by.
_LEGACY_BOARD = ("__inputs", "gnetId", "hideControls", "id", "rows", "sharedCrosshair", "style")
_LEGACY_TARGET = ("query", "target", "metric", "step", "intervalFactor")
_LEGACY_ROW = (
    *("cacheTimeout", "editable", "error", "height", "hideTimeOverride", "minSpan", "span"),
    *("fieldConfig", "targets", "interval", "maxDataPoints", "links", "timeFrom", "timeShift"),
    *("transparent", "transformations", "description", "datasource", "maxPerRow"),
)
_LEGACY_VARIABLE = ("useTags", "tagsQuery", "tagValuesQuery", "auto", "auto_min", "auto_count")


def _without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {
        name: value
        for name, value in found.items()
        if name not in names and value not in (None, "", [])
    }


def _clean(found: dict[str, Any]) -> dict[str, Any]:
    """Take out what is empty or of old Grafanas, and put what grafanalib has no word for."""
    found = {key: value for key, value in found.items() if key not in _LEGACY_BOARD}
    found["panels"] = [_clean_panel(panel) for panel in found["panels"]]
    found["templating"]["list"] = [_clean_variable(one) for one in found["templating"]["list"]]
    found["timepicker"] = {}
    return found


def _clean_panel(panel: dict[str, Any]) -> dict[str, Any]:
    if panel["type"] == "row":
        return {"panels": [], **_without(panel, *_LEGACY_ROW)}
    cleaned = {"title": "", **_without(panel)}
    if not panel["transparent"]:
        del cleaned["transparent"]
    if "targets" in cleaned:
        cleaned["targets"] = [_clean_target(target) for target in panel["targets"]]
    return cleaned


def _clean_target(target: dict[str, Any]) -> dict[str, Any]:
    cleaned = _without(target, *_LEGACY_TARGET)
    cleaned["editorMode"] = "code"
    cleaned["range"] = not target["instant"]
    return cleaned


def _clean_variable(variable: dict[str, Any]) -> dict[str, Any]:
    cleaned = _without(variable, *_LEGACY_VARIABLE)
    if variable["type"] == "query":
        cleaned["datasource"] = DATASOURCE
        cleaned["definition"] = variable["query"]
        everything = {"text": "All", "value": "$__all"}
        cleaned["current"] = everything if variable["includeAll"] else {}
    elif variable["type"] == "datasource":
        cleaned["current"] = {}
    return cleaned
