"""The figures of windows, for whoever asks: nested by label instead of rendered as samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from exporter.database.connect import Connection
from exporter.domain.stages import STAGES
from exporter.kpis.definitions import KpiFile
from exporter.kpis.refresh import query_kpi
from exporter.kpis.windows import Window, today
from exporter.settings import Settings

Figure = float | dict[str, Any] | None


@dataclass
class Figures:
    """One window's figures.

    `values`: by metric, a number, None, or an object by the values of a label (of two labels: an
    object of objects). `agents`: a row for each agent, best first, with metrics by name.
    """

    values: dict[str, Figure] = field(default_factory=dict)
    agents: list[dict[str, Any]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


async def compute_figures(
    connection: Connection,
    kpis: Iterable[KpiFile],
    chosen: Sequence[Window],
    *,
    settings: Settings,
    now: datetime,
    complete: bool,
) -> dict[str, Figures]:
    """Compute KPIs for windows of one location; return them by the windows' names.

    A KPI of now alone is None for a window that ended before today, and the grade where the facts
    are not of the whole history (`complete`). Raises what asyncpg raises.
    """
    found = {window.name: Figures() for window in chosen}
    past = {
        window.name
        for window in chosen
        if window.last_day < today(settings, window.location_id, now)
    }
    for kpi in kpis:
        labels = [name for name in kpi.labels if name not in ("location", "window")]
        for figures in found.values():
            for metric in kpi.metric:
                if not kpi.ranked:
                    figures.values[metric.name] = {} if labels or metric.label else None
        if kpi.is_grade and not complete:
            continue
        timeout = min(kpi.timeout or settings.kpi_timeout, settings.kpi_timeout)
        rows = await query_kpi(
            connection, kpi, list(chosen), settings=settings, now=now, timeout=timeout
        )
        for row in rows:
            # What holds for now is the same in every window.
            named = [row["window"]] if "window" in kpi.labels else list(found)
            if kpi.current:
                named = [name for name in named if name not in past]
            for name in named:
                if kpi.ranked:
                    found[name].agents.append(_agent(kpi, row))
                else:
                    _nest(found[name].values, kpi, labels, row)
    for figures in found.values():
        figures.agents.sort(key=_by_rank)
        figures.values = {name: _ordered(figure) for name, figure in figures.values.items()}
    return found


def _ordered(figure: Figure) -> Figure:
    """Put label values in an order: stages as they follow, numbers by size, others by name."""
    if not isinstance(figure, dict):
        return figure
    return {key: _ordered(figure[key]) for key in sorted(figure, key=_by_label)}


def _by_label(value: str) -> tuple[int, int, str]:
    stage = STAGES.index(value) if value in STAGES else -1
    return stage, int(value) if value.isdecimal() else 0, value


def _by_rank(row: dict[str, Any]) -> tuple[bool, int]:
    # Rank 0 is beside the leaderboard: behind it.
    return row["rank"] == 0, row["rank"]


def number(value: Any) -> float | int | None:
    """Return a value of a query as JSON holds it."""
    if value is None or isinstance(value, int | float):
        return value
    whole = float(value)
    return int(whole) if whole.is_integer() and abs(whole) < 2**53 else whole


def _agent(kpi: KpiFile, row: asyncpg.Record) -> dict[str, Any]:
    told: dict[str, Any] = {"agent": row["agent"], "rank": row["rank"]}
    for metric in kpi.metric:
        if metric.label is None:
            told[metric.name] = number(row[metric.name])
        else:
            told[metric.name] = {key: number(row[at]) for key, at in metric.columns.items()}
    return told


def _nest(
    values: dict[str, Figure], kpi: KpiFile, labels: Sequence[str], row: asyncpg.Record
) -> None:
    for metric in kpi.metric:
        if metric.label is None:
            figure: Figure = number(row[metric.name])
        else:
            figure = {key: number(row[at]) for key, at in metric.columns.items()}
        if not labels:
            values[metric.name] = figure
            continue
        place: Any = values[metric.name]
        for name in labels[:-1]:
            place = place.setdefault(row[name], {})
        place[row[labels[-1]]] = figure
