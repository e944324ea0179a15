"""Interpret one stored event: as events of entities, messages or activities, or as nothing."""

from exporter.domain.envelope import flatten
from exporter.domain.event import BACKFILL, PLATFORM, WORKFLOW, StoredEvent
from exporter.domain.json_fields import Unreadable, parse_json
from exporter.projection.fact_settings import FactSettings
from exporter.projection.interpret.backfill import interpret_backfill
from exporter.projection.interpret.ghl import interpret_ghl, interpret_workflow
from exporter.projection.interpret.platform import interpret_platform
from exporter.projection.interpret.reading import Interpretation, InvalidEventError

__all__ = ["Interpretation", "InvalidEventError", "interpret"]


def interpret(event: StoredEvent, fact_settings: FactSettings) -> Interpretation:
    """Read an event from the inbox. Raises InvalidEventError."""
    try:
        body = parse_json(event.body)
    except Unreadable as error:
        raise InvalidEventError(f"the body is {error}") from None
    # Only GHL wraps fields in `data`.
    own = event.source in (PLATFORM, BACKFILL)
    fields = (body if isinstance(body, dict) else None) if own else flatten(body)
    if fields is None:
        raise InvalidEventError("the body is no JSON object")
    if event.source == PLATFORM:
        return interpret_platform(event, fields)
    if event.source == BACKFILL:
        return interpret_backfill(event, fields)
    if event.source == WORKFLOW:
        return interpret_workflow(event, fields)
    return interpret_ghl(event, fields, fact_settings)
