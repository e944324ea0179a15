"""Find out which argument is which: the calls of the first design work beside this client's own.

The first design took `location_id` by position, second or first; this client has it by name. A call
is read by the one form that fits its arguments. Where two forms fit and would choose different
locations, the call is refused: it must never reach the wrong tenant.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..domain.stages import STAGES
from .errors import ArgumentError
from .values import boolean, kind, plain

# The first design's names for arguments that are called otherwise here.
ALIASES = {"activity": "activity_type", "ai_usage": "ai_recommendation_used"}


def _is_stage(value: object) -> bool:
    found = plain(value)
    return isinstance(found, str) and found.lower() in STAGES


def _is_text(value: object) -> bool:
    return isinstance(plain(value), str)


def _is_boolean(value: object) -> bool:
    try:
        boolean(value)
    except ValueError:
        return False
    return True


def _is_integer(value: object) -> bool:
    found = plain(value)
    return isinstance(found, int) and not isinstance(found, bool)


def _is_no_integer(value: object) -> bool:
    return not _is_integer(value)


def _is_flag_or_none(value: object) -> bool:
    return value is None or _is_boolean(value)


def _is_location(value: object) -> bool:
    """By position a location is never left out, nor is it called like a stage."""
    return value is not None and not _is_stage(value)


@dataclass(frozen=True)
class Form:
    """One way to write a call: its positional arguments, and what tells it from other forms."""

    positions: tuple[str, ...]
    required: frozenset[str]
    tests: Mapping[str, Callable[[object], bool]] = field(default_factory=dict)

    def read(self, positional: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the arguments by name; None where the call is not of this form."""
        placed = dict(zip(self.positions, positional, strict=False))
        if len(positional) > len(self.positions) or placed.keys() & named.keys():
            return None
        given = {**placed, **named}
        if not self.required <= given.keys():
            return None
        if not all(test(given[name]) for name, test in self.tests.items() if name in given):
            return None
        return given

    def __str__(self) -> str:
        return f"({', '.join(self.positions)})"


def _form(positions: str, required: str = "", **tests: Callable[[object], bool]) -> Form:
    return Form(tuple(positions.split()), frozenset(required.split()), tests)


_START = "location_id contact_id webhook_type metadata"
_COMPLETION = (
    "tracking_id location_id contact_id success error_message webhook_type enrichment_data"
)
_STAGE = "contact_id location_id stage ai_score agent_id deal_value metadata"
_ACTIVITY = (
    "agent_id location_id activity_type contact_id deal_value response_time_minutes"
    " ai_recommendation_used"
)
_RECOMMENDATION = "contact_id location_id property_id recommendation_score agent_id"

_CONVERSION_FORMS = (
    _form("contact_id stage ai_score deal_value", "contact_id stage", stage=_is_stage),
    _form(
        _STAGE,
        "contact_id location_id stage",
        stage=_is_stage,
        location_id=_is_location,
    ),
)
_FIRST_ACTIVITY = _form(_ACTIVITY, "agent_id location_id activity_type", activity_type=_is_text)
# Of each method this client's own form first, which wins where both mean the same location.
FORMS: Mapping[str, tuple[Form, ...]] = {
    "track_webhook_start": (_form("webhook_type"), _form(_START, "location_id contact_id")),
    "track_webhook_completion": (
        _form(
            "tracking_id success enrichment_data ai_activated",
            "tracking_id success",
            success=_is_boolean,
        ),
        _form(_COMPLETION, "tracking_id location_id contact_id success", success=_is_boolean),
    ),
    "track_conversion_stage": _CONVERSION_FORMS,
    "track_lead_conversion": _CONVERSION_FORMS,
    "track_agent_activity": (
        _form(
            "agent_id activity_type ai_recommendation_used",
            "agent_id",
            ai_recommendation_used=_is_flag_or_none,
        ),
        _FIRST_ACTIVITY,
    ),
    # A second argument alone could be a location or an activity, so it needs its name.
    "track_agent_performance": (_form("agent_id", "agent_id"), _FIRST_ACTIVITY),
    "track_property_recommendation": (
        _form("recommendation_id", "recommendation_id"),
        _form(_RECOMMENDATION, "contact_id location_id property_id recommendation_score"),
    ),
    "track_property_interaction": (
        _form(
            "recommendation_id interaction_type contact_id metadata",
            "recommendation_id interaction_type",
        ),
    ),
    "get_agent_productivity_metrics": (
        _form("agent_id location_id days", location_id=_is_no_integer),
        _form("agent_id days", "agent_id days", days=_is_integer),
    ),
}


def read_arguments(
    method: str, positional: tuple[Any, ...], named: Mapping[str, Any], known: frozenset[str]
) -> dict[str, Any]:
    """Return a call's arguments by name. Raises ArgumentError, with the name that is wrong."""
    given: dict[str, Any] = {}
    for name, value in named.items():
        meant = ALIASES.get(name, name)
        if meant not in known:
            raise ArgumentError(name, f"{method} has no such argument{_nearest(name, known)}")
        if meant in given:
            raise ArgumentError(name, f"is the same as {meant}, which is given too")
        given[meant] = value
    forms = FORMS[method]
    readings = [found for form in forms if (found := form.read(positional, given)) is not None]
    if not readings:
        raise _no_form(method, forms, positional, given)
    if any(one.get("location_id") is not readings[0].get("location_id") for one in readings):
        raise ArgumentError(
            "location_id", f"{method} can't tell it from the other arguments: pass it by its name"
        )
    return readings[0]


def _nearest(name: str, known: frozenset[str]) -> str:
    close = difflib.get_close_matches(name, sorted({*known, *ALIASES}), 1, 0.5)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(sorted(known))}"


def _no_form(
    method: str, forms: tuple[Form, ...], positional: tuple[Any, ...], named: Mapping[str, Any]
) -> ArgumentError:
    """Say what is missing or wrong; the argument that it is about comes first."""
    ways = " or ".join(f"{method}{form}" for form in forms)
    for form in forms:
        placed = dict(zip(form.positions, positional, strict=False))
        given = {**placed, **named}
        for name, test in form.tests.items():
            if name in given and not test(given[name]) and form.required <= given.keys():
                return ArgumentError(
                    name, f"is wrong or out of place ({kind(given[name])}): {ways}"
                )
    missing = sorted(forms[0].required - {*named, *forms[0].positions[: len(positional)]})
    name = missing[0] if missing else "arguments"
    return ArgumentError(name, f"{'is missing' if missing else 'do not fit'}: {ways}")
