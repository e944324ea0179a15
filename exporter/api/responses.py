"""The answers of the KPI endpoints and of explain: their models are made from the KPI files."""

from datetime import date, datetime
from functools import cache
from typing import Any

from pydantic import BaseModel, Field, create_model

from exporter.kpis.definitions import KpiFile, Metric, answered_kpis

Number = float | None


class Period(BaseModel):
    """The window that an answer is of."""

    location_id: str
    period_days: int
    first_day: date
    last_day: date
    time_zone: str
    generated_at: datetime
    history_complete: bool = Field(
        description="Whether figures are of the whole history. Where they are not (events wait, an"
        " import has not come to its end, a rebuild is due) none is final, and there is no grade."
    )


class Explanation(Period):
    """A KPI, and a page of a list that it was computed from."""

    kpi: str
    help: str
    unit: str
    figure: float | dict[str, Any] | list[dict[str, Any]] | None = Field(
        description="The KPI itself; of an agents' KPI, a row for each agent."
    )
    lists: list[str] = Field(description="The lists that the KPI was computed from.")
    list_help: str
    total: int = Field(description="Rows of the whole list.")
    page: int
    page_size: int
    columns: list[str]
    items: list[dict[str, Any]]
    list: str = Field(description="The one that is shown.")


class Health(BaseModel):
    """How the copy that answers is."""

    status: str = Field(description="`ok`, or `degraded` with what is wrong in `problems`.")
    problems: list[str]
    leader: bool = Field(description="Whether this copy projects events and publishes KPIs.")
    database_up: bool
    redis_up: bool | None = Field(description="null where Redis is not set up.")
    spooled_events: int
    events_waiting: int | None = Field(description="null where another copy knows.")
    kpis_refreshed_at: datetime | None


# The endpoints, by what their KPI files name, and what each is about.
ENDPOINTS = {
    "webhook-performance": "How many webhooks succeeded, and what the platform made of them.",
    "revenue-metrics": "Leads, deals, revenue, conversion, stages, attribution, the open pipeline.",
    "agent-performance": "Speed to lead, and each agent's figures, best by revenue first.",
    "property-matching": "Recommendations and what became of them.",
    "performance-grade": "The performance grade, its score, its parts and their coverage.",
}


@cache
def files_of(endpoint: str) -> tuple[KpiFile, ...]:
    """Return the KPI files that an endpoint answers."""
    return tuple(kpi for kpi in answered_kpis() if kpi.endpoint == endpoint)


def _kind(kpi: KpiFile, metric: Metric) -> Any:
    kind: Any = Number
    depth = len(set(kpi.labels) - {"location", "window", "agent"}) + bool(metric.label)
    for _ in range(depth):
        kind = dict[str, kind]
    return kind


def _figures_model(title: str, files: list[KpiFile], more: dict[str, Any]) -> type[BaseModel]:
    fields = {
        metric.name: (_kind(kpi, metric), Field(description=metric.help))
        for kpi in files
        for metric in kpi.metric
    }
    made: type[BaseModel] = create_model(title, **more, **fields)  # type: ignore[call-overload]
    return made


@cache
def kpi_model(endpoint: str) -> type[BaseModel]:
    """Make the model of an endpoint's answer."""
    title = "".join(part.capitalize() for part in endpoint.split("-"))
    plain = [kpi for kpi in files_of(endpoint) if not kpi.ranked]
    ranked = [kpi for kpi in files_of(endpoint) if kpi.ranked]
    fields: dict[str, Any] = {"figures": (_figures_model(f"{title}Figures", plain, {}), ...)}
    if ranked:
        agent = _figures_model(
            "AgentFigures",
            ranked,
            {"agent": (str, ...), "rank": (int, ...), "name": (str | None, ...)},
        )
        fields["agents"] = (list[agent], ...)  # type: ignore[valid-type]
    made: type[BaseModel] = create_model(title, __base__=Period, **fields)
    made.__doc__ = ENDPOINTS[endpoint]
    return made


@cache
def metric_of(name: str) -> tuple[KpiFile, Metric] | None:
    """Return a metric and its file, or None where there is no such KPI."""
    for kpi in answered_kpis():
        for metric in kpi.metric:
            if metric.name == name:
                return kpi, metric
    return None
