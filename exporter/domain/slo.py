"""The service level objectives, in one table: buckets, rules, alerts, boards and pages follow it.

An objective counts events: the share that was good, of all there were. Its SLI is written as two
PromQL expressions that count events in a window, all of them and the bad ones; `{window}` stands
for the window. Whatever divides, divides these counts, so an hour without events weighs nothing.
"""

from dataclasses import dataclass

SERVICE = "ghl-exporter"
# Seconds within which a webhook is to be answered. A bound of the histogram, exactly.
ANSWER_WITHIN_SECONDS = 1.0
# A KPI is fresh until its last success is this many refresh intervals and seconds ago.
FRESH_INTERVALS, FRESH_SLACK_SECONDS = 2, 30
# The budget is for this long.
BUDGET_DAYS = 30
# Fewer bad events than this in an alert's long window alert nobody: at a few webhooks an hour one
# failure would. A guard on traffic instead would hide an outage.
LEAST_BAD_EVENTS = 5


@dataclass(frozen=True)
class Slo:
    """One objective.

    `objective`: the share of good events that is promised over `BUDGET_DAYS`. `bad` and `all` are
    counts by `job` over a window; `by_location` has both by location too. `pages`: somebody is
    woken where the budget burns fast; a slow burn is a ticket always.
    """

    name: str
    title: str
    objective: float
    events: str
    bad_events: str
    bad: str
    all: str
    pages: bool
    by_location: tuple[str, str] | None = None

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.objective, 9)

    @property
    def alert(self) -> str:
        """What its alerts' names begin with."""
        return "Ghl" + "".join(part.capitalize() for part in self.name.split("-"))


_FINISHED = "increase(ghl_exporter_webhooks_finished_total[{window}])"
_FAILED = 'increase(ghl_exporter_webhooks_finished_total{{outcome!="success"}}[{window}])'
_ANSWERED = "increase(ghl_exporter_webhook_request_duration_seconds_count[{window}])"
_IN_TIME = (
    "increase(ghl_exporter_webhook_request_duration_seconds_bucket"
    f'{{{{le="{ANSWER_WITHIN_SECONDS}"}}}}[{{window}}])'
)

# 1 at each evaluation that finds no copy up, or no target where there was one within a day; 0 at
# the others. Webhooks that reach nobody are counted by nobody: an outage shows in the time that
# passes. A Prometheus that has not scraped yet knows of no target either, and that is no outage.
DOWN = "job:ghl_exporter_down:min"
NO_COPY_UP = (
    f'max by (job) (up{{job="{SERVICE}"}}) == bool 0\n'
    "  or\n"
    f'(absent(up{{job="{SERVICE}"}}) and on (job) last_over_time({DOWN}[1d]))'
)

SLOS = (
    Slo(
        name="availability",
        title="A copy of the service is up",
        objective=0.99,
        events="looks at the service",
        bad_events="found no copy up",
        bad=f"sum_over_time({DOWN}[{{window}}])",
        all=f"count_over_time({DOWN}[{{window}}])",
        pages=True,
    ),
    Slo(
        name="webhook-success",
        title="Webhooks succeed",
        objective=0.99,
        events="webhooks",
        bad_events="were refused or quarantined",
        bad=f"sum by (job) ({_FAILED})",
        all=f"sum by (job) ({_FINISHED})",
        pages=True,
        by_location=(
            f"sum by (job, location) ({_FAILED})",
            f"sum by (job, location) ({_FINISHED})",
        ),
    ),
    Slo(
        name="webhook-latency",
        title=f"Webhooks are answered within {ANSWER_WITHIN_SECONDS:g} s",
        objective=0.95,
        events="webhooks",
        bad_events=f"took longer than {ANSWER_WITHIN_SECONDS:g} s",
        bad=f"clamp_min(sum by (job) ({_ANSWERED}) - sum by (job) ({_IN_TIME}), 0)",
        all=f"sum by (job) ({_ANSWERED})",
        pages=True,
    ),
    Slo(
        name="kpi-freshness",
        title="KPIs are fresh",
        objective=0.99,
        events="looks at a KPI",
        bad_events="found it stale",
        bad="sum_over_time(job:ghl_exporter_kpis_stale:count[{window}])",
        all="sum_over_time(job:ghl_exporter_kpis:count[{window}])",
        pages=False,
    ),
)

# Windows of the SLIs. The long ones are summed up from counts of `TILE`: the raw counters of a
# month are too many samples where there are many locations.
TILE = "5m"
SHORT_WINDOWS = (TILE, "30m", "1h", "2h", "6h")
LONG_WINDOWS = ("1d", "3d", "30d")
LOCATION_WINDOWS = ("1d", "30d")


@dataclass(frozen=True)
class Burn:
    """Alert where both windows burn the budget `factor` times as fast as it would last."""

    long: str
    short: str
    factor: float


# By severity. The long window alone uses up 2 % or 5 % of the budget (page), 10 % (ticket).
BURNS = {
    "page": (Burn("1h", "5m", 14.4), Burn("6h", "30m", 6)),
    "ticket": (Burn("1d", "2h", 3), Burn("3d", "6h", 1)),
}


def bad_ratio(slo: Slo, window: str) -> str:
    """Return the recorded share of bad events in a window, as PromQL."""
    return f'job:slo_bad_events:ratio_increase{window}{{slo="{slo.name}"}}'


def bad_count(slo: Slo, window: str) -> str:
    """Return the recorded count of bad events in a window, as PromQL."""
    return f'job:slo_bad_events:increase{window}{{slo="{slo.name}"}}'


def budget_left(slo: Slo) -> str:
    """Return the recorded share of the budget that is left; below 0 where it is overspent."""
    return f'job:slo_budget_left:ratio{{slo="{slo.name}"}}'


def budget_lasts(slo: Slo) -> str:
    """Return the recorded seconds until the budget is used up at the pace of the last 6 hours."""
    return f'job:slo_budget_lasts:seconds{{slo="{slo.name}"}}'
