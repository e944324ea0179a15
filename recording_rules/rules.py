"""Make the recording rules from the objectives and from the figures that are compared."""

from typing import Any

from exporter.domain import slo
from exporter.domain.slo import SLOS, Slo
from recording_rules.figures import (
    BASELINE,
    BASELINE_WEEKS,
    BASELINE_WINDOW,
    CHANGE,
    COMPARED_WINDOWS,
    FIGURES,
    GRADE_WINDOW,
    LEAST_WEEKS,
    LETTER,
    LETTERS,
    PAST_WEEK,
    Figure,
    final,
)

Rule = dict[str, Any]
Groups = dict[str, list[dict[str, Any]]]

_DAY = 86_400


def _rule(record: str, expr: str, **labels: str) -> Rule:
    return {"record": record, "expr": expr, "labels": {"service": slo.SERVICE, **labels}}


def _group(name: str, rules: list[Rule], interval: str | None = None) -> dict[str, Any]:
    return {"name": name, **({"interval": interval} if interval else {}), "rules": rules}


def _windows_of(objective: Slo, level: str, bad: str, all_: str) -> list[Rule]:
    """Count bad and all events in each window; a level with locations has fewer windows."""
    labels = {"slo": objective.name}
    names = {f"{level}:slo_bad_events:increase": bad, f"{level}:slo_events:increase": all_}
    short = slo.SHORT_WINDOWS if level == "job" else (slo.TILE,)
    long = slo.LONG_WINDOWS if level == "job" else slo.LOCATION_WINDOWS
    rules = []
    for name, expression in names.items():
        for window in short:
            rules.append(_rule(f"{name}{window}", expression.format(window=window), **labels))
        tile = f'{name}{slo.TILE}{{slo="{objective.name}"}}'
        for window in long:
            tiled = f"sum_over_time({tile}[{window}:{slo.TILE}])"
            rules.append(_rule(f"{name}{window}", tiled, **labels))
    shares = (*short, *long) if level == "job" else long
    for window in shares:
        # Nothing came is no share: neither kept nor missed.
        expression = (
            f'{level}:slo_bad_events:increase{window}{{slo="{objective.name}"}}'
            f'\n  /\n({level}:slo_events:increase{window}{{slo="{objective.name}"}} > 0)'
        )
        rules.append(_rule(f"{level}:slo_bad_events:ratio_increase{window}", expression, **labels))
    return rules


def _budget(objective: Slo) -> list[Rule]:
    days = f"{slo.BUDGET_DAYS}d"
    left = f"1 - {slo.bad_ratio(objective, days)} / {objective.budget:g}"
    # A budget that burns at its own pace lasts its whole time; what is left, that share of it.
    lasts = (
        f"clamp_min({slo.budget_left(objective)}, 0) * {slo.BUDGET_DAYS * _DAY}"
        f"\n  /\n(({slo.bad_ratio(objective, '6h')} > 0) / {objective.budget:g})"
    )
    return [
        _rule("job:slo_budget_left:ratio", left, slo=objective.name),
        _rule("job:slo_budget_lasts:seconds", lasts, slo=objective.name),
    ]


def _kpi_ages() -> list[Rule]:
    """Count the KPIs, and those of them that are stale."""
    # The newest of the copies counts, for only the leader refreshes. The last hour is looked at, so
    # that KPIs grow stale too while no copy can be scraped; not longer, for a KPI that a new
    # version no longer has would be stale for as long.
    newest = (
        "max by (job, kpi) (max_over_time(ghl_exporter_kpi_last_success_timestamp_seconds[1h]))"
    )
    limit = (
        f"({slo.FRESH_INTERVALS} * max by (job) "
        f"(max_over_time(ghl_exporter_kpi_interval_seconds[1h])) + {slo.FRESH_SLACK_SECONDS})"
    )
    stale = (
        f"sum by (job) (\n  (time() - {newest})\n    > bool on (job) group_left ()\n  {limit}\n)"
    )
    return [
        _rule("job:ghl_exporter_kpis:count", f"count by (job) ({newest})"),
        _rule("job:ghl_exporter_kpis_stale:count", stale),
    ]


