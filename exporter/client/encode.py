"""Write a tracking call as the exporter reads it, and check it by the exporter's own models."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from pydantic import ValidationError

from ..domain import platform_calls
from ..domain.call_models import MODELS
from .errors import ArgumentError
from .values import accessory, boolean, moment, number, reason, text, writable_part

_COMMON = {"location_id", "occurred_at", "idempotency_key", "metadata"}
# What the first design's calls had beyond the fields that the exporter knows; it is kept.
_MORE: dict[str, set[str]] = {
    platform_calls.WEBHOOK_START: {"contact_id"},
    platform_calls.WEBHOOK_COMPLETION: {"contact_id", "webhook_type", "error_message"},
    platform_calls.AGENT_ACTIVITY: {"deal_value"},
}
# The names of each call's arguments.
KNOWN: Mapping[str, frozenset[str]] = {
    call: frozenset({*model.model_fields, *_COMMON, *_MORE.get(call, ())})
    for call, model in MODELS.items()
}
# No figure needs it, so a call goes without it where it can't be written.
_ACCESSORY = {"metadata", "enrichment_data", "error_message"}
_CONVERTERS: dict[str, Callable[[object], Any]] = {
    **dict.fromkeys(
        (
            *("location_id", "idempotency_key", "contact_id", "agent_id", "opportunity_id"),
            *("property_id", "recommendation_id", "tracking_id", "webhook_type"),
            *("activity_type", "interaction_type", "stage"),
        ),
        text,
    ),
    **dict.fromkeys(
        ("deal_value", "ai_score", "recommendation_score", "response_time_minutes"), number
    ),
    **dict.fromkeys(("success", "ai_activated", "ai_recommendation_used"), boolean),
    "occurred_at": moment,
}


def convert(name: str, value: object) -> Any:
    """Return an argument as it is written. Raises ArgumentError."""
    try:
        return _CONVERTERS.get(name, accessory)(value)
    except Exception as error:  # whatever was passed must not break who passed it
        raise ArgumentError(name, reason(error)) from None


def encode(call: str, given: Mapping[str, Any], location_id: str | None) -> tuple[bytes, list[str]]:
    """Return a call's body, and what of its accessory data is left out of it.

    `location_id`: of a call that names none. What is None is not given. Raises ArgumentError.
    """
    body: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in given.items():
        if value is None:
            continue
        if name in _ACCESSORY:
            part, missing = writable_part(value)
            left_out += [f"{name}: {problem}" for problem in missing]
            if part is not None:
                body[name] = part
        else:
            body[name] = convert(name, value)
    if "location_id" not in body and location_id is not None:
        body["location_id"] = location_id
    body.setdefault("occurred_at", datetime.now(UTC).isoformat())
    body.setdefault("idempotency_key", uuid4().hex)
    if not isinstance(body.get("enrichment_data", {}), dict):
        del body["enrichment_data"]
        left_out.append("enrichment_data: must be a dict")
    try:
        MODELS[call].model_validate(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        found = [
            (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))
            for one in problems
        ]
        more = "".join(f"; {name}: {problem}" for name, problem in found[1:])
        raise ArgumentError(found[0][0], found[0][1] + more) from None
    return orjson.dumps(body), left_out
