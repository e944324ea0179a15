"""The oracle's agents: who did what in a window, and the productivity score."""

from fractions import Fraction
from statistics import fmean
from typing import TYPE_CHECKING

from tests.oracle_events import text
from tests.oracle_values import InWindow, Values, quantile, ratio

if TYPE_CHECKING:
    from tests.oracle import Facts

UNASSIGNED = "unassigned"


def agents(facts: "Facts", in_window: InWindow, before: InWindow) -> Values:
    """Return the KPIs of the agents that have series, `unassigned` beside the limit."""
    closed = [deal for deal in facts.deals if in_window(deal.at)]
    active = [event for event in facts.activities() if in_window(event.at)]
    made = {id_: e for id_, e in facts.recommendations().items() if in_window(e.at)}
    accepted = {id_ for id_, kind, _ in facts.interactions() if kind in ("liked", "scheduled")}
    answers = [
        (user, (at - facts.created[lead]).total_seconds())
        for lead, (at, user) in facts.first_answers().items()
        if in_window(at)
    ]
    owners = [
        contact.now["assignedTo"]
        for id_, contact in facts.contacts.items()
        if contact.states and in_window(facts.created.get(id_))
    ]
    everybody = {
        *(deal.agent for deal in closed),
        *(event.says["agent_id"] for event in active),
        *(text(event.says.get("agent_id")) for event in made.values()),
        *(user for user, _ in answers),
        *owners,
    } - {None}

    def revenue(agent: str | None) -> Fraction:
        return sum((deal.value or Fraction() for deal in closed if deal.agent == agent), Fraction())

    ranked = sorted(
        (agent for agent in everybody if agent), key=lambda a: (-revenue(a), a.encode())
    )
    result: Values = {}
    for agent in ranked[: facts.options.agent_series_limit]:
        deals = [deal for deal in closed if deal.agent == agent]
        with_value = len([deal for deal in deals if deal.value is not None])
        leads = owners.count(agent)
        theirs = [event.says for event in active if event.says["agent_id"] == agent]
        with_ai = len([says for says in theirs if says.get("ai_recommendation_used") is True])
        told = [says.get("response_time_minutes") for says in theirs]
        waits = [wait for user, wait in answers if user == agent]
        waits += [minutes * 60 for minutes in told if minutes is not None]
        matches = [id_ for id_, event in made.items() if event.says.get("agent_id") == agent]
        earlier = len([d for d in facts.deals if d.agent == agent and before(d.at)])
        change = ratio(len(deals), earlier)
        values: Values = {
            "deals_closed": len(deals),
            "revenue": float(revenue(agent)),
            "average_deal_size": ratio(revenue(agent), with_value),
            "leads_assigned": leads,
            "conversion_ratio": ratio(len(deals), leads),
            "first_response_seconds,median": quantile(waits, 0.5),
            "first_response_seconds,mean": fmean(waits) if waits else None,
            "ai_usage_ratio": ratio(with_ai, len(theirs)),
            "match_effectiveness_ratio": ratio(len(accepted & set(matches)), len(matches)),
            "deals_change_ratio": None if change is None else change - 1,
        }
        values["productivity_score"] = score(values)
        for name, value in values.items():
            metric, _, statistic = name.partition(",")
            more = f',statistic="{statistic}"' if statistic else ""
            result[f'ghl_agent_{metric}{{agent="{agent}"{more}}}'] = value
    nobodys = [deal for deal in closed if deal.agent is None]
    if nobodys:
        with_value = len([deal for deal in nobodys if deal.value is not None])
        labels = f'{{agent="{UNASSIGNED}"}}'
        result[f"ghl_agent_deals_closed{labels}"] = len(nobodys)
        result[f"ghl_agent_revenue{labels}"] = float(revenue(None))
        result[f"ghl_agent_average_deal_size{labels}"] = ratio(revenue(None), with_value)
    return result


def score(values: Values) -> float | None:
    conversion, size = values["conversion_ratio"], values["average_deal_size"]
    response, usage = values["first_response_seconds,median"], values["ai_usage_ratio"]
    parts = [
        (40, None if conversion is None else min(conversion / 0.20, 1.0)),
        (25, None if size is None else min(size / 500_000, 1.0)),
        (20, None if response is None else max(1 - response / 3600, 0.0)),
        (15, usage),
    ]
    known = [(weight, share) for weight, share in parts if share is not None]
    if len(known) < 2:
        return None
    return 100 * sum(weight * share for weight, share in known) / sum(weight for weight, _ in known)
