"""The rows of the derived tables, and how each table is keyed."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

# Families of entities besides GHL's own.
RECOMMENDATION = "recommendation"
PLATFORM_WEBHOOK = "platform_webhook"

# Types of events that are not GHL's: an opportunity found by back-filling, a deal that was tracked.
FOUND = "found"
DEAL_TOLD = "deal_closed"


class EntityEvent(NamedTuple):
    """What one event tells of an entity; `fields` lacks what the event does not say."""

    location_id: str
    family: str
    entity_id: str
    event_time: datetime
    precedence: int
    idempotency_key: str
    event_type: str
    fields: dict[str, Any]


class Contact(NamedTuple):
    """A contact; a lead where `created_at` is known and it is not deleted."""

    location_id: str
    contact_id: str
    created_at: datetime | None
    created_day: date | None
    owner_id: str | None
    deleted: bool
    first_score: Decimal | None
    first_score_at: datetime | None
    told_deal_at: datetime | None  # the deal that was tracked without an opportunity
    told_deal_value: Decimal | None
    told_deal_agent: str | None
    first_answer_at: datetime | None = None
    first_answer_day: date | None = None
    first_answer_user: str | None = None
    has_deal: bool = False
    scored_in_time: bool = False


class ContactStage(NamedTuple):
    """A stage of a contact that was tracked, and when first."""

    location_id: str
    contact_id: str
    stage: str
    told_at: datetime


class Opportunity(NamedTuple):
    """An opportunity's present state; a deal where it is `won` and not deleted."""

    location_id: str
    opportunity_id: str
    contact_id: str | None
    status: str | None
    monetary_value: Decimal | None
    owner_id: str | None
    opened_day: date
    run_began_at: datetime | None
    run_began_day: date | None
    run_owner_id: str | None
    ever_won: bool
    deleted: bool


class OpportunityStage(NamedTuple):
    """A stage that an opportunity's pipeline stage told of, and when first."""

    location_id: str
    opportunity_id: str
    stage: str
    told_at: datetime


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


class Message(NamedTuple):
    """One message, in or out."""

    location_id: str
    contact_id: str
    human_answer: bool
    sent_at: datetime
    idempotency_key: str
    direction: str
    user_id: str | None


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


class Recommendation(NamedTuple):
    """A property that was recommended to a contact, and what became of it."""

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


class Interaction(NamedTuple):
    """One interaction with a recommendation; its contact's, else the recommendation's."""

    location_id: str
    recommendation_id: str
    idempotency_key: str
    interaction: str
    contact_id: str | None
    happened_at: datetime
    happened_day: date


class PlatformWebhook(NamedTuple):
    """A webhook's processing by the platform; `finished_day` is the one it counts on."""

    location_id: str
    tracking_id: str
    webhook_type: str | None
    started_at: datetime | None
    completed_at: datetime | None
    runs_out_at: datetime | None
    finished_day: date | None
    succeeded: bool
    enriched: bool
    ai_activated: bool


class User(NamedTuple):
    """A GHL user: an agent."""

    location_id: str
    user_id: str
    name: str | None
    role: str | None
    deleted: bool


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


class PipelineStage(NamedTuple):
    """A stage that a contact has reached (null: nobody knows when)."""

    location_id: str
    contact_id: str
    stage: str
    reached_at: datetime | None
    reached_day: date | None
    advanced: bool
    offered: bool


class WebhookOutcome(NamedTuple):
    """How one webhook ended, on the day it was first received."""

    location_id: str
    received_day: date
    source: str
    idempotency_key: str
    event_type: str
    failed: bool


class Quarantined(NamedTuple):
    """An event that can't be projected, and why."""

    location_id: str
    id: int
    received_at: datetime
    source: str
    event_type: str
    error: str


