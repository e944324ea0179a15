"""Read a request's body within bounds: size, time, and the memory of all bodies together.

Memory is taken as bytes arrive: what a request only announces costs nothing. One client may hold a
share of it, and a part is kept for small bodies, which nearly all webhooks have.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from exporter.http.client_address import Clients
from exporter.http.inflate import BadEncoding, Decoder, TooLarge
from exporter.settings import Settings

__all__ = ["Aborted", "BadEncoding", "BodyReader", "NoMemory", "TooLarge", "TooSlow"]

SMALL_BODY = 64 * 1024
# The part of the memory that only bodies up to SMALL_BODY get.
_SMALL_SHARE = 0.25
# The share of the time to answer in which a body must have come, whatever its size: that is its
# least rate as well.
_TIME_SHARE = 0.45


class NoMemory(Exception):
    """Bodies that are being read take all the memory they may."""


class TooSlow(Exception):
    """The body did not come in time."""


class Aborted(Exception):
    """The sender went away, or its body broke off."""


class BodyMemory:
    """Bounds the bytes that bodies hold, in all and by client."""

    def __init__(self, limit: int, client_share: float) -> None:
        self._free = limit
        self._kept_for_small = int(limit * _SMALL_SHARE)
        self._client_limit = limit * client_share
        self._held: dict[str, int] = {}

    def take(self, client: str, held: int, more: int) -> None:
        """Take bytes for a body that holds `held` already. Raises NoMemory."""
        least_free = self._kept_for_small if held + more > SMALL_BODY else 0
        if self._free - more < least_free:
            raise NoMemory("bodies take all the memory they may")
        holds = self._held.get(client, 0) + more
        if holds > self._client_limit:
            raise NoMemory("bodies of this client take all the memory they may")
        self._held[client] = holds
        self._free -= more

    def give_back(self, client: str, held: int) -> None:
        """Give back what a body holds."""
        if held:
            self._free += held
            self._held[client] -= held
            if not self._held[client]:
                del self._held[client]


class Body:
    """One request's body, while it is held in memory."""

    def __init__(
        self,
        request: web.BaseRequest,
        client: str,
        memory: BodyMemory,
        *,
        limit: int,
        within: float,
    ) -> None:
        self._request = request
        self._client = client
        self._memory = memory
        self._limit = limit
        self._within = within
        self._held = 0

    async def read(self) -> bytes:
        """Return the decoded body.

        Raises TooLarge, TooSlow, BadEncoding, Aborted or NoMemory.
        """
        length = self._request.content_length
        if length is not None and length > self._limit:
            raise TooLarge
        encoding = ",".join(self._request.headers.getall("Content-Encoding", ()))
        decoder = Decoder(encoding, self._limit)
        pieces, received = [], 0
        try:
            async with asyncio.timeout(self._within):
                async for chunk in self._request.content.iter_any():
                    received += len(chunk)
                    if received > self._limit:
                        raise TooLarge
                    piece = decoder.feed(chunk)
                    self._memory.take(self._client, self._held, len(piece))
                    self._held += len(piece)
                    pieces.append(piece)
        except TimeoutError:
            raise TooSlow("the body did not come in time") from None
        except (web.RequestPayloadError, ConnectionError, asyncio.IncompleteReadError) as error:
            raise Aborted(str(error)) from error
        decoder.finish()
        return b"".join(pieces)

    def close(self) -> None:
        """Give its memory back."""
        self._memory.give_back(self._client, self._held)
        self._held = 0


class BodyReader:
    """Reads the bodies of all addresses: they share one memory."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.max_body_bytes
        self._within = settings.answer_within_ms / 1000 * _TIME_SHARE
        self._clients = Clients(settings.trusted_proxies)
        self._memory = BodyMemory(settings.max_buffered_bytes, settings.client_share)

    @contextmanager
    def body_of(self, request: web.BaseRequest) -> Iterator[Body]:
        """Hold a request's body, from its first byte to the answer."""
        client = self._clients.of(request)
        body = Body(request, client, self._memory, limit=self._limit, within=self._within)
        try:
            yield body
        finally:
            body.close()
