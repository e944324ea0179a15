"""The dashboard's answer: each field says the KPI it shows; rates are in percent."""

from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from typing import Any

from pydantic import BaseModel, Field

from exporter.api.responses import Period
from exporter.kpis.definitions import Metric, answered_kpis
from exporter.kpis.figures import Figures

Value = float | None
ByLabel = dict[str, float | None]


@cache
def _metrics() -> dict[str, Metric]:
    return {metric.name: metric for kpi in answered_kpis() for metric in kpi.metric}


def _kpi(name: str, *path: str) -> Any:
    """Make a field that shows a KPI, or the part of it that label values lead to."""
    metric = _metrics()[name]
    percent = " In percent." if metric.unit == "ratio" else ""
    of = f" ({', '.join(path)})" if path else ""
    return Field(
        description=f"`{name}`{of}: {metric.help}{percent}",
        json_schema_extra={"x-kpi": name, "x-labels": list(path)},
    )


class Summary(BaseModel):
    """The figures that people ask for first."""

    total_revenue: Value = _kpi("ghl_revenue")
    leads_created: Value = _kpi("ghl_leads_created")
    deals_closed: Value = _kpi("ghl_deals_closed")
    conversion_rate: Value = _kpi("ghl_lead_conversion_ratio", "period")
    revenue_per_lead: Value = _kpi("ghl_revenue_per_lead")
    average_deal_size: Value = _kpi("ghl_average_deal_size")
    recommendation_acceptance_rate: Value = _kpi("ghl_recommendation_acceptance_ratio")
    webhook_success_rate: Value = _kpi("ghl_webhook_success_ratio", "receiver")


class Integration(BaseModel):
    """How well GHL and the platform work together."""

    webhooks_processed: dict[str, ByLabel] = _kpi("ghl_webhooks_processed")
    webhook_success_rate: ByLabel = _kpi("ghl_webhook_success_ratio")
    contact_enrichment_rate: Value = _kpi("ghl_contact_enrichment_ratio")
    ai_activation_rate: Value = _kpi("ghl_ai_activation_ratio")


class BusinessImpact(BaseModel):
    """Revenue, conversion and speed."""

    total_revenue: Value = _kpi("ghl_revenue")
    attributed_revenue: ByLabel = _kpi("ghl_attributed_revenue")
    revenue_per_lead: Value = _kpi("ghl_revenue_per_lead")
    average_deal_size: Value = _kpi("ghl_average_deal_size")
    conversion_rate: ByLabel = _kpi("ghl_lead_conversion_ratio")
    win_rate: Value = _kpi("ghl_win_ratio")
    appointment_no_show_rate: Value = _kpi("ghl_appointment_no_show_ratio")
    time_to_conversion_seconds: ByLabel = _kpi("ghl_time_to_conversion_seconds")
    first_response_seconds: ByLabel = _kpi("ghl_first_response_seconds")
    first_response_within_rate: ByLabel = _kpi("ghl_first_response_within_ratio")
    never_answered_rate: Value = _kpi("ghl_leads_never_answered_ratio")
    stage_contacts: ByLabel = _kpi("ghl_stage_contacts")
    stage_conversion_rate: ByLabel = _kpi("ghl_stage_conversion_ratio")
    ai_score_correlation: Value = _kpi("ghl_ai_score_correlation")
    ai_score_auc: Value = _kpi("ghl_ai_score_auc")
    open_opportunities: Value = _kpi("ghl_open_opportunities")
    open_pipeline_value: Value = _kpi("ghl_open_pipeline_value")


class PropertyMatching(BaseModel):
    """What became of the properties that were recommended."""

    recommendations_made: Value = _kpi("ghl_recommendations_made")
    acceptance_rate: Value = _kpi("ghl_recommendation_acceptance_ratio")
    match_to_showing_rate: Value = _kpi("ghl_match_to_showing_ratio")
    showing_to_offer_rate: Value = _kpi("ghl_showing_to_offer_ratio")
    confidence_correlation: Value = _kpi("ghl_recommendation_confidence_correlation")
    interactions: ByLabel = _kpi("ghl_property_interactions")


