"""From one stored event to what it tells: of an entity, of a message, or nothing."""

from exporter.domain.envelope import flatten
from exporter.domain.event import BACKFILL, PLATFORM, WORKFLOW, StoredEvent
from exporter.domain.json_fields import Unreadable, parse_json
from exporter.projection.fact_settings import Rules
from exporter.projection.interpret.backfill import interpret_backfill
from exporter.projection.interpret.ghl import interpret_ghl, interpret_workflow
from exporter.projection.interpret.platform import interpret_platform
from exporter.projection.interpret.reading import Interpretation, Poison

__all__ = ["Interpretation", "Poison", "interpret"]


def interpret(event: StoredEvent, rules: Rules) -> Interpretation:
    """Read an event from the inbox. Raises Poison."""
    try:
        body = parse_json(event.body)
    except Unreadable as error:
        raise Poison(f"the body is {error}") from None
    # Only GHL wraps fields in `data`.
    own = event.source in (PLATFORM, BACKFILL)
    fields = (body if isinstance(body, dict) else None) if own else flatten(body)
    if fields is None:
        raise Poison("the body is no JSON object")
    if event.source == PLATFORM:
        return interpret_platform(event, fields)
    if event.source == BACKFILL:
        return interpret_backfill(event, fields)
    if event.source == WORKFLOW:
        return interpret_workflow(event, fields)
    return interpret_ghl(event, fields, rules)