@dataclass(frozen=True)
class Table:
    """A derived table: its columns with their PostgreSQL types, the first `key` of them its key."""

    name: str
    key: int
    columns: tuple[tuple[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, in the order of the row types above."""
        return tuple(name for name, _ in self.columns)


_ID = "text"


def _table(name: str, key: int, columns: str) -> Table:
    pairs = tuple(tuple(column.split(":")) for column in columns.split())
    return Table(name, key, tuple((pair[0], pair[1] if len(pair) > 1 else _ID) for pair in pairs))


ENTITY_EVENTS = _table(
    "entity_events",
    6,
    "location_id family entity_id event_time:timestamptz precedence:smallint idempotency_key"
    " event_type fields:jsonb",
)
CONTACTS = _table(
    "contacts",
    2,
    "location_id contact_id created_at:timestamptz created_day:date owner_id deleted:boolean"
    " first_score:numeric first_score_at:timestamptz told_deal_at:timestamptz"
    " told_deal_value:numeric told_deal_agent first_answer_at:timestamptz first_answer_day:date"
    " first_answer_user has_deal:boolean scored_in_time:boolean",
)
CONTACT_STAGES = _table("contact_stages", 3, "location_id contact_id stage told_at:timestamptz")
OPPORTUNITIES = _table(
    "opportunities",
    2,
    "location_id opportunity_id contact_id status monetary_value:numeric owner_id opened_day:date"
    " run_began_at:timestamptz run_began_day:date run_owner_id ever_won:boolean"
    " deleted:boolean",
)
OPPORTUNITY_STAGES = _table(
    "opportunity_stages", 3, "location_id opportunity_id stage told_at:timestamptz"
)
APPOINTMENTS = _table(
    "appointments",
    2,
    "location_id appointment_id contact_id calendar_id status starts_at:timestamptz start_day:date"
    " scheduled_at:timestamptz showed_at:timestamptz deleted:boolean",
)
MESSAGES = _table(
    "messages",
    5,
    "location_id contact_id human_answer:boolean sent_at:timestamptz idempotency_key direction"
    " user_id",
)
ACTIVITIES = _table(
    "activities",
    2,
    "location_id idempotency_key agent_id contact_id happened_at:timestamptz happened_day:date"
    " response_seconds:float8 ai_used:boolean",
)
RECOMMENDATIONS = _table(
    "recommendations",
    2,
    "location_id recommendation_id contact_id agent_id property_id score:numeric"
    " made_at:timestamptz made_day:date accepted:boolean scheduled:boolean",
)
INTERACTIONS = _table(
    "interactions",
    3,
    "location_id recommendation_id idempotency_key interaction contact_id happened_at:timestamptz"
    " happened_day:date",
)
PLATFORM_WEBHOOKS = _table(
    "platform_webhooks",
    2,
    "location_id tracking_id webhook_type started_at:timestamptz completed_at:timestamptz"
    " runs_out_at:timestamptz finished_day:date succeeded:boolean enriched:boolean"
    " ai_activated:boolean",
)
USERS = _table("users", 2, "location_id user_id name role deleted:boolean")
DEALS = _table(
    "deals",
    3,
    "location_id kind deal_id contact_id agent_id deal_value:numeric closed_at:timestamptz"
    " closed_day:date seconds_from_lead:float8 ai_assisted:boolean",
)
CONVERSION_PIPELINE = _table(
    "conversion_pipeline",
    3,
    "location_id contact_id stage reached_at:timestamptz reached_day:date advanced:boolean"
    " offered:boolean",
)
WEBHOOK_OUTCOMES = _table(
    "webhook_outcomes",
    4,
    "location_id received_day:date source idempotency_key event_type failed:boolean",
)
QUARANTINE = _table(
    "quarantine", 2, "location_id id:bigint received_at:timestamptz source event_type error"
)

# What `rebuild` makes anew: every table of the facts' migrations but the projection's own state.
DERIVED_TABLES = (
    "locations",
    "entity_events",
    "contacts",
    "contact_stages",
    "opportunities",
    "opportunity_stages",
    "appointments",
    "messages",
    "activities",
    "recommendations",
    "interactions",
    "platform_webhooks",
    "users",
    "deals",
    "conversion_pipeline",
    "webhook_outcomes",
    "quarantine",
    "daily_business",
    "daily_stages",
    "daily_interactions",
    "agent_performance",
    "open_pipeline",
    "webhook_performance",
)
