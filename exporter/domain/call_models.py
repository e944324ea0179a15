"""The tracking calls' bodies: what they must hold, with errors that name the field.

The client checks by them too, without the service: so the imports are relative.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
)

from . import platform_calls
from .json_fields import MAX_ID_BYTES, clean_text, clean_time
from .stages import STAGES


def _text(value: str) -> str:
    if clean_text(value) is None:
        raise ValueError(
            f"must be a text of 1 to {MAX_ID_BYTES} bytes, without NUL or half characters"
        )
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _time(value: object) -> datetime | None:
    """Read a time by the rules that the projection reads it by later."""
    if value is None:
        return None
    if not isinstance(value, str) or (time := clean_time(value)) is None:
        raise ValueError("must be an ISO 8601 time")
    if datetime.fromisoformat(value.strip()).tzinfo is None:
        raise ValueError("must have an offset (…Z or …+02:00)")
    return time


Id = Annotated[str, AfterValidator(_text)]
Time = Annotated[AwareDatetime | None, BeforeValidator(_time)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Amount = Annotated[Number, Field(ge=0)]
Score = Annotated[Number, Field(ge=0, le=100)]


class Call(BaseModel):
    """What every call can say. Fields that are not known are kept with it."""

    model_config = ConfigDict(extra="allow")

    location_id: Id = Field(description="GHL location.")
    occurred_at: Time = Field(
        None, description="When it happened, with an offset. Default: when it was received."
    )
    idempotency_key: Id | None = Field(
        None,
        description="The same key is the same call, however often it is sent. Without one each "
        "call is its own.",
    )


class Conversion(Call):
    """A contact reached a stage. A `deal_closed` with an opportunity closes that one's deal."""

    contact_id: Id
    stage: Annotated[Literal[STAGES], BeforeValidator(_lower)]  # type: ignore[valid-type]
    opportunity_id: Id | None = None
    deal_value: Amount | None = Field(None, description="In the location's currency.")
    agent_id: Id | None = Field(None, description="GHL user who closed the deal.")
    ai_score: Score | None = Field(None, description="The AI's score of the lead, 0 to 100.")


class AgentActivity(Call):
    """An agent did something."""

    agent_id: Id
    activity_type: Id | None = None
    contact_id: Id | None = None
    response_time_minutes: Amount | None = None
    ai_recommendation_used: StrictBool | None = None


class PropertyRecommendation(Call):
    """A property was recommended to a contact."""

    recommendation_id: Id
    contact_id: Id | None = None
    property_id: Id | None = None
    agent_id: Id | None = None
    recommendation_score: Amount | None = Field(None, description="The AI's confidence.")


class PropertyInteraction(Call):
    """A contact did something with a recommended property."""

    recommendation_id: Id
    interaction_type: Annotated[
        Literal[platform_calls.INTERACTIONS],  # type: ignore[valid-type]
        BeforeValidator(_lower),
    ]
    contact_id: Id | None = None


class WebhookStart(Call):
    """The platform began to process a webhook."""

    tracking_id: Id | None = Field(None, description="Made and answered where it is not given.")
    webhook_type: Id | None = None


class WebhookCompletion(Call):
    """The platform ended processing a webhook."""

    location_id: Id | None = Field(  # type: ignore[assignment]
        None, description="Default: that of the start with this tracking_id."
    )
    tracking_id: Id
    success: StrictBool
    enrichment_data: dict[str, Any] | None = None
    ai_activated: StrictBool | None = None


MODELS: dict[str, type[Call]] = {
    platform_calls.CONVERSION: Conversion,
    platform_calls.AGENT_ACTIVITY: AgentActivity,
    platform_calls.PROPERTY_RECOMMENDATION: PropertyRecommendation,
    platform_calls.PROPERTY_INTERACTION: PropertyInteraction,
    platform_calls.WEBHOOK_START: WebhookStart,
    platform_calls.WEBHOOK_COMPLETION: WebhookCompletion,
}
