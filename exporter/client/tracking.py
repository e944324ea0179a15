"""The tracking methods of both clients, by the names that the platform knows."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar, Unpack, overload
from uuid import uuid4

from ..domain import platform_calls
from ..domain.json_fields import clean_text
from .encode import KNOWN, convert, encode
from .errors import ArgumentError, ClientError
from .forms import read_arguments
from .log import Throttle
from .processing import Processing
from .send_queue import Stats
from .types import (
    ActivityOptions,
    Common,
    CompletionOptions,
    ConversionOptions,
    ConversionStage,
    FirstConversionOptions,
    Id,
    Interaction,
    Moments,
    Number,
    RecommendationOptions,
    Stage,
)
from .values import reason
from .worker import Worker

Queued = TypeVar("Queued")
TrackingId = TypeVar("TrackingId")
Data = Mapping[str, Any]
# Webhooks that are processed at the same time.
_MOST_STARTS = 10_000


class TracksCalls(Generic[Queued, TrackingId]):
    """The tracking methods. Each queues and returns at once: True, or False where it can't.

    Ids are text, int, UUID or Enum; numbers int, float, Decimal or NumPy's. `location_id` may be
    left out where the client was made with one. `occurred_at`, with an offset, is now unless given.
    `idempotency_key` is a new one unless given: what is sent twice with one key counts once.
    `metadata` goes along; where it can't be written the call goes without it, and that is logged.

    The first design's positional arguments work too. Where these leave open which location is
    meant, the call is refused.
    """

    _worker: Worker
    _location_id: str | None
    _raise_errors: bool

    def _set_up(self, worker: Worker, location_id: Id | None, raise_errors: bool) -> None:
        self._worker = worker
        self._raise_errors = raise_errors
        self._location_id = None
        if location_id is not None:
            self._location_id = clean_text(convert("location_id", location_id).strip())
            if self._location_id is None:
                raise ArgumentError("location_id", "must be a text of 1 to 255 bytes")
        self._throttle = Throttle()
        # Of starts that named their location: it is their completion's too.
        self._places: OrderedDict[str, str] = OrderedDict()

    def _queued(self, queued: bool) -> Queued:
        raise NotImplementedError

    def _tracking_id(self, tracking_id: str) -> TrackingId:
        raise NotImplementedError

    @property
    def stats(self) -> Stats:
        """How many calls were queued, sent, rejected, dropped, and how many wait."""
        return self._worker.stats

    @overload
    def track_webhook_start(
        self,
        webhook_type: Id | None = None,
        *,
        tracking_id: Id | None = None,
        contact_id: Id | None = None,
        **more: Unpack[Common],
    ) -> TrackingId: ...

    @overload
    def track_webhook_start(
        self,
        location_id: Id,
        contact_id: Id,
        webhook_type: Id | None = None,
        metadata: Data | None = None,
        *,
        tracking_id: Id | None = None,
        **more: Unpack[Moments],
    ) -> TrackingId: ...

    def track_webhook_start(self, *positional: Any, **named: Any) -> Any:
        """Report that a webhook's processing begins; return the tracking id for its completion."""
        try:
            given = named.get("tracking_id")
            chosen = uuid4().hex if given is None else convert("tracking_id", given)
        except ArgumentError as error:
            self._refuse("track_webhook_start", error)
            return self._tracking_id(uuid4().hex)
        self._track("track_webhook_start", positional, {**named, "tracking_id": chosen})
        return self._tracking_id(chosen)

    @overload
    def track_webhook_completion(
        self,
        tracking_id: Id,
        success: bool,
        enrichment_data: Data | None = None,
        ai_activated: bool | None = None,
        **more: Unpack[CompletionOptions],
    ) -> Queued: ...

    @overload
    def track_webhook_completion(
        self,
        tracking_id: Id,
        location_id: Id,
        contact_id: Id,
        success: bool,
        error_message: str | None = None,
        webhook_type: Id | None = None,
        enrichment_data: Data | None = None,
        *,
        ai_activated: bool | None = None,
        **more: Unpack[Moments],
    ) -> Queued: ...

    def track_webhook_completion(self, *positional: Any, **named: Any) -> Any:
        """Report that a webhook's processing ended.

        Its location is that of the start, where this client reported the start.
        """
        return self._queued(self._track("track_webhook_completion", positional, named))

    def webhook(
        self,
        webhook_type: Id | None = None,
        *,
        location_id: Id | None = None,
        contact_id: Id | None = None,
    ) -> Processing:
        """Return a context manager that reports a processing's start and its end."""
        tracking_id = uuid4().hex
        place = {"location_id": location_id, "contact_id": contact_id, "tracking_id": tracking_id}
        self._track("track_webhook_start", (), {"webhook_type": webhook_type, **place})

        def complete(processing: Processing) -> None:
            outcome = {
                "success": processing.success,
                "enrichment_data": processing.enrichment_data,
                "ai_activated": processing.ai_activated,
            }
            self._track("track_webhook_completion", (), {**outcome, **place})

        return Processing(complete, tracking_id)

    @overload
    def track_conversion_stage(
        self,
        contact_id: Id,
        stage: Stage | ConversionStage,
        ai_score: Number | None = None,
        deal_value: Number | None = None,
        **more: Unpack[ConversionOptions],
    ) -> Queued: ...

    @overload
    def track_conversion_stage(
        self,
        contact_id: Id,
        location_id: Id,
        stage: str,
        ai_score: Number | None = None,
        agent_id: Id | None = None,
        deal_value: Number | None = None,
        metadata: Data | None = None,
        **more: Unpack[FirstConversionOptions],
    ) -> Queued: ...

    def track_conversion_stage(self, *positional: Any, **named: Any) -> Any:
        """Report that a contact reached a stage.

        `deal_value` is in the location's currency, `ai_score` from 0 to 100.
        """
        return self._queued(self._track("track_conversion_stage", positional, named))

    # The same call under the name that the platform's services use for it.
    track_lead_conversion = track_conversion_stage

    @overload
    def track_agent_activity(
        self,
        agent_id: Id,
        activity_type: Id | None = None,
        ai_recommendation_used: bool | None = None,
        **more: Unpack[ActivityOptions],
    ) -> Queued: ...

    @overload
    def track_agent_activity(
        self,
        agent_id: Id,
        activity_type: Id | None = None,
        *,
        ai_usage: bool | None,
        **more: Unpack[ActivityOptions],
    ) -> Queued: ...

    @overload
    def track_agent_activity(
        self,
        agent_id: Id,
        location_id: Id,
        activity_type: str,
        contact_id: Id | None = None,
        deal_value: Number | None = None,
        response_time_minutes: Number | None = None,
        ai_recommendation_used: bool | None = None,
        **more: Unpack[Moments],
    ) -> Queued: ...

    def track_agent_activity(self, *positional: Any, **named: Any) -> Any:
        """Report that an agent did something.

        A `deal_value` is kept with the activity; revenue comes from conversions alone.
        """
        return self._queued(self._track("track_agent_activity", positional, named))

    @overload
    def track_agent_performance(
        self,
        agent_id: Id,
        *,
        activity_type: Id | None = None,
        ai_recommendation_used: bool | None = None,
        **more: Unpack[ActivityOptions],
    ) -> Queued: ...

    @overload
    def track_agent_performance(
        self,
        agent_id: Id,
        location_id: Id,
        activity: str,
        contact_id: Id | None = None,
        deal_value: Number | None = None,
        response_time_minutes: Number | None = None,
        ai_recommendation_used: bool | None = None,
        **more: Unpack[Moments],
    ) -> Queued: ...

    def track_agent_performance(self, *positional: Any, **named: Any) -> Any:
        """Report that an agent did something, as `track_agent_activity` does.

        A second argument by position is the location, and needs the activity beside it.
        """
        return self._queued(self._track("track_agent_performance", positional, named))

    @overload
    def track_property_recommendation(
        self, recommendation_id: Id, **more: Unpack[RecommendationOptions]
    ) -> Queued: ...

    @overload
    def track_property_recommendation(
        self,
        contact_id: Id,
        location_id: Id,
        property_id: Id,
        recommendation_score: Number,
        agent_id: Id | None = None,
        **more: Unpack[Moments],
    ) -> TrackingId: ...

    def track_property_recommendation(self, *positional: Any, **named: Any) -> Any:
        """Report that a property was recommended.

        Without a `recommendation_id` one is made, and returned for the interactions with it.
        """
        method = "track_property_recommendation"
        if "recommendation_id" in named or len(positional) == 1:
            return self._queued(self._track(method, positional, named))
        chosen = uuid4().hex
        self._track(method, positional, named, recommendation_id=chosen)
        return self._tracking_id(chosen)

    def track_property_interaction(
        self,
        recommendation_id: Id,
        interaction_type: Interaction,
        contact_id: Id | None = None,
        metadata: Data | None = None,
        **more: Any,
    ) -> Queued:
        """Report what a contact did with a recommended property."""
        fields = {"recommendation_id": recommendation_id, "interaction_type": interaction_type}
        named = {**fields, "contact_id": contact_id, "metadata": metadata, **more}
        return self._queued(self._track("track_property_interaction", (), named))

    def _track(
        self, method: str, positional: tuple[Any, ...], named: Mapping[str, Any], **chosen: str
    ) -> bool:
        """Check and queue a call. Raises ClientError where errors are to be raised."""
        call = _CALLS[method]
        try:
            given = {**read_arguments(method, positional, named, KNOWN[call]), **chosen}
            body, left_out = encode(call, given, self._place_of(call, given))
        except ArgumentError as error:
            return self._refuse(method, error)
        except Exception as error:  # whatever was passed must not break who passed it
            return self._refuse(method, ArgumentError("arguments", reason(error)))
        if left_out:
            message = f"{method} goes without what can't be written: {'; '.join(left_out)}"
            self._throttle.log(logging.WARNING, f"{method} left out", message)
        if not self._worker.put(call, body):
            return self._fail("the queue is full, or the client is closed")
        return True

    def _place_of(self, call: str, given: Mapping[str, Any]) -> str | None:
        """Return the location of a call that names none; a completion's is that of its start."""
        tracking_id = given.get("tracking_id")
        if call not in _OF_WEBHOOKS or tracking_id is None:
            return self._location_id
        known = convert("tracking_id", tracking_id)
        if call == platform_calls.WEBHOOK_COMPLETION:
            return self._places.get(known, self._location_id)
        place = given.get("location_id")
        if place is not None:
            self._places[known] = convert("location_id", place)
            if len(self._places) > _MOST_STARTS:
                self._places.popitem(last=False)
        return self._location_id

    def _refuse(self, method: str, error: ArgumentError) -> Literal[False]:
        self._worker.refused()
        if self._raise_errors:
            raise error
        topic = f"{method} {error.name}"
        self._throttle.log(logging.WARNING, topic, f"{method} is refused: {error}")
        return False

    def _fail(self, why: str) -> Literal[False]:
        if self._raise_errors:
            raise ClientError(why)
        self._throttle.log(logging.WARNING, why, why)
        return False


_CALLS = {
    "track_webhook_start": platform_calls.WEBHOOK_START,
    "track_webhook_completion": platform_calls.WEBHOOK_COMPLETION,
    "track_conversion_stage": platform_calls.CONVERSION,
    "track_agent_activity": platform_calls.AGENT_ACTIVITY,
    "track_agent_performance": platform_calls.AGENT_ACTIVITY,
    "track_property_recommendation": platform_calls.PROPERTY_RECOMMENDATION,
    "track_property_interaction": platform_calls.PROPERTY_INTERACTION,
}
_OF_WEBHOOKS = {platform_calls.WEBHOOK_START, platform_calls.WEBHOOK_COMPLETION}
