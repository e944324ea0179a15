"""What the platform can tell, by the method names that it knows; once for both clients."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar
from uuid import uuid4

import orjson
from pydantic import ValidationError

from exporter import tracking
from exporter.api.calls import MODELS
from exporter.client.outbox import Outbox, Stats
from exporter.client.sender import ClientError

log = logging.getLogger("exporter.client")

Queued = TypeVar("Queued")
TrackingId = TypeVar("TrackingId")
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


class Processing:
    """The processing of one webhook: set what came of it; leaving the block completes it.

    An exception in the block makes it a failure, and goes on to whoever called.
    """

    def __init__(self, complete: Callable[["Processing"], object], tracking_id: str) -> None:
        self._complete = complete
        self.tracking_id = tracking_id
        self.success = True
        self.enrichment_data: dict[str, Any] | None = None
        self.ai_activated: bool | None = None

    def __enter__(self) -> "Processing":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.success = False
        self._complete(self)

    async def __aenter__(self) -> "Processing":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


class TracksCalls(Generic[Queued, TrackingId]):
    """The tracking methods. Each queues and returns at once: True, or False where it can't.

    `location_id` may be left out where the client was made with one. `occurred_at` (with an
    offset) is now, `idempotency_key` a new one, unless given: what is sent twice counts once.
    """

    _outbox: Outbox
    _location_id: str | None
    _raise_errors: bool

    def _queued(self, queued: bool) -> Queued:
        raise NotImplementedError

    def _tracking_id(self, tracking_id: str) -> TrackingId:
        raise NotImplementedError

    def _wake(self) -> None:
        raise NotImplementedError

    @property
    def stats(self) -> Stats:
        """How many calls were queued, sent, rejected, dropped, and how many wait."""
        return self._outbox.stats

    def track_webhook_start(
        self,
        webhook_type: str | None = None,
        *,
        location_id: str | None = None,
        tracking_id: str | None = None,
        occurred_at: datetime | None = None,
        **more: Any,
    ) -> TrackingId:
        """Tell that a webhook's processing begins; return the tracking id for its completion."""
        chosen = tracking_id or uuid4().hex
        self._tell(
            tracking.WEBHOOK_START,
            {"webhook_type": webhook_type, "tracking_id": chosen, **more},
            location_id,
            occurred_at,
        )
        return self._tracking_id(chosen)

    def track_webhook_completion(
        self,
        tracking_id: str,
        success: bool,
        *,
        enrichment_data: dict[str, Any] | None = None,
        ai_activated: bool | None = None,
        location_id: str | None = None,
        occurred_at: datetime | None = None,
        **more: Any,
    ) -> Queued:
        """Tell that a webhook's processing ended."""
        fields = {
            "tracking_id": tracking_id,
            "success": success,
            "enrichment_data": enrichment_data,
            "ai_activated": ai_activated,
        }
        told = {**fields, **more}
        return self._queued(self._tell(tracking.WEBHOOK_COMPLETION, told, location_id, occurred_at))

    def webhook(
        self, webhook_type: str | None = None, *, location_id: str | None = None
    ) -> Processing:
        """Return a context manager that tells a processing's start and its end."""
        tracking_id = uuid4().hex
        self.track_webhook_start(webhook_type, location_id=location_id, tracking_id=tracking_id)

        def complete(processing: Processing) -> None:
            self.track_webhook_completion(
                tracking_id,
                processing.success,
                enrichment_data=processing.enrichment_data,
                ai_activated=processing.ai_activated,
                location_id=location_id,
            )

        return Processing(complete, tracking_id)

    def track_conversion_stage(
        self,
        contact_id: str,
        stage: Stage,
        *,
        ai_score: float | None = None,
        agent_id: str | None = None,
        deal_value: float | None = None,
        opportunity_id: str | None = None,
        location_id: str | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> Queued:
        """Tell that a contact reached a stage. `deal_value` is in the location's currency."""
        fields = {
            "contact_id": contact_id,
            "stage": stage,
            "ai_score": ai_score,
            "agent_id": agent_id,
            "deal_value": deal_value,
            "opportunity_id": opportunity_id,
        }
        told = {**fields, **more}
        return self._queued(
            self._tell(tracking.CONVERSION, told, location_id, occurred_at, idempotency_key)
        )

    # The same call under the name that the platform's services use for it.
    track_lead_conversion = track_conversion_stage

    def track_agent_activity(
        self,
        agent_id: str,
        activity_type: str | None = None,
        *,
        contact_id: str | None = None,
        response_time_minutes: float | None = None,
        ai_recommendation_used: bool | None = None,
        location_id: str | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> Queued:
        """Tell that an agent did something."""
        fields = {
            "agent_id": agent_id,
            "activity_type": activity_type,
            "contact_id": contact_id,
            "response_time_minutes": response_time_minutes,
            "ai_recommendation_used": ai_recommendation_used,
        }
        told = {**fields, **more}
        return self._queued(
            self._tell(tracking.AGENT_ACTIVITY, told, location_id, occurred_at, idempotency_key)
        )

    track_agent_performance = track_agent_activity

    def track_property_recommendation(
        self,
        recommendation_id: str,
        *,
        contact_id: str | None = None,
        property_id: str | None = None,
        agent_id: str | None = None,
        recommendation_score: float | None = None,
        location_id: str | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> Queued:
        """Tell that a property was recommended."""
        fields = {
            "recommendation_id": recommendation_id,
            "contact_id": contact_id,
            "property_id": property_id,
            "agent_id": agent_id,
            "recommendation_score": recommendation_score,
        }
        call = tracking.PROPERTY_RECOMMENDATION
        told = {**fields, **more}
        return self._queued(self._tell(call, told, location_id, occurred_at, idempotency_key))

    def track_property_interaction(
        self,
        recommendation_id: str,
        interaction_type: Interaction,
        *,
        contact_id: str | None = None,
        location_id: str | None = None,
        occurred_at: datetime | None = None,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> Queued:
        """Tell what a contact did with a recommended property."""
        fields = {
            "recommendation_id": recommendation_id,
            "interaction_type": interaction_type,
            "contact_id": contact_id,
        }
        call = tracking.PROPERTY_INTERACTION
        told = {**fields, **more}
        return self._queued(self._tell(call, told, location_id, occurred_at, idempotency_key))

    def _tell(
        self,
        call: str,
        fields: dict[str, Any],
        location_id: str | None,
        occurred_at: datetime | None,
        idempotency_key: str | None = None,
    ) -> bool:
        """Check and queue a call. Raises ClientError where errors are to be raised."""
        try:
            body = {name: value for name, value in fields.items() if value is not None}
            body["occurred_at"] = (occurred_at or datetime.now(UTC)).isoformat()
            body["idempotency_key"] = idempotency_key or uuid4().hex
            if (place := location_id or self._location_id) is not None:
                body["location_id"] = place
            MODELS[call].model_validate(body)
            written = orjson.dumps(body, default=str)
        except ValidationError as error:
            self._outbox.refused()
            found = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
                for problem in error.errors(include_url=False, include_input=False)
            )
            return self._fail(f"{call} is not valid: {found}")
        except Exception as error:  # whatever was passed must not break who passed it
            self._outbox.refused()
            return self._fail(f"{call} can't be written as JSON: {error!r}")
        if not self._outbox.put(call, written):
            return self._fail("the queue is full, or closed", logged=True)
        self._wake()
        return True

    def _fail(self, why: str, *, logged: bool = False) -> bool:
        if self._raise_errors:
            raise ClientError(why)
        if not logged:
            log.warning("%s", why)
        return False