class Agent(BaseModel):
    """One agent of the leaderboard."""

    agent_id: str
    name: str | None = Field(description="As GHL has told it.")
    deals_closed: Value = _kpi("ghl_agent_deals_closed")
    revenue: Value = _kpi("ghl_agent_revenue")
    average_deal_size: Value = _kpi("ghl_agent_average_deal_size")
    leads_assigned: Value = _kpi("ghl_agent_leads_assigned")
    conversion_rate: Value = _kpi("ghl_agent_conversion_ratio")
    first_response_seconds: ByLabel = _kpi("ghl_agent_first_response_seconds")
    ai_usage_rate: Value = _kpi("ghl_agent_ai_usage_ratio")
    match_effectiveness_rate: Value = _kpi("ghl_agent_match_effectiveness_ratio")
    productivity_score: Value = _kpi("ghl_agent_productivity_score")
    deals_change_rate: Value = _kpi("ghl_agent_deals_change_ratio")


class Grade(BaseModel):
    """The performance grade."""

    grade: str | None = Field(
        description="A+ to F; null where too little is known (`GRADE_COVERAGE`)."
    )
    score: Value = _kpi("ghl_performance_score_ratio")
    coverage: Value = _kpi("ghl_performance_score_coverage_ratio")
    parts: ByLabel = _kpi("ghl_performance_part_ratio")


class Point(BaseModel):
    """One day of a series."""

    day: date
    value: Value


class Trend(BaseModel):
    """How a figure went."""

    previous: Value = Field(description="The figure in as many days before the period.")
    change_rate: Value = Field(description="Against `previous`, in percent of it.")
    series: list[Point] = Field(description="The figure of each day of the period, alone.")


class Dashboard(Period):
    """Everything that executives look at, of one location and period. Rates are in percent."""

    summary: Summary
    ghl_integration: Integration
    business_impact: BusinessImpact
    property_matching: PropertyMatching
    top_agents: list[Agent]
    performance_grade: Grade
    trends: dict[str, Trend] | None = Field(
        None, description="By section and figure: `business_impact.win_rate`, say."
    )


SECTIONS: dict[str, type[BaseModel]] = {
    "summary": Summary,
    "ghl_integration": Integration,
    "business_impact": BusinessImpact,
    "property_matching": PropertyMatching,
    "performance_grade": Grade,
}


def _percent(figure: Any) -> Any:
    if isinstance(figure, dict):
        return {key: _percent(value) for key, value in figure.items()}
    # The digits that a hundredfold adds at the far end are none.
    return None if figure is None else round(figure * 100, 10)


def _shown(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's fields, each from the KPI that it shows."""
    shown = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if not isinstance(extra, dict):
            continue
        kpi = str(extra["x-kpi"])
        figure: Any = values[kpi]
        for label in extra["x-labels"]:  # type: ignore[union-attr]
            figure = figure.get(label) if figure else None
        shown[name] = _percent(figure) if _metrics()[kpi].unit == "ratio" else figure
    return shown


def grade_held(figures: Figures) -> str | None:
    """Return the letter of the grade that is held, or None."""
    held = figures["ghl_performance_grade"] or {}
    return next((letter for letter, is_held in held.items() if is_held), None)


def sections(figures: Figures) -> dict[str, dict[str, Any]]:
    """Return the sections of a window's figures."""
    shown = {name: _shown(model, figures.values) for name, model in SECTIONS.items()}
    shown["performance_grade"] = {"grade": grade_held(figures), **shown["performance_grade"]}
    return shown


def top_agents(figures: Figures, names: Mapping[str, str], most: int) -> list[dict[str, Any]]:
    """Return the best agents; deals of nobody are no agent's."""
    ranked = [row for row in figures.agents if row["rank"]]
    return [
        {"agent_id": row["agent"], "name": names.get(row["agent"]), **_shown(Agent, row)}
        for row in ranked[:most]
    ]


def leaves(shown: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float | None]]:
    """Yield every number of nested figures, by its path."""
    for name, value in shown.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float):
            yield f"{prefix}{name}", value


def trends(
    current: Figures, previous: Figures, days: Mapping[date, Figures]
) -> dict[str, dict[str, Any]]:
    """Return each figure's daily series, and its change against the period before."""
    before = dict(leaves(sections(previous)))
    daily = {day: dict(leaves(sections(figures))) for day, figures in days.items()}
    found = {}
    for path, value in leaves(sections(current)):
        was = before.get(path)
        change = (value - was) / abs(was) if was and value is not None else None
        found[path] = {
            "previous": was,
            "change_rate": _percent(change),
            "series": [{"day": day, "value": at.get(path)} for day, at in daily.items()],
        }
    return found
