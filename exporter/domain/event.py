"""What is stored of a request: its raw bytes, and by what they are found again."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

GHL = "ghl"
WORKFLOW = "workflow"
PLATFORM = "platform"  # the AI platform's tracking calls
BACKFILL = "backfill"  # what GHL's API answers
SOURCES = (GHL, WORKFLOW, PLATFORM, BACKFILL)


@dataclass(frozen=True, slots=True)
class InboxEvent:
    """One request on its way into the inbox. `received_at` is aware and in UTC."""

    location_id: str
    source: str
    endpoint: str
    event_type: str
    idempotency_key: str
    correlation_id: str
    received_at: datetime
    body: bytes

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes the event one: stored once for each key, for good."""
        return (self.location_id, self.source, self.idempotency_key)


class StoredEvent(NamedTuple):
    """One row of the inbox, as the projection reads it."""

    location_id: str
    id: int
    received_at: datetime
    source: str
    endpoint: str
    event_type: str
    idempotency_key: str
    body: bytes
