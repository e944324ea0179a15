"""Recognize what this service, and nobody else, has put into Redis, and when.

Whoever can write to Redis could put anything there: what was not made with the key, which is in
PostgreSQL, is garbage. A sealed value is bound to its name, so it can't be copied under
another, and to its creation, so it can't be put back later.
"""

import hmac
import struct
import time

import asyncpg

from exporter.database.errors import DATABASE_ERRORS
from exporter.support.tasks import ignoring

_VERSION = b"\x01"
_CREATED = struct.Struct(">Q")  # milliseconds since 1970
_DIGEST = "sha256"
_DIGEST_BYTES = 32
_HEAD_BYTES = len(_VERSION) + _CREATED.size + _DIGEST_BYTES
# Seconds that the clocks of two instances may differ by.
_CLOCK_DIFFERENCE = 5.0
# Seconds: of a try to read the key, and between two.
_TIMEOUT = 1.0
_TRY_EVERY = 5.0


class Seal:
    """Seals values with the key of the database, and opens what was sealed with it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._key: bytes | None = None
        self._try_at = 0.0

    async def load(self) -> bool:
        """Tell whether the key is known; read it where it is not, now and then."""
        now = time.monotonic()
        if self._key is None and now >= self._try_at:
            self._try_at = now + _TRY_EVERY
            with ignoring(*DATABASE_ERRORS):
                async with self._pool.acquire(timeout=_TIMEOUT) as connection:
                    self._key = await connection.fetchval(
                        "SELECT key FROM cache_key", timeout=_TIMEOUT
                    )
        return self._key is not None

    def close(self, name: str, content: bytes) -> bytes:
        """Return content as it may be kept under a name. The key must be known."""
        created = _CREATED.pack(int(time.time() * 1000))
        return _VERSION + created + self._digest(name, created, content) + content

    def open(self, name: str, sealed: object, max_age: float) -> bytes | None:
        """Return the content of what is kept under a name, at most `max_age` seconds old.

        None for whatever was not sealed with the key, for this name, within that time.
        """
        if self._key is None or not isinstance(sealed, bytes) or len(sealed) < _HEAD_BYTES:
            return None
        version, rest = sealed[:1], sealed[1:]
        created, rest = rest[: _CREATED.size], rest[_CREATED.size :]
        digest, content = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
        if version != _VERSION:
            return None
        if not hmac.compare_digest(digest, self._digest(name, created, content)):
            return None
        age = time.time() - _CREATED.unpack(created)[0] / 1000
        return content if -_CLOCK_DIFFERENCE <= age < max_age else None

    def _digest(self, name: str, created: bytes, content: bytes) -> bytes:
        if self._key is None:
            raise RuntimeError("the key is not known")
        # The name's length goes first: no part can be moved into another.
        named = name.encode("utf-8", "surrogatepass")
        said = len(named).to_bytes(4, "big") + named + _VERSION + created + content
        return hmac.digest(self._key, said, _DIGEST)
