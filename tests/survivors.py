"""Mutants of rules that no case can tell from the rule, or need not: which they are, and why."""

import re
from dataclasses import dataclass

_RATIO = r"job(_location)?:slo_bad_events:ratio_increase\w+\{.*\}"


@dataclass(frozen=True)
class Survivors:
    """Mutants of one kind: patterns of the rule's whole name, and of the start of the change."""

    rule: str
    change: str
    why: str

    def explain(self, rule: str, change: str) -> bool:
        """Whether a mutant is one of them."""
        return bool(re.fullmatch(self.rule, rule) and re.match(self.change, change))


EXPLAINED = (
    Survivors(
        "GhlExporterNoLeader",
        r"sum by \(job\) \(.*\) → max by \(job\) ",
        "A copy shows 0 or 1: their largest is 0 where their sum is.",
    ),
    Survivors(
        "GhlExporterKpiRowsDropped|GhlExporterLabelsCut|GhlWebhooksSilent|GhlLocationSilent",
        r"sum by \(job(, \w+)?\) \(increase\([^)]+\[\d+h\]\)\) → max by ",
        "Whether it is above 0 is all that is asked, and an increase is never below.",
    ),
    Survivors(
        "GhlExporterKpiRowsDropped|GhlExporterLabelsCut|GhlWebhooksSilent|GhlLocationSilent",
        r"increase\([^)]+\[\d+h\]\) → rate\(",
        "Whether it is above 0 is all that is asked, and a rate is where the increase is.",
    ),
    Survivors(
        r"job_location_agent:ghl_agent_(revenue|deals_closed):delta7d\{\}",
        r"max by \(job, location, agent\) .* → min by ",
        "Multiplied by 0 it is 0, whichever of the copies it is of.",
    ),
    Survivors(
        r"job_location_agent:ghl_agent_(revenue|deals_closed):delta7d\{\}",
        r'ghl_agent_\w+\{window="7d"\}( offset 1w)? → ghl_agent_\w+\{\}',
        "As the 0 of one side it needs the other side, which is there for the same week only.",
    ),
    Survivors("Watchdog", "1 → ", "It fires whatever its value is, and shows none."),
    Survivors(
        "Ghl(Availability|WebhookSuccess|WebhookLatency|KpiFreshness)Burns(Fast|Slowly)",
        r'job:slo_bad_events:\w+\{slo="[a-z-]+"\} → job:slo_bad_events:\w+\{\}$',
        "`and` compares the label slo, which the other two of the three still name.",
    ),
    Survivors(
        f"{_RATIO}|job:slo_budget_lasts:seconds\\{{.*\\}}",
        r'[\w:]+\{slo="[a-z-]+"\} → [\w:]+\{\}$',
        "The division compares the label slo, which its other side still names.",
    ),
    Survivors(
        r'job:slo_bad_events:ratio_increase(5m|30m|1h|2h|6h)\{slo="availability"\}',
        r"job:slo_events:increase\w+\{.*\} > 0 → .* >= ",
        "A count of looks is 1 at least where there is one.",
    ),
    Survivors(
        r"job:ghl_exporter_\w+:p95_rate5m\{\}",
        r"rate\(.*\) → increase\(",
        "A quantile follows from the proportions of the buckets.",
    ),
    Survivors(
        r"job:ghl_exporter_kpis(_stale)?:count\{\}",
        r"(count|sum) by \(job\) .* → (count|sum) by \(job, instance\) ",
        "What is counted is one for all copies, and has no such label.",
    ),
    Survivors(
        r"job:ghl_exporter_kpis:count\{\}",
        r"max(_over_time\(| by ).* → min(_over_time\(| by )",
        "KPIs are counted, whatever the times of their success.",
    ),
    Survivors(
        r"job:ghl_exporter_kpis_stale:count\{\}",
        r"ghl_exporter_kpi_\w+_seconds\[1h\] → .*\[10800s\]",
        "The counting ends with the shorter of the two windows, so one of them may be longer.",
    ),
    Survivors(
        r"job_location:ghl_figure:baseline\{.*\}",
        r"(quantile|count) by \(job, location\) .* → \w+ by \(job, location, instance\) ",
        "What is recorded of past weeks is one for all copies, and has no such label.",
    ),
)


def explanation(rule: str, change: str) -> Survivors | None:
    """Return why a mutant may survive; None where nothing says so."""
    return next((kind for kind in EXPLAINED if kind.explain(rule, change)), None)
