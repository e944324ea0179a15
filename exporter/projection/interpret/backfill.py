"""What an opportunity, as GHL's search answers it, tells: its state at its `updatedAt`."""

from exporter.domain.event import StoredEvent
from exporter.domain.ghl_events import OPPORTUNITY
from exporter.domain.json_fields import clean_text, clean_time
from exporter.projection.interpret.reading import (
    BACKFILL_PRECEDENCE,
    OPPORTUNITY_FIELDS,
    Fields,
    Interpretation,
    Poison,
    entity_event,
    iso_time,
    tell,
)
from exporter.projection.rows import FOUND

_FIELDS = {**OPPORTUNITY_FIELDS, "status_since": ("lastStatusChangeAt", iso_time)}


def interpret_backfill(event: StoredEvent, fields: Fields) -> Interpretation:
    """Read an opportunity's state. Raises Poison."""
    opportunity_id = clean_text(fields.get("id"))
    updated_at = clean_time(fields.get("updatedAt"))
    if opportunity_id is None or updated_at is None or not event.location_id:
        raise Poison("the opportunity lacks its id, its locationId or its updatedAt")
    entity = (OPPORTUNITY, opportunity_id)
    told = tell(fields, _FIELDS)
    contact = fields.get("contact")
    # The first version of GHL's API nested the contact, and the second does so too.
    if told.get("contact") is None and isinstance(contact, dict):
        told["contact"] = clean_text(contact.get("id"))
    return Interpretation(
        [entity_event(event, BACKFILL_PRECEDENCE, entity, updated_at, FOUND, told)]
    )
