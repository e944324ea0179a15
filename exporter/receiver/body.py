"""Read a request's body within bounds: its size before and after inflating, the memory of all."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


class TooLarge(Exception):
    """The body is larger than it may be."""


class BadEncoding(Exception):
    """The body's Content-Encoding is unknown or its data is damaged."""


class NoMemory(Exception):
    """Bodies that are being read take all the memory they may."""


class Aborted(Exception):
    """The sender went away, or its body broke off."""


class BodyReader:
    """Reads bodies; `max_buffered_bytes` bounds what all requests together hold."""

    def __init__(self, max_body_bytes: int, max_buffered_bytes: int) -> None:
        self._max_body = max_body_bytes
        self._free = max_buffered_bytes

    @contextmanager
    def reserve(self, request: web.BaseRequest) -> Iterator[None]:
        """Hold memory for a request's body until it is answered.

        Raises TooLarge for a Content-Length that is too large, NoMemory where none is left.
        """
        length = request.content_length
        if length is not None and length > self._max_body:
            raise TooLarge
        # A compressed or chunked body tells its size at its end only.
        known = length is not None and not request.headers.get("Content-Encoding")
        wanted = length if known and length is not None else self._max_body
        if wanted > self._free:
            raise NoMemory
        self._free -= wanted
        try:
            yield
        finally:
            self._free += wanted

    async def read(self, request: web.BaseRequest) -> bytes:
        """Return the inflated body. Raises TooLarge, BadEncoding or Aborted."""
        inflate = _inflater(request.headers.get("Content-Encoding", ""))
        chunks, size = [], 0
        try:
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > self._max_body:
                    raise TooLarge
                chunks.append(chunk)
        except (web.RequestPayloadError, ConnectionError, asyncio.IncompleteReadError) as error:
            raise Aborted(str(error)) from error
        body = b"".join(chunks)
        return body if inflate is None else _inflate(inflate, body, self._max_body)


def _inflater(encoding: str) -> "zlib._Decompress | None":
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        case "deflate":
            return zlib.decompressobj()
        case other:
            raise BadEncoding(f"Content-Encoding {other[:40]!r} is not supported")


def _inflate(inflate: "zlib._Decompress", body: bytes, limit: int) -> bytes:
    try:
        inflated = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadEncoding(str(error)) from None
    if len(inflated) > limit:
        raise TooLarge
    if not inflate.eof or inflate.unused_data:
        raise BadEncoding("the compressed data is cut off or has something after its end")
    return inflated
