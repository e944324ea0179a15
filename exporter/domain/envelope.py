"""Read from a body no more than its key and its route."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from exporter.domain.ghl_events import WORKFLOW_EVENT, event_name
from exporter.domain.json_fields import Unreadable, clean_text, clean_time, parse_json

UNREADABLE_EVENT = "unreadable"


@dataclass(frozen=True, slots=True)
class Envelope:
    """By what an event is stored: `location_id` is '' where the body names none."""

    location_id: str
    event_type: str
    idempotency_key: str


def flatten(body: object) -> dict[str, Any] | None:
    """Return the body's fields, out of `data` too where GHL wraps them; None where it has none."""
    if not isinstance(body, dict):
        return None
    inner = body.get("data")
    if isinstance(inner, dict):
        return {**inner, **{name: value for name, value in body.items() if name != "data"}}
    return body


def location_of(fields: Mapping[str, Any], event: str) -> str:
    """Return the location that the fields name, '' where they name none."""
    location = clean_text(fields.get("locationId"))
    if location is None and fields.get("altType") == "location":
        location = clean_text(fields.get("altId"))
    if location is None and event.startswith("Location"):
        location = clean_text(fields.get("id"))
    return location or ""


def read_webhook(body: bytes, address: str) -> Envelope:
    """Read a GHL webhook. `address`: the last part of its path, '' where that names no event.

    Its key is the `webhookId`; without one a hash of event name and body.
    """
    try:
        fields = flatten(parse_json(body))
    except Unreadable:
        fields = None
    if fields is None:
        event = clean_text(address) or UNREADABLE_EVENT
        return Envelope("", event, _hash(event, body))
    event = event_name(clean_text(address) or "", clean_text(fields.get("type"))) or "untyped"
    key = clean_text(fields.get("webhookId")) or _hash(event, body)
    return Envelope(location_of(fields, event), event, key)


class IncompleteError(Exception):
    """A workflow's body lacks what it needs; the text names the field, for who set it up."""


def workflow_ids(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return location and contact of a workflow's webhook, None where it names none.

    GHL's own body has `location{id}` and `contact_id`. What somebody adds by hand, in the action's
    custom data or in a body of the action "Custom Webhook", may be called so or as in the API.
    """
    location, contact = fields.get("location"), fields.get("contact")
    custom = fields.get("customData")
    added: Mapping[str, Any] = custom if isinstance(custom, dict) else {}

    def first(nested: object, *names: str) -> str | None:
        given = [nested.get("id")] if isinstance(nested, dict) else []
        given += [place.get(name) for place in (fields, added) for name in names]
        return next((text for value in given if (text := clean_text(value))), None)

    return first(location, "location_id", "locationId"), first(contact, "contact_id", "contactId")


def read_workflow(body: bytes) -> Envelope:
    """Read the "Webhook" action of a workflow: its key is the body's hash, for it has no other.

    Raises IncompleteError.
    """
    try:
        fields = flatten(parse_json(body))
    except Unreadable:
        fields = None
    if fields is None:
        raise IncompleteError("the body is no JSON object")
    location_id, _ = workflow_ids(fields)
    if location_id is None:
        raise IncompleteError(
            "the body lacks location.id: let the workflow send its default body, or add location_id"
            " to its custom data"
        )
    return Envelope(location_id, WORKFLOW_EVENT, _hash(WORKFLOW_EVENT, body))


def _hash(event: str, body: bytes) -> str:
    return hashlib.sha256(event.encode() + b"\0" + body).hexdigest()


def read_call(call: str, body: bytes, fields: Mapping[str, Any]) -> Envelope:
    """Read a tracking call: one that names no key is its own, however often it is sent.

    The start and the completion of a webhook have their `tracking_id`; told differently they are
    several events of one webhook.
    """
    key = clean_text(fields.get("idempotency_key"))
    tracking_id = clean_text(fields.get("tracking_id"))
    if key is None and tracking_id is not None:
        key = f"{tracking_id}/{hashlib.sha256(body).hexdigest()}"
    return Envelope(
        location_id=clean_text(fields.get("location_id")) or "",
        event_type=call,
        idempotency_key=f"{call}/{key or uuid4().hex}",
    )


def read_opportunity(fields: Mapping[str, Any], location: str = "") -> Envelope:
    """Read an opportunity as GHL's search answers it: one for each of its `updatedAt`.

    `location`: whose it is where it names none.
    """
    updated_at = clean_time(fields.get("updatedAt"))
    return Envelope(
        location_id=clean_text(fields.get("locationId")) or location,
        event_type="opportunity",
        idempotency_key=f"{clean_text(fields.get('id'))}@{updated_at and updated_at.isoformat()}",
    )
