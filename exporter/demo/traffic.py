"""Send the agency's webhooks: its history through the inbox, its present signed and over HTTP."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import uuid4

import aiohttp
import asyncpg
import orjson
from nacl.signing import SigningKey

from exporter.demo.agency import Agency, Delivery
from exporter.inbox.event import GHL, InboxEvent
from exporter.inbox.partitions import create_partitions
from exporter.inbox.store import insert_events
from exporter.receiver.envelope import read_webhook
from exporter.receiver.signature import ED25519_HEADER

_BATCH = 1000
# Longer than any demo runs.
_FAR = timedelta(days=3650)


def as_received(delivery: Delivery) -> InboxEvent:
    """Return a webhook as the receiver would have stored it when it was sent."""
    body = orjson.dumps(delivery.body)
    address = delivery.address_suffix
    envelope = read_webhook(body, address)
    return InboxEvent(
        location_id=envelope.location_id,
        source=GHL,
        endpoint=address,
        event_type=envelope.event_type,
        idempotency_key=envelope.idempotency_key,
        correlation_id=uuid4().hex,
        received_at=delivery.at,
        body=body,
    )


async def write_history(
    connection: asyncpg.Connection,
    agency: Agency,
    start: datetime,
    end: datetime,
    told: Callable[[int, datetime], None],
) -> int:
    """Store what the agency sent from `start` to `end`, and return how many webhooks that were.

    `told` hears (webhooks stored, time reached). Written twice, it is stored once.
    """
    await create_partitions(connection, start.date())
    deliveries: Iterator[Delivery] = iter(agency.deliveries(start, end))
    count = await _store(connection, list(agency.setup(start)))
    while batch := list(islice(deliveries, _BATCH)):
        count += await _store(connection, batch)
        told(count, batch[-1].at)
    return count


async def _store(connection: asyncpg.Connection, deliveries: list[Delivery]) -> int:
    await insert_events(connection, [as_received(delivery) for delivery in deliveries])
    return len(deliveries)


async def last_received(connection: asyncpg.Connection) -> datetime | None:
    """Return when the last webhook was received, None before the first."""
    moment: datetime | None = await connection.fetchval(
        "SELECT max(received_at) FROM inbox WHERE received_at > now() - interval '120 days'"
    )
    return moment


class LiveTraffic:
    """Keeps sending what the agency does now, and harmless events beside it, signed."""

    def __init__(self, agency: Agency, key: SigningKey, url: str, rate: float) -> None:
        self._agency = agency
        self._key = key
        self._url = url
        self._rate = rate
        self.sent = 0
        self.refused = 0

    async def run(self, since: datetime) -> None:
        """Send for ever. What the service refuses or does not answer is sent again, as GHL does."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._send_business(session, since))
            if self._rate:
                group.create_task(self._send_chatter(session, int(since.timestamp())))

    async def _send_business(self, session: aiohttp.ClientSession, since: datetime) -> None:
        coming = self._agency.deliveries(since, since + _FAR)
        # Its beginning looks back at every life that may go on: seconds, so not in the loop.
        while delivery := await asyncio.to_thread(next, coming, None):
            await asyncio.sleep((delivery.at - datetime.now(UTC)).total_seconds())
            await self._send(session, delivery)

    async def _send_chatter(self, session: aiohttp.ClientSession, number: int) -> None:
        while True:
            delivery = await asyncio.to_thread(self._agency.chatter, datetime.now(UTC), number)
            await self._send(session, delivery)
            number += 1
            await asyncio.sleep(1 / self._rate)

    async def _send(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        body = orjson.dumps(delivery.body)
        signature = base64.b64encode(self._key.sign(body).signature).decode()
        address = "/".join(filter(None, ("/webhooks/ghl", delivery.address_suffix)))
        pause = 0.5
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.post(
                    self._url + address, data=body, headers={ED25519_HEADER: signature}
                ) as answer:
                    if answer.status < 300:
                        self.sent += 1
                        return
            self.refused += 1
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)
