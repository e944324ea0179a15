"""Who does well, who needs help, and how one agent did."""

from grafanalib.core import Target

from grafana import targets
from grafana.board import Board, Line
from grafana.boards.state import final
from grafana.fields import (
    AGENT_OF_ROW,
    COLOURED,
    COUNT,
    GAUGE_CELL,
    HIDDEN,
    KEEP,
    LOCATION_OF_ROW,
    MONEY,
    SECONDS,
    SHARE,
    Json,
    at_least,
    at_most,
    field,
    link,
    override,
    steps,
)
from grafana.panels import ExactPanel, lines, row, stat, table
from grafana.queries import AGENT_NAMES, HERE, NAMES, graph, kpi, now, over_time, rows

_BY = "location, agent"
_SCORE = steps((None, "text"), (0, "red"), (35, "orange"), (60, "green"))
_ONE = 'agent="$agent"'
_TO_AGENT = f"/d/ghl-agents?var-agent={AGENT_OF_ROW}&var-location={LOCATION_OF_ROW}&{KEEP}"


def _key(expression: str, ref: str) -> Target:
    """Return rows with one column that holds location and agent: an agent may be in several."""
    return rows(f'label_join({expression}, "key", "/", "location", "agent")', ref)


def _leaderboard() -> ExactPanel:
    active = kpi("agent_deals_closed", by=_BY)
    queries = [
        _key(f"{active} * on (location) group_left (name, currency) {NAMES}", "A"),
        _key(f"{AGENT_NAMES} and on ({_BY}) {active}", "B"),
        *(
            _key(kpi(f"agent_{metric}", labels, by=_BY), ref)
            for metric, labels, ref in (
                ("productivity_score", "", "C"),
                ("revenue", "", "D"),
                ("conversion_ratio", "", "E"),
                ("first_response_seconds", 'statistic="median"', "F"),
                ("ai_usage_ratio", "", "G"),
                ("deals_change_ratio", "", "H"),
            )
        ),
    ]
    return table(
        "Leaderboard",
        "Every agent that did something in the window, best score first. The score has up to 40"
        f" points for conversion (target {targets.CONVERSION:.0%}), 25 for deal size (target"
        f" {targets.DEAL_SIZE:,.0f}), 20 for quick answers and 15 for use of the AI. Change: deals"
        " against the window before. Click a name to see one agent.",
        queries,
        {
            "name 2": "Agent",
            "name 1": "Location",
            "currency": "Money",
            "Value #C": "Score",
            "Value #A": "Deals",
            "Value #H": "Change",
            "Value #D": "Revenue",
            "Value #E": "Conversion",
            "Value #F": "Response",
            "Value #G": "AI use",
            "agent 1": "agent",
            "location 1": "location",
        },
        [
            override("Agent", links=link("Show this agent", _TO_AGENT)),
            *(override(name, **HIDDEN) for name in ("agent", "location")),
            override(
                "Score",
                unit="none",
                decimals=0,
                min=0,
                max=100,
                thresholds=_SCORE,
                custom__cellOptions=GAUGE_CELL,
                custom__width=170,
            ),
            override("Money", custom__width=60),
            override("Deals", unit=COUNT, decimals=0),
            override("Change", unit=SHARE, decimals=0),
            override("Revenue", unit=MONEY, decimals=1),
            override(
                "Conversion",
                unit=SHARE,
                decimals=1,
                thresholds=at_least(targets.CONVERSION),
                custom__cellOptions=COLOURED,
            ),
            override(
                "Response",
                unit=SECONDS,
                decimals=1,
                thresholds=at_most(900, targets.RESPONSE_SECONDS),
                custom__cellOptions=COLOURED,
            ),
            override("AI use", unit=SHARE, decimals=0),
        ],
        join="key",
        sort="Score",
    )


def _speed() -> ExactPanel:
    within = {"300": "5 min", "900": "15 min", "3600": "1 h"}
    return table(
        "Speed to lead",
        "How soon a human answered the leads created in the window.",
        [
            rows(NAMES, "A"),
            rows(kpi("first_response_seconds", 'statistic="median"'), "B"),
            *(
                rows(kpi("first_response_within_ratio", f'limit_seconds="{limit}"'), ref)
                for limit, ref in zip(within, "CDE", strict=True)
            ),
            rows(kpi("leads_never_answered_ratio"), "F"),
        ],
        {
            "name": "Location",
            "Value #B": "Median",
            **{f"Value #{ref}": text for ref, text in zip("CDE", within.values(), strict=True)},
            "Value #F": "Never",
        },
        [
            override("Median", unit=SECONDS, decimals=1),
            *(override(text, unit=SHARE, decimals=0) for text in within.values()),
            override("Never", unit=SHARE, decimals=1),
        ],
        sort="Median",
        ascending=True,
    )


