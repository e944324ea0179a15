"""The receiver's addresses: check, store, answer. Nothing is parsed beyond a key and a route."""

import hmac
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

import structlog
from aiohttp import web

from exporter.domain.envelope import (
    Envelope,
    IncompleteError,
    read_webhook,
    read_workflow,
)
from exporter.domain.event import GHL, WORKFLOW, InboxEvent
from exporter.domain.json_fields import clean_text
from exporter.http.body import (
    Aborted,
    BadEncoding,
    BodyReader,
    NoMemory,
    TooLarge,
    TooSlow,
)
from exporter.http.correlation import CORRELATION_HEADER, correlation_id_of
from exporter.http.problem import problem
from exporter.http.refusal_log import RefusalLog
from exporter.inbox.inbox import Inbox, Outcome, Refused
from exporter.receiver.signature import (
    ED25519_HEADER,
    MISSING,
    RSA_HEADER,
    Rejected,
    Verifier,
)
from exporter.settings import Settings
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

SECRET_HEADER = "X-Webhook-Secret"  # noqa: S105 - the header's name
# The sender backs off by itself; this is the least it should wait, in seconds.
RETRY_AFTER = "10"

# The share of the time to answer after which PostgreSQL is given up, and the spool is left.
_DATABASE_SHARE = 0.70


