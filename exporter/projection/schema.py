"""Row types of the derived tables. Each column is stated once, as a field of its row type.

A row is constructed by keyword. `table_of` derives the table's columns, their PostgreSQL types and
its key from the row type; a test compares them with the database's own catalogue.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

R = TypeVar("R", bound=tuple[Any, ...])

_POSTGRES_TYPES: dict[type, str] = {
    str: "text",
    bool: "boolean",
    int: "bigint",
    float: "float8",
    Decimal: "numeric",
    datetime: "timestamptz",
    date: "date",
    dict: "jsonb",
}


@dataclass(frozen=True)
class Table:
    """A derived table: its columns with their PostgreSQL types, the first `key` of them its key."""

    name: str
    key: int
    columns: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in the order of the row type's fields."""
        return tuple(name for name, _ in self.columns)


_TABLES: dict[type, Table] = {}


def _table(name: str, *, key: int) -> Callable[[type[R]], type[R]]:
    """Register a row type as the rows of a table whose key is the first `key` fields."""

    def register(row_type: type[R]) -> type[R]:
        hints = get_type_hints(row_type)
        columns = tuple((column, _postgres_type(hint)) for column, hint in hints.items())
        _TABLES[row_type] = Table(name, key, columns)
        return row_type

    return register


def _postgres_type(hint: Any) -> str:
    """Return the PostgreSQL type of a field's annotation; `X | None` has the type of X."""
    if get_origin(hint) is dict:
        return _POSTGRES_TYPES[dict]
    kinds = [one for one in get_args(hint) or (hint,) if one is not NoneType]
    [kind] = kinds
    return _POSTGRES_TYPES[kind]


def table_of(row_type: type[Any]) -> Table:
    """Return the table of a row type."""
    return _TABLES[row_type]


# Families of entities besides GHL's own.
RECOMMENDATION = "recommendation"
PLATFORM_WEBHOOK = "platform_webhook"

# Types of events that are not GHL's: a back-filled opportunity, a tracked deal.
BACKFILLED = "backfilled"
TRACKED_DEAL = "deal_closed"


@_table("entity_events", key=6)
class EntityEvent(NamedTuple):
    """One event of an entity. `fields` has no key for a field that the event leaves out."""

    location_id: str
    family: str
    entity_id: str
    event_time: datetime
    precedence: int
    idempotency_key: str
    event_type: str
    fields: dict[str, Any]


@_table("contacts", key=2)
class Contact(NamedTuple):
    """A contact; a lead if `created_at` is known and it is not deleted."""

    location_id: str
    contact_id: str
    created_at: datetime | None
    created_day: date | None
    owner_id: str | None
    deleted: bool
    first_score: Decimal | None
    first_score_at: datetime | None
    tracked_deal_at: datetime | None  # the deal that was tracked without an opportunity
    tracked_deal_value: Decimal | None
    tracked_deal_agent: str | None
    first_answer_at: datetime | None = None
    first_answer_day: date | None = None
    first_answer_user: str | None = None
    has_deal: bool = False
    scored_in_time: bool = False


@_table("contact_stages", key=3)
class ContactStage(NamedTuple):
    """A stage of a contact that was tracked, and when it was first reported."""

    location_id: str
    contact_id: str
    stage: str
    reported_at: datetime


@_table("opportunities", key=2)
class Opportunity(NamedTuple):
    """An opportunity's present state; a deal if it is `won` and not deleted.

    `status_since`, and the owner at that time, are those of the present status.
    """

    location_id: str
    opportunity_id: str
    contact_id: str | None
    status: str | None
    monetary_value: Decimal | None
    owner_id: str | None
    first_seen_day: date
    status_since: datetime | None
    status_since_day: date | None
    status_owner_id: str | None
    ever_won: bool
    deleted: bool


@_table("opportunity_stages", key=3)
class OpportunityStage(NamedTuple):
    """A stage that an opportunity's pipeline stage stands for, and when it was first reported."""

    location_id: str
    opportunity_id: str
    stage: str
    reported_at: datetime


@_table("appointments", key=2)
class Appointment(NamedTuple):
    """An appointment's present state."""

    location_id: str
    appointment_id: str
    contact_id: str | None
    calendar_id: str | None
    status: str | None
    starts_at: datetime | None
    start_day: date | None
    scheduled_at: datetime
    showed_at: datetime | None
    deleted: bool


@_table("messages", key=5)
class Message(NamedTuple):
    """One message, in or out."""

    location_id: str
    contact_id: str
    human_answer: bool
    sent_at: datetime
    idempotency_key: str
    direction: str
    user_id: str | None


@_table("activities", key=2)
class Activity(NamedTuple):
    """One tracked activity of an agent."""

    location_id: str
    idempotency_key: str
    agent_id: str
    contact_id: str | None
    happened_at: datetime
    happened_day: date | None
    response_seconds: float | None
    ai_used: bool


@_table("recommendations", key=2)
class Recommendation(NamedTuple):
    """A property that was recommended to a contact, and its outcome."""

    location_id: str
    recommendation_id: str
    contact_id: str | None
    agent_id: str | None
    property_id: str | None
    score: Decimal | None
    made_at: datetime | None
    made_day: date | None
    accepted: bool
    scheduled: bool


@_table("interactions", key=3)
class Interaction(NamedTuple):
    """One interaction with a recommendation; its own contact, else the recommendation's."""

    location_id: str
    recommendation_id: str
    idempotency_key: str
    interaction: str
    contact_id: str | None
    happened_at: datetime
    happened_day: date


@_table("platform_webhooks", key=2)
class PlatformWebhook(NamedTuple):
    """A webhook's processing by the platform. It counts on its `finished_day`."""

    location_id: str
    tracking_id: str
    webhook_type: str | None
    started_at: datetime | None
    completed_at: datetime | None
    times_out_at: datetime | None
    finished_day: date | None
    succeeded: bool
    enriched: bool
    ai_activated: bool


@_table("users", key=2)
class User(NamedTuple):
    """A GHL user: an agent."""

    location_id: str
    user_id: str
    name: str | None
    role: str | None
    deleted: bool


@_table("deals", key=3)
class Deal(NamedTuple):
    """A deal and how long it took from the lead's creation, in seconds.

    `kind`: of an `opportunity`, or of a `contact` (tracked without one); `deal_id` is its id.
    """

    location_id: str
    kind: str
    deal_id: str
    contact_id: str | None
    agent_id: str | None
    deal_value: Decimal | None
    closed_at: datetime | None
    closed_day: date | None
    seconds_from_lead: float | None
    ai_assisted: bool


@_table("conversion_pipeline", key=3)
class PipelineStage(NamedTuple):
    """A stage that a contact has reached (null: at an unknown time)."""

    location_id: str
    contact_id: str
    stage: str
    reached_at: datetime | None
    reached_day: date | None
    advanced: bool
    offered: bool


@_table("webhook_outcomes", key=4)
class WebhookOutcome(NamedTuple):
    """How one webhook ended, on the day it was first received."""

    location_id: str
    received_day: date
    source: str
    idempotency_key: str
    event_type: str
    failed: bool


@_table("quarantine", key=2)
class Quarantined(NamedTuple):
    """An event that cannot be projected, with the error."""

    location_id: str
    id: int
    received_at: datetime
    source: str
    event_type: str
    error: str


# The tables of facts, and of what they are folded from.
FACT_TABLES = tuple(table.name for table in _TABLES.values())