def _needs_help() -> ExactPanel:
    def change(metric: str) -> str:
        return f"max by ({_BY}) (job_location_agent:ghl_agent_{metric}:delta7d{{{HERE}}})"

    lowest = f"bottomk(10, {kpi('agent_productivity_score', by=_BY)})"
    return table(
        "Who may need help",
        "The ten lowest scores, and how the last seven days of these agents differ from the seven"
        " days before. Few deals move by chance: look at one agent below before you judge.",
        [
            _key(f"{lowest} * on (location) group_left (name, currency) {NAMES}", "A"),
            _key(f"{AGENT_NAMES} and on ({_BY}) {lowest}", "B"),
            *(
                _key(f"{expression} and on ({_BY}) {lowest}", ref)
                for expression, ref in (
                    (kpi("agent_conversion_ratio", by=_BY), "C"),
                    (kpi("agent_first_response_seconds", 'statistic="median"', by=_BY), "D"),
                    (change("productivity_score"), "E"),
                    (change("deals_closed"), "F"),
                    (change("revenue"), "G"),
                )
            ),
        ],
        {
            "name 2": "Agent",
            "name 1": "Location",
            "currency": "Money",
            "Value #A": "Score",
            "Value #C": "Conversion",
            "Value #D": "Response",
            "Value #E": "Score, week",
            "Value #F": "Deals, week",
            "Value #G": "Revenue, week",
            "agent 1": "agent",
            "location 1": "location",
        },
        [
            override("Agent", links=link("Show this agent", _TO_AGENT)),
            *(override(name, **HIDDEN) for name in ("agent", "location")),
            override("Money", custom__width=60),
            override("Score", unit="none", decimals=0),
            override("Conversion", unit=SHARE, decimals=1),
            override("Response", unit=SECONDS, decimals=1),
            override("Score, week", unit="none", decimals=0),
            override("Deals, week", unit="none", decimals=0),
            override("Revenue, week", unit=MONEY, decimals=1),
        ],
        join="key",
        sort="Score",
        ascending=True,
    )


def _one_stat(title: str, about: str, metric: str, labels: str, look: Json) -> ExactPanel:
    inside = f"{labels},{_ONE}" if labels else _ONE
    query = now(kpi(f"agent_{metric}", inside, by=_BY), title)
    return stat(title, about, query, look, text="value")


def _one() -> list[ExactPanel]:
    return [
        _one_stat(
            "Score",
            "0 to 100, see the leaderboard.",
            "productivity_score",
            "",
            field("none", decimals=0, min=0, max=100, thresholds=_SCORE),
        ),
        _one_stat(
            "Deals", "Deals that the agent closed.", "deals_closed", "", field(COUNT, decimals=0)
        ),
        _one_stat("Revenue", "Sum of the agent's deals.", "revenue", "", field(MONEY, decimals=1)),
        _one_stat(
            "Conversion",
            f"Deals closed divided by leads assigned. Target: {targets.CONVERSION:.0%}.",
            "conversion_ratio",
            "",
            field(SHARE, decimals=0, thresholds=at_least(targets.CONVERSION)),
        ),
        _one_stat(
            "Response",
            "Median of the agent's first answers.",
            "first_response_seconds",
            'statistic="median"',
            field(
                SECONDS,
                decimals=1,
                thresholds=at_most(900, targets.RESPONSE_SECONDS),
            ),
        ),
        _one_stat(
            "Accepted",
            "Of the agent's recommendations, the share accepted by now.",
            "match_effectiveness_ratio",
            "",
            field(SHARE, decimals=0, thresholds=at_least(targets.ACCEPTANCE)),
        ),
    ]


def _one_over_time() -> list[ExactPanel]:
    def one(title: str, about: str, metric: str, labels: str, look: Json) -> ExactPanel:
        inside = f"{labels},{_ONE}" if labels else _ONE
        target = graph(over_time(f"agent_{metric}", inside, by=_BY), title, interval="1h")
        return lines(title, about, target, look, legend=False)

    return [
        one(
            "Score over time",
            "Of the chosen window up to each moment.",
            "productivity_score",
            "",
            field("none", decimals=0, min=0, max=100),
        ),
        one(
            "Revenue over time",
            "Of the chosen window up to each moment.",
            "revenue",
            "",
            field(MONEY, decimals=1, min=0),
        ),
        one(
            "First response over time",
            "The median, of the chosen window up to each moment.",
            "first_response_seconds",
            'statistic="median"',
            field(SECONDS, decimals=1, min=0),
        ),
    ]


def board() -> Board:
    """Return the board."""
    return Board(
        uid="ghl-agents",
        title="Agents",
        about="The leaderboard, speed to lead, and one agent in detail.",
        with_agent=True,
        lines=[
            Line(3, [(24, final())]),
            Line(13, [(24, _leaderboard())]),
            Line(11, [(24, _needs_help())]),
            Line(7, [(24, _speed())]),
            row("One agent: $agent"),
            Line(4, [(4, panel) for panel in _one()]),
            Line(8, [(8, panel) for panel in _one_over_time()]),
        ],
    )
