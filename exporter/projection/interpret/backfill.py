"""Interpret an opportunity as GHL's search returns it: its state at its `updatedAt`."""

from exporter.domain.event import StoredEvent
from exporter.domain.ghl_events import OPPORTUNITY
from exporter.domain.json_fields import clean_text, clean_time
from exporter.projection.interpret.reading import (
    BACKFILL_PRECEDENCE,
    OPPORTUNITY_FIELDS,
    Fields,
    Interpretation,
    InvalidEventError,
    entity_event,
    iso_time,
    pick_fields,
)
from exporter.projection.schema import BACKFILLED

_FIELDS = {**OPPORTUNITY_FIELDS, "status_since": ("lastStatusChangeAt", iso_time)}


def interpret_backfill(event: StoredEvent, fields: Fields) -> Interpretation:
    """Read an opportunity's state. Raises InvalidEventError."""
    opportunity_id = clean_text(fields.get("id"))
    updated_at = clean_time(fields.get("updatedAt"))
    if opportunity_id is None or updated_at is None or not event.location_id:
        raise InvalidEventError("the opportunity lacks its id, its locationId or its updatedAt")
    picked = pick_fields(fields, _FIELDS)
    contact = fields.get("contact")
    # The first version of GHL's API nested the contact, and the second does so too.
    if picked.get("contact") is None and isinstance(contact, dict):
        picked["contact"] = clean_text(contact.get("id"))
    return Interpretation(
        [
            entity_event(
                event,
                precedence=BACKFILL_PRECEDENCE,
                family=OPPORTUNITY,
                entity_id=opportunity_id,
                time=updated_at,
                name=BACKFILLED,
                fields=picked,
            )
        ]
    )
