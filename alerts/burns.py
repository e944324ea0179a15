"""Alerts on the objectives' error budgets: one for a fast burn, one for a slow one."""

from alerts.alert import PAGE, TICKET, Alert
from exporter.domain.slo import (
    BUDGET_DAYS,
    BURNS,
    LEAST_BAD_EVENTS,
    SLOS,
    Burn,
    Slo,
    bad_count,
    bad_ratio,
)

_PACE = {PAGE: "Fast", TICKET: "Slowly"}


def _burns(slo: Slo, burn: Burn) -> str:
    """Return the condition: both windows, so that it ends soon after the burn does."""
    limit = f"({burn.factor:g} * {slo.budget:g})"
    return (
        f"(\n  {bad_ratio(slo, burn.long)} > {limit}\n"
        f"    and\n  {bad_ratio(slo, burn.short)} > {limit}\n"
        f"    and\n  {bad_count(slo, burn.long)} >= {LEAST_BAD_EVENTS}\n)"
    )


def _alert(slo: Slo, severity: str) -> Alert:
    pairs = BURNS[severity]
    windows = " or ".join(burn.long for burn in pairs)
    return Alert(
        name=f"{slo.alert}Burns{_PACE[severity]}",
        expr="\n  or\n".join(_burns(slo, burn) for burn in pairs),
        severity=severity,
        board="ghl-webhook-sla",
        summary=(
            f"{{{{ $value | humanizePercentage }}}} of {slo.events} {slo.bad_events}: the budget"
            f" of {BUDGET_DAYS} days burns {_PACE[severity].lower()}"
        ),
        description=(
            f"The objective is {slo.objective:.0%} over {BUDGET_DAYS} days. The share is that of"
            f" the last {windows}; at this pace the budget is gone within"
            f" {_gone_within(pairs)} days."
        ),
        labels={"slo": slo.name},
    )


def _gone_within(pairs: tuple[Burn, ...]) -> str:
    """Return how long a full budget lasts at the slower of the paces, in days."""
    return f"{BUDGET_DAYS / min(burn.factor for burn in pairs):g}"


BURN_ALERTS = tuple(
    _alert(slo, severity) for slo in SLOS for severity in BURNS if slo.pages or severity == TICKET
)