def slo_rules() -> Groups:
    """Return the rules of the objectives: counts, shares, budgets."""
    groups = [
        _group("ghl-down", [_rule(slo.DOWN, slo.NO_COPY_UP)]),
        _group("ghl-kpi-ages", _kpi_ages()),
    ]
    for objective in SLOS:
        rules = _windows_of(objective, "job", objective.bad, objective.all)
        groups.append(_group(f"ghl-slo-{objective.name}", [*rules, *_budget(objective)]))
        if objective.by_location:
            by_location = _windows_of(objective, "job_location", *objective.by_location)
            groups.append(_group(f"ghl-slo-{objective.name}-by-location", by_location, "1m"))
    return {"groups": groups}


def _change(figure: Figure, window: str) -> Rule:
    offset = f" offset {window}"
    now, before = figure.at(window), figure.at(window, offset)
    change = final(f"{now}\n  /\n({before} > 0)\n  - 1", "", offset)
    return _rule(CHANGE, change, figure=figure.name, window=window)


def _baseline(figure: Figure) -> list[Rule]:
    rules = [
        _rule(
            PAST_WEEK,
            final(figure.at(BASELINE_WINDOW, f" offset {week}w"), f" offset {week}w"),
            figure=figure.name,
            weeks_ago=str(week),
        )
        for week in BASELINE_WEEKS
    ]
    past = f'{PAST_WEEK}{{figure="{figure.name}"}}'
    # The median: one odd week, a holiday say, does not shift it.
    median = f"quantile by (job, location) (0.5, {past})"
    known = f"count by (job, location) ({past}) >= {LEAST_WEEKS}"
    rules.append(_rule(BASELINE, f"{median}\n  and\n({known})", figure=figure.name))
    return rules


def _letters() -> Rule:
    """Record the letter of the grade held, as its place among the letters."""
    # The worst adds nothing. The grades that are not held have series too, so it is 0 then.
    held = [
        f'{place} * max by (job, location) (ghl_performance_grade{{grade=~"{letter}.?",'
        f'window="{GRADE_WINDOW}"}})'
        for place, letter in enumerate(LETTERS)
        if place
    ]
    return _rule(LETTER, "\n  +\n".join(held))


def _agents() -> list[Rule]:
    rules = []
    for metric in ("revenue", "deals_closed", "productivity_score"):
        series = f'max by (job, location, agent) (ghl_agent_{metric}{{window="7d"}}%s)'
        now, before = series % "", series % " offset 7d"
        if metric != "productivity_score":
            # Who did nothing in a week has no series of it, and that was no revenue and no deals.
            now, before = f"({now} or 0 * {before})", f"({before} or 0 * {now})"
        rules.append(
            _rule(
                f"job_location_agent:ghl_agent_{metric}:delta7d",
                final(f"{now}\n  -\n{before}", "", " offset 7d"),
            )
        )
    return rules


def business_rules() -> Groups:
    """Return the rules of the business figures: changes, baselines, the grade's letter, agents."""
    changes = [_change(figure, window) for figure in FIGURES for window in COMPARED_WINDOWS]
    baselines = [rule for figure in FIGURES if figure.has_baseline for rule in _baseline(figure)]
    return {
        "groups": [
            _group("ghl-business-changes", changes, "1m"),
            _group("ghl-business-baselines", baselines, "1m"),
            _group("ghl-business-grade", [_letters()], "1m"),
            _group("ghl-business-agents", _agents(), "1m"),
        ]
    }


def webhook_rules() -> Groups:
    """Return the rules of the webhooks' rates and quantiles, for showing only."""
    quantile = (
        "histogram_quantile(\n  0.95,\n  sum by (job, le) (rate(ghl_exporter_{name}_bucket[5m]))\n)"
    )
    rules = [
        _rule(
            "job:ghl_exporter_webhooks:rate5m",
            "sum by (job, outcome) (rate(ghl_exporter_webhooks_total[5m]))",
        ),
        _rule(
            "job:ghl_exporter_webhooks_rejected:rate5m",
            "sum by (job, reason) (rate(ghl_exporter_webhooks_rejected_total[5m]))",
        ),
        *(
            _rule(f"job:ghl_exporter_{name}:p95_rate5m", quantile.format(name=name))
            for name in (
                "webhook_request_duration_seconds",
                "webhook_projection_delay_seconds",
            )
        ),
    ]
    return {"groups": [_group("ghl-webhooks", rules)]}
