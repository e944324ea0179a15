"""`/api/business-metrics/track/…`: what the platform tells, stored before it is answered."""

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
import structlog
from aiohttp import web
from pydantic import ValidationError

from exporter.api.audit import Audit
from exporter.api.authentication import Guard, only_location, require_location
from exporter.api.keys import TRACK, ApiKey
from exporter.domain import platform_calls
from exporter.domain.call_models import MODELS, Call
from exporter.domain.envelope import read_call
from exporter.domain.event import PLATFORM, InboxEvent
from exporter.domain.json_fields import Unreadable, dump_json, parse_json
from exporter.http.body import (
    Aborted,
    BadEncoding,
    Body,
    BodyReader,
    NoMemory,
    TooLarge,
    TooSlow,
)
from exporter.http.correlation import CORRELATION_HEADER, correlation_id_of
from exporter.http.problem import Problem
from exporter.inbox.inbox import Inbox, Outcome, Refused
from exporter.settings import Settings
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

MOST_CALLS = 1000
_MOST_ERRORS = 20
_RETRY_AFTER = {"Retry-After": "5"}
# The share of the time to answer after which PostgreSQL is given up, and the spool is left.
_DATABASE_SHARE = 0.70


class Tracking:
    """Handlers of the tracking calls."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        metrics: LiveMetrics,
        guard: Guard,
        audit: Audit,
        bodies: BodyReader,
    ) -> None:
        self._inbox = inbox
        self._metrics = metrics
        self._guard = guard
        self._audit = audit
        self._bodies = bodies
        self._answer_within = settings.answer_within_ms / 1000

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post("/api/business-metrics/track/{call}", self.track)]

    async def track(self, request: web.Request) -> web.Response:
        """Take a tracking call, or a JSON array of up to 1,000 of one kind.

        Needs a key with the scope `track` for each location that is named. Answers: 200 all of it
        is in PostgreSQL; 202 some of it is spooled on the local disk until PostgreSQL is back; 401
        and 403 the key; 404 there is no such call; 413 too large; 422 it is not valid, with the
        fields that are wrong, and nothing of it is stored; 429 not all of it could be stored in
        time: send it again, with `idempotency_key`s.
        """
        started = time.monotonic()
        call = request.match_info["call"]
        model = MODELS.get(call)
        if model is None:
            raise Problem(
                404, f"there is no such call; there are {', '.join(platform_calls.CALLS)}"
            )
        key = await self._guard.key_of(request, TRACK)
        self._audit.note(request, key, None)
        correlation_id = correlation_id_of(request)
        try:
            with self._bodies.body_of(request) as incoming:
                body = await _read(incoming)
                calls = _validate(model, body, key)
                now = datetime.now(UTC)
                events = [_event(call, one, correlation_id, now) for one in calls]
                outcomes = await self._inbox.accept_many(
                    events,
                    database_until=started + self._answer_within * _DATABASE_SHARE,
                    spool_until=started + self._answer_within,
                )
        except (NoMemory, TooSlow, Refused) as error:
            self._metrics.calls.labels(call, "refused").inc()
            log.warning("tracking", outcome="refused", call=call, key=key.key_id, error=error)
            raise Problem(429, "it could not be stored in time", headers=_RETRY_AFTER) from None
        counts = Counter(outcomes)
        for outcome, count in counts.items():
            self._metrics.calls.labels(call, outcome).inc(count)
        duration = time.monotonic() - started
        self._metrics.call_duration.observe(duration)
        log.info(
            "tracking",
            call=call,
            key=key.key_id,
            calls=len(calls),
            correlation_id=correlation_id,
            seconds=round(duration, 6),
            **{outcome.value: count for outcome, count in counts.items()},
        )
        answer: dict[str, Any] = {outcome.value: counts[outcome] for outcome in Outcome}
        if call == platform_calls.WEBHOOK_START:
            ids = [one["tracking_id"] for one in calls]
            answer |= {"tracking_ids": ids} if isinstance(body, list) else {"tracking_id": ids[0]}
        return web.Response(
            status=202 if counts[Outcome.SPOOLED] else 200,
            body=orjson.dumps(answer),
            content_type="application/json",
            headers={CORRELATION_HEADER: correlation_id},
        )


async def _read(body: Body) -> Any:
    try:
        return parse_json(await body.read())
    except TooLarge:
        raise Problem(413, "the body is larger than it may be") from None
    except (BadEncoding, Aborted) as error:
        raise Problem(400, str(error)) from None
    except Unreadable as error:
        raise Problem(400, f"the body is {error}") from None


def _validate(model: type[Call], body: Any, key: ApiKey) -> list[dict[str, Any]]:
    """Return the calls as they will be stored. Raises Problem, with the fields that are wrong."""
    several = isinstance(body, list)
    given: Sequence[Any] = body if several else [body]
    if not 1 <= len(given) <= MOST_CALLS:
        raise Problem(422, f"an array holds 1 to {MOST_CALLS} calls")
    errors: list[dict[str, str]] = []
    calls = []
    for position, one in enumerate(given):
        try:
            checked = model.model_validate(one)
        except ValidationError as error:
            place = f"{position}." if several else ""
            errors += [
                {
                    "field": place + (".".join(map(str, problem["loc"])) or "body"),
                    "problem": problem["msg"].removeprefix("Value error, "),
                }
                for problem in error.errors(include_url=False, include_input=False)
            ]
            if len(errors) >= _MOST_ERRORS:
                break
            continue
        calls.append(_placed(one, checked, key))
    if errors:
        raise Problem(422, "the call is not valid", errors=errors[:_MOST_ERRORS])
    return calls


def _placed(one: dict[str, Any], checked: Call, key: ApiKey) -> dict[str, Any]:
    """Return a call with its location, which the key has to see, and its tracking_id."""
    call = dict(one)
    # A completion may leave its location out where the key has one only.
    if checked.location_id is None:  # type: ignore[unreachable, unused-ignore]
        call["location_id"] = only_location(key)
    else:
        require_location(key, checked.location_id)
    if "tracking_id" in type(checked).model_fields and call.get("tracking_id") is None:
        call["tracking_id"] = _tracking_id(checked)
    return call


def _tracking_id(call: Call) -> str:
    """Return a new id for a start; the same for the same key, for a retry must find it again."""
    if call.idempotency_key is None:
        return uuid4().hex
    return hashlib.sha256(f"{call.location_id}\0{call.idempotency_key}".encode()).hexdigest()[:32]


def _event(call: str, fields: dict[str, Any], correlation_id: str, now: datetime) -> InboxEvent:
    body = dump_json(fields)
    envelope = read_call(call, body, fields)
    return InboxEvent(
        location_id=envelope.location_id,
        source=PLATFORM,
        endpoint=call,
        event_type=envelope.event_type,
        idempotency_key=envelope.idempotency_key,
        correlation_id=correlation_id,
        received_at=now,
        body=body,
    )
