"""What a KPI was computed from: its figure, and a page of one of its lists."""

from datetime import date, datetime
from typing import Any

from exporter.api.parameters import ExplainQuery
from exporter.database.connect import Connection
from exporter.kpis.definitions import KpiFile, Metric
from exporter.kpis.figures import compute_figures, number
from exporter.kpis.lists import ListQuery, all_lists
from exporter.kpis.windows import Window
from exporter.settings import Settings


async def explanation(
    connection: Connection,
    kpi: KpiFile,
    metric: Metric,
    name: str,
    query: ExplainQuery,
    window: Window,
    settings: Settings,
    now: datetime,
    complete: bool,
) -> dict[str, Any]:
    """Return the answer of explain, without its period. Raises what asyncpg raises."""
    every = await compute_figures(
        connection, [kpi], [window], settings=settings, now=now, complete=complete
    )
    found = every[window.name]
    figure: Any = found.values.get(metric.name)
    if kpi.ranked:
        figure = [
            {"agent": row["agent"], "value": row[metric.name]}
            for row in found.agents
            if query.agent in (None, row["agent"])
        ]
    chosen = all_lists()[name]
    wanted = ListQuery(chosen, window, query.labels, settings, now)
    page = await wanted.page(connection, query.page_size, (query.page - 1) * query.page_size)
    return {
        "kpi": metric.name,
        "help": metric.help,
        "unit": metric.unit,
        "figure": figure,
        "lists": list(metric.explain),
        "list": name,
        "list_help": chosen.help,
        "total": page.total,
        "page": query.page,
        "page_size": query.page_size,
        "columns": page.columns,
        "items": [{key: plain_value(value) for key, value in row.items()} for row in page.rows],
    }


def plain_value(value: Any) -> Any:
    """Return a column's value as JSON holds it; numeric ones are decimal numbers before."""
    return value if isinstance(value, str | date) else number(value)