class Receiver:
    """Handlers of `/webhooks/…`."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        metrics: LiveMetrics,
        bodies: BodyReader,
        refusals: RefusalLog,
    ) -> None:
        self._inbox = inbox
        self._metrics = metrics
        self._bodies = bodies
        self._refusals = refusals
        self._verifier = Verifier.from_pem(
            settings.ghl_public_keys, accept_rsa=settings.accept_rsa_signatures
        )
        secret = settings.ghl_webhook_secret
        self._secret = secret.get_secret_value().encode() if secret else None
        self.last_webhook_at: datetime | None = None
        """When this instance last took a webhook; None before the first."""
        self._answer_within = settings.answer_within_ms / 1000
        self._outcomes = {
            (source, outcome): metrics.webhooks.labels(source, outcome)
            for source in (GHL, WORKFLOW)
            for outcome in (*Outcome, "refused")
        }

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with and without a trailing slash: GHL follows no redirect."""
        return [
            web.post("/webhooks/ghl", self.ghl),
            web.post("/webhooks/ghl/", self.ghl),
            web.post("/webhooks/ghl/{event}", self.ghl),
            web.post("/webhooks/ghl/{event}/", self.ghl),
            web.post("/webhooks/workflow", self.workflow),
            web.post("/webhooks/workflow/", self.workflow),
        ]

    async def ghl(self, request: web.Request) -> web.StreamResponse:
        """Take a webhook that GHL signed over its raw body.

        The body's `type` names the event. The path's last part does where the body has none, and
        among appointment events, whose samples carry the wrong `type`.

        Answers: 200 it is in PostgreSQL (`stored`, or `duplicate`: it was before); 202 it is
        `spooled` on the local disk until PostgreSQL is back; 400 the body is not what its
        Content-Encoding says, or broke off; 401 the signature is missing or wrong; 413 the body is
        larger than `MAX_BODY_BYTES`; 429 it could be stored nowhere in time, came too slowly, or
        other bodies take all the memory they may: send it again after `Retry-After` seconds. A body
        that nobody can use is stored too, and answered 200.
        """
        ed25519 = request.headers.getall(ED25519_HEADER, ())
        rsa = request.headers.getall(RSA_HEADER, ())

        def authenticate(body: bytes | None) -> None:
            if body is not None:
                self._verifier.check(body, ed25519, rsa)
            elif not self._verifier.has_signature(ed25519, rsa):
                raise Rejected(MISSING, f"the header {ED25519_HEADER} is missing")

        address = request.match_info.get("event", "")
        return await self._take(
            request, GHL, address, authenticate, lambda body: read_webhook(body, address)
        )

    async def workflow(self, request: web.Request) -> web.StreamResponse:
        """Take the "Webhook" action of a workflow, which sends a shared secret in a header.

        The header is `X-Webhook-Secret`, the secret `GHL_WEBHOOK_SECRET`. The body needs
        `location.id`, and `contact_id` for facts to be made of it; GHL's default body has both. The
        same body again within the same location is a duplicate. Answers: as for GHL's webhooks; 401
        also where no secret is set up; 422 the body names no location, with the field that it
        lacks.
        """
        values = request.headers.getall(SECRET_HEADER, ())

        def authenticate(body: bytes | None) -> None:
            if body is None:
                self._check_secret(list(values))

        return await self._take(request, WORKFLOW, "", authenticate, read_workflow)

    def _check_secret(self, values: list[str]) -> None:
        if self._secret is None:
            raise Rejected(
                "secret_missing", "GHL_WEBHOOK_SECRET is not set: this address is closed"
            )
        if not values:
            raise Rejected("secret_missing", f"the header {SECRET_HEADER} is missing")
        given = values[0].encode("utf-8", "surrogateescape")
        if len(values) > 1 or not hmac.compare_digest(given, self._secret):
            raise Rejected("secret_invalid", f"{SECRET_HEADER} is not the secret of this service")

    async def _take(
        self,
        request: web.Request,
        source: str,
        address: str,
        authenticate: Callable[[bytes | None], None],
        read: Callable[[bytes], Envelope],
    ) -> web.StreamResponse:
        """Authenticate, store, answer. `authenticate(None)` looks at the headers alone."""
        started = time.monotonic()
        until = started + self._answer_within
        correlation_id = correlation_id_of(request)
        envelope: Envelope | None = None
        try:
            authenticate(None)
            with self._bodies.body_of(request) as incoming:
                body = await incoming.read()
                authenticate(body)
                envelope = read(body)
                outcome = await self._inbox.accept(
                    InboxEvent(
                        location_id=envelope.location_id,
                        source=source,
                        endpoint=clean_text(address) or "",
                        event_type=envelope.event_type,
                        idempotency_key=envelope.idempotency_key,
                        correlation_id=correlation_id,
                        received_at=datetime.now(UTC),
                        body=body,
                    ),
                    database_until=started + self._answer_within * _DATABASE_SHARE,
                    spool_until=until,
                )
        except Rejected as error:
            return self._reject(request, 401, error.reason, error.detail, correlation_id)
        except TooLarge:
            detail = "the body is larger than it may be"
            return self._reject(request, 413, "too_large", detail, correlation_id)
        except BadEncoding as error:
            return self._reject(request, 400, "bad_encoding", str(error), correlation_id)
        except Aborted as error:
            detail = f"the body broke off: {error}"
            return self._reject(request, 400, "aborted", detail, correlation_id)
        except IncompleteError as error:
            return self._reject(request, 422, "incomplete", str(error), correlation_id)
        except NoMemory as error:
            return self._reject(request, 429, "no_memory", str(error), correlation_id)
        except TooSlow as error:
            return self._reject(request, 429, "too_slow", str(error), correlation_id)
        except Exception as error:  # a fault of ours is a refusal as well: the sender comes again
            if not isinstance(error, Refused):
                log.exception("request_failed", path=request.path, error=error)
            return self._refuse(source, envelope, error, correlation_id, started)
        return self._answer(source, envelope, outcome, correlation_id, started, len(body))

    def _answer(
        self,
        source: str,
        envelope: Envelope,
        outcome: Outcome,
        correlation_id: str,
        started: float,
        size: int,
    ) -> web.Response:
        metrics = self._metrics
        self._outcomes[source, outcome].inc()
        metrics.webhooks_by_event.labels(metrics.event_label(envelope.event_type)).inc()
        location = envelope.location_id
        metrics.receive(location)
        duration = time.monotonic() - started
        metrics.request_duration.observe(duration)
        self.last_webhook_at = datetime.now(UTC)
        metrics.last_webhook.labels(source).set(self.last_webhook_at.timestamp())
        log.info(
            "webhook",
            outcome=outcome,
            source=source,
            type=_event_name(envelope.event_type),
            location=location,
            key=envelope.idempotency_key,
            correlation_id=correlation_id,
            bytes=size,
            seconds=round(duration, 6),
        )
        return web.Response(
            status=202 if outcome is Outcome.SPOOLED else 200,
            body=b'{"status":"%b"}' % outcome.encode(),
            content_type="application/json",
            headers={CORRELATION_HEADER: correlation_id},
        )

    def _reject(
        self, request: web.Request, status: int, reason: str, detail: str, correlation_id: str
    ) -> web.Response:
        """Answer what has not proved to be a sender's: it must not fill the log."""
        self._metrics.rejected.labels(reason).inc()
        self._refusals.note(
            reason, client=request.remote, correlation_id=correlation_id, detail=detail
        )
        log.debug("webhook_rejected", reason=reason, status=status, correlation_id=correlation_id)
        headers = {CORRELATION_HEADER: correlation_id}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            headers["Retry-After"] = RETRY_AFTER
        return problem(status, detail, headers=headers, close=True)

    def _refuse(
        self,
        source: str,
        envelope: Envelope | None,
        error: Exception,
        correlation_id: str,
        started: float,
    ) -> web.Response:
        self._outcomes[source, "refused"].inc()
        if envelope is None:  # a fault of ours, before anything was read of it
            self._metrics.finish("", None, "refused")
        else:
            self._metrics.finish(envelope.location_id, envelope.event_type, "refused")
        log.warning(
            "webhook",
            outcome="refused",
            source=source,
            error=error,
            correlation_id=correlation_id,
            seconds=round(time.monotonic() - started, 6),
        )
        return problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "stored nowhere: send it again later",
            headers={CORRELATION_HEADER: correlation_id, "Retry-After": RETRY_AFTER},
            close=True,
        )


def _event_name(event_type: str) -> str:
    """Return an event's name for the log: a sender can put any text into its place."""
    return event_type if _NAME.fullmatch(event_type) else "other"
