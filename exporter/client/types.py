"""The types of what can be tracked."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Literal, SupportsFloat, SupportsIndex, TypedDict
from uuid import UUID

from ..domain import stages

Id = str | int | UUID | Enum
Number = SupportsFloat | SupportsIndex | Decimal
# A datetime with an offset, or ISO 8601 text with one.
Moment = datetime | str
Stage = Literal[
    "lead_created",
    "ai_qualified",
    "human_contacted",
    "appointment_scheduled",
    "property_showing",
    "offer_submitted",
    "contract_signed",
    "deal_closed",
]
Interaction = Literal["viewed", "liked", "scheduled", "rejected", "shared"]


class ConversionStage(StrEnum):
    """The stages of a contact on its way to a deal, in their order."""

    LEAD_CREATED = stages.LEAD_CREATED
    AI_QUALIFIED = stages.AI_QUALIFIED
    HUMAN_CONTACTED = stages.HUMAN_CONTACTED
    APPOINTMENT_SCHEDULED = stages.APPOINTMENT_SCHEDULED
    PROPERTY_SHOWING = stages.PROPERTY_SHOWING
    OFFER_SUBMITTED = stages.OFFER_SUBMITTED
    CONTRACT_SIGNED = stages.CONTRACT_SIGNED
    DEAL_CLOSED = stages.DEAL_CLOSED


class Moments(TypedDict, total=False):
    """When a call happened (default: now), and the key by which it counts once."""

    occurred_at: Moment | None
    idempotency_key: Id | None


class Common(Moments, total=False):
    """What every call can say by name."""

    location_id: Id | None
    metadata: Mapping[str, Any] | None


class ConversionOptions(Common, total=False):
    """What a conversion can say by name."""

    agent_id: Id | None
    opportunity_id: Id | None


class FirstConversionOptions(Moments, total=False):
    """What a conversion with its location by position can say by name."""

    opportunity_id: Id | None


class ActivityOptions(Common, total=False):
    """What an agent's activity can say by name."""

    contact_id: Id | None
    deal_value: Number | None
    response_time_minutes: Number | None


class CompletionOptions(Common, total=False):
    """What a webhook's completion can say by name."""

    contact_id: Id | None
    error_message: str | None
    webhook_type: Id | None


class RecommendationOptions(Common, total=False):
    """What a property's recommendation can say by name."""

    contact_id: Id | None
    property_id: Id | None
    agent_id: Id | None
    recommendation_score: Number | None
