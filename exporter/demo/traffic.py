"""Send what the agency and its platform tell: their history through the inbox, their present over
HTTP, webhooks signed and tracking calls by the Python client.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import orjson
from nacl.signing import SigningKey

from exporter.client import AsyncClient
from exporter.demo.agency import Agency, Delivery
from exporter.demo.platform import PlatformCall, body_of, stream
from exporter.demo.signing import signature_headers
from exporter.domain import platform_calls
from exporter.domain.envelope import read_call, read_webhook
from exporter.domain.event import GHL, PLATFORM, InboxEvent
from exporter.inbox.history import begin_import, end_import
from exporter.inbox.partitions import create_partitions
from exporter.inbox.store import insert_events

_BATCH = 1000
# Longer than any demo runs.
_FAR = timedelta(days=3650)


def as_received(told: Delivery | PlatformCall) -> InboxEvent:
    """Return a webhook or a tracking call as it would have been stored when it was sent."""
    if isinstance(told, PlatformCall):
        fields = body_of(told)
        body = orjson.dumps(fields)
        source, address = PLATFORM, told.call
        envelope = read_call(told.call, body, fields)
    else:
        body = orjson.dumps(told.body)
        source, address = GHL, told.address_suffix
        envelope = read_webhook(body, address)
    return InboxEvent(
        location_id=envelope.location_id,
        source=source,
        endpoint=address,
        event_type=envelope.event_type,
        idempotency_key=envelope.idempotency_key,
        correlation_id=uuid4().hex,
        received_at=told.at,
        body=body,
    )


_HISTORY = "the simulated history"


async def write_history(
    connection: asyncpg.Connection,
    agency: Agency,
    start: datetime,
    end: datetime,
    told: Callable[[int, datetime], None],
) -> int:
    """Store what was told from `start` to `end`, and return how many events that were.

    `told` hears (events stored, time reached). Written twice, it is stored once. Until its end
    figures are not final.
    """
    await create_partitions(connection, start.date())
    deliveries = stream(agency, start, end)
    await begin_import(connection, _HISTORY)
    count = await _store(connection, list(agency.setup(start)))
    while batch := list(islice(deliveries, _BATCH)):
        count += await _store(connection, batch)
        told(count, batch[-1].at)
    await end_import(connection, _HISTORY)
    return count


async def _store(
    connection: asyncpg.Connection, deliveries: Sequence[Delivery | PlatformCall]
) -> int:
    await insert_events(connection, [as_received(delivery) for delivery in deliveries])
    return len(deliveries)


async def last_received(connection: asyncpg.Connection) -> datetime | None:
    """Return when the last webhook was received, None before the first."""
    moment: datetime | None = await connection.fetchval(
        "SELECT max(received_at) FROM inbox WHERE received_at > now() - interval '120 days'"
    )
    return moment


class LiveTraffic:
    """Keeps sending what the agency and the platform do now, and harmless events beside it."""

    def __init__(
        self, agency: Agency, key: SigningKey, url: str, rate: float, api_key: str
    ) -> None:
        self._agency = agency
        self._key = key
        self._url = url
        self._rate = rate
        self._client = AsyncClient(url, api_key)
        self.sent = 0
        self.refused = 0

    async def run(self, since: datetime) -> None:
        """Send for ever. What the service refuses or does not answer is sent again, as GHL does."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            self._client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._send_business(session, since))
            if self._rate:
                group.create_task(self._send_chatter(session, int(since.timestamp())))

    async def _send_business(self, session: aiohttp.ClientSession, since: datetime) -> None:
        coming = stream(self._agency, since, since + _FAR)
        # Its beginning looks back at every life that may go on: seconds, so not in the loop.
        while told := await asyncio.to_thread(next, coming, None):
            await asyncio.sleep((told.at - datetime.now(UTC)).total_seconds())
            if isinstance(told, PlatformCall):
                self._track(told)
            else:
                await self._send(session, told)

    def _track(self, told: PlatformCall) -> None:
        methods: dict[str, Any] = {
            platform_calls.WEBHOOK_START: self._client.track_webhook_start,
            platform_calls.WEBHOOK_COMPLETION: self._client.track_webhook_completion,
            platform_calls.CONVERSION: self._client.track_conversion_stage,
            platform_calls.AGENT_ACTIVITY: self._client.track_agent_activity,
            platform_calls.PROPERTY_RECOMMENDATION: self._client.track_property_recommendation,
            platform_calls.PROPERTY_INTERACTION: self._client.track_property_interaction,
        }
        methods[told.call](**told.body, occurred_at=told.at)

    async def waiting(self) -> int:
        """How many stored events are not facts yet; 0 where nobody knows."""
        health = await self._client.get_health()
        return (health or {}).get("events_waiting") or 0

    @property
    def tracked(self) -> int:
        """How many tracking calls the service has taken."""
        return self._client.stats.sent

    async def _send_chatter(self, session: aiohttp.ClientSession, number: int) -> None:
        while True:
            delivery = await asyncio.to_thread(self._agency.chatter, datetime.now(UTC), number)
            await self._send(session, delivery)
            number += 1
            await asyncio.sleep(1 / self._rate)

    async def _send(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        body = orjson.dumps(delivery.body)
        address = "/".join(filter(None, ("/webhooks/ghl", delivery.address_suffix)))
        pause = 0.5
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.post(
                    self._url + address, data=body, headers=signature_headers(self._key, body)
                ) as answer:
                    if answer.status < 300:
                        self.sent += 1
                        return
            self.refused += 1
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)
