"""How values look: units, colours, thresholds, mappings, overrides, in Grafana's terms."""

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

# A location's own currency: its code stands beside its name, for nothing is converted.
MONEY = "currency:"
SHARE = "percentunit"
SECONDS = "s"
COUNT = "locale"

GOOD, FAIR, BAD, PLAIN, MUTED = "green", "orange", "red", "blue", "text"

GRADE_COLOURS = {
    **dict.fromkeys(("A+", "A", "A-"), "green"),
    **dict.fromkeys(("B+", "B", "B-"), "semi-dark-green"),
    **dict.fromkeys(("C+", "C"), "yellow"),
    "C-": "orange",
    "D": "dark-orange",
    "F": "red",
}

STAGE_WORDS = {
    "lead_created": "Lead created",
    "ai_qualified": "AI qualified",
    "human_contacted": "Human contacted",
    "appointment_scheduled": "Appointment scheduled",
    "property_showing": "Property showing",
    "offer_submitted": "Offer submitted",
    "contract_signed": "Contract signed",
    "deal_closed": "Deal closed",
}


def steps(*pairs: tuple[float | None, str]) -> Json:
    """Return thresholds: from each value on, a colour; the first value is None."""
    return {"mode": "absolute", "steps": [{"value": value, "color": c} for value, c in pairs]}


NO_STEPS = steps((None, PLAIN))


def reached(target: float) -> Json:
    """Return thresholds of what shall be reached: good from the target on, else bad."""
    return steps((None, MUTED), (0, BAD), (target, GOOD))


def at_least(target: float) -> Json:
    """Return thresholds of what shall be high: good from the target on, fair from its half on.

    Where there is no value there is no colour either.
    """
    return steps((None, MUTED), (0, BAD), (target / 2, FAIR), (target, GOOD))


def at_most(target: float, fair: float) -> Json:
    """Return thresholds of what shall be low: good up to the target, bad beyond `fair`."""
    return steps((None, GOOD), (target, FAIR), (fair, BAD))


def field(unit: str, *, decimals: int | None = None, **more: Any) -> Json:
    """Return field defaults. Without thresholds of its own a field has one plain colour."""
    thresholds = more.pop("thresholds", None)
    plain = {"mode": "fixed", "fixedColor": PLAIN}
    found: Json = {
        "unit": unit,
        "color": {"mode": "thresholds"} if thresholds else plain,
        "thresholds": thresholds or NO_STEPS,
        "noValue": "no data",
        **more,
    }
    if decimals is not None:
        found["decimals"] = decimals
    return found


def words(texts: Mapping[str, str], colours: Mapping[str, str] | None = None) -> list[Json]:
    """Return a mapping from values to words, with colours where there are some."""
    options: Json = {}
    for index, (value, text) in enumerate(texts.items()):
        options[value] = {"index": index, "text": text}
        if colours and value in colours:
            options[value]["color"] = colours[value]
    return [{"type": "value", "options": options}]


def override(name: str, **properties: Any) -> Json:
    """Return the override of a field by its name; `__` in a property stands for a dot."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [
            {"id": key.replace("__", "."), "value": value} for key, value in properties.items()
        ],
    }


GRADE_MAPPING = words({grade: grade for grade in GRADE_COLOURS}, GRADE_COLOURS)
PILL = {"type": "color-background", "mode": "basic"}
GAUGE_CELL = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
COLOURED = {"type": "color-text"}


def fixed(colour: str) -> Json:
    """Return a colour that hangs on nothing."""
    return {"mode": "fixed", "fixedColor": colour}


def link(title: str, url: str) -> list[Json]:
    """Return a link of a value, opened in the same tab."""
    return [{"title": title, "url": url, "targetBlank": False}]


# What a link to another board keeps, and how it names the row that was clicked.
KEEP = "${window:queryparam}&${datasource:queryparam}&${__url_time_range}"
LOCATION_OF_ROW = "${__data.fields.location:percentencode}"
AGENT_OF_ROW = "${__data.fields.agent:percentencode}"
HIDDEN = {
    # Grafana 10 to 12, and 13
    "custom__hidden": True,
    "custom__hideFrom": {"viz": True, "legend": True, "tooltip": True},
}


def in_order(names: Sequence[str]) -> Json:
    """Return the place of each field."""
    return {name: index for index, name in enumerate(names)}
