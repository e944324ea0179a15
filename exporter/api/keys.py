"""API keys: made once, shown once, kept as a digest, with scopes and the locations they may see."""

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from exporter.api.database import ApiDatabase
from exporter.database.connect import Connection
from exporter.database.errors import DATABASE_ERRORS
from exporter.fields import clean_text

READ, TRACK, ADMIN = "read", "track", "admin"
SCOPES = (READ, TRACK, ADMIN)
EVERYWHERE = "*"

_PREFIX = "ghlx"
_ID_BYTES, _SECRET_BYTES = 6, 32
# Seconds: so long a revoked key may still work, and so long one is taken for unknown.
_FRESH = 5.0
# Seconds that a key which was good stays good while PostgreSQL can't be asked.
_GOOD_WITHOUT_DATABASE = 86_400.0
_TIMEOUT = 1.0
_MAX_REMEMBERED = 10_000


class KeyProblem(ValueError):
    """The key can't be made; the text says why."""


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret."""

    key_id: str
    name: str
    scopes: frozenset[str]
    locations: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None = None

    def may(self, scope: str) -> bool:
        """Tell whether the key has a scope; `admin` includes the others."""
        return scope in self.scopes or ADMIN in self.scopes

    def sees(self, location_id: str) -> bool:
        """Tell whether the key may see a location."""
        return EVERYWHERE in self.locations or location_id in self.locations


def _digest(secret: str) -> bytes:
    # The secret is random and long: there is nothing to slow a guesser down for.
    return hashlib.sha256(secret.encode()).digest()


def _wanted(values: Iterable[str]) -> list[str]:
    return sorted({value.strip() for value in values} - {""})


async def create_key(
    connection: Connection, name: str, scopes: Iterable[str], locations: Iterable[str]
) -> str:
    """Make a key and return it: the only time that it can be seen. Raises KeyProblem."""
    wanted_scopes, wanted_locations = _wanted(scopes), _wanted(locations)
    unknown = set(wanted_scopes) - set(SCOPES)
    if unknown or not wanted_scopes:
        named = ", ".join(sorted(unknown)) or "nothing"
        raise KeyProblem(f"--scopes: no scope: {named} (of {', '.join(SCOPES)})")
    if not wanted_locations or any(clean_text(place) is None for place in wanted_locations):
        raise KeyProblem("--locations: name location ids, separated by commas, or '*' for all")
    if EVERYWHERE in wanted_locations:
        wanted_locations = [EVERYWHERE]
    if clean_text(name) is None:
        raise KeyProblem("--name: name the key, in at most 255 bytes")
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    await connection.execute(
        "INSERT INTO api_keys (key_id, name, digest, scopes, locations)"
        " VALUES ($1, $2, $3, $4, $5)",
        key_id,
        name,
        _digest(secret),
        wanted_scopes,
        wanted_locations,
    )
    return f"{_PREFIX}_{key_id}_{secret}"


async def list_keys(connection: Connection) -> list[ApiKey]:
    """Return all keys, revoked ones too, by their creation."""
    rows = await connection.fetch("SELECT * FROM api_keys ORDER BY created_at, key_id")
    return [_key(row) for row in rows]


async def revoke_key(connection: Connection, key_id: str) -> bool:
    """Revoke a key; return False where there is none, or it was revoked before."""
    row = await connection.fetchval(
        "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1 AND revoked_at IS NULL"
        " RETURNING key_id",
        key_id,
    )
    return row is not None


def _key(row: asyncpg.Record) -> ApiKey:
    return ApiKey(
        row["key_id"],
        row["name"],
        frozenset(row["scopes"]),
        frozenset(row["locations"]),
        row["created_at"],
        row["revoked_at"],
    )


class KeyRing:
    """Finds the key of a token: remembered for seconds, and for longer while PostgreSQL is away."""

    def __init__(self, database: ApiDatabase) -> None:
        self._database = database
        self._found: dict[str, tuple[float, bytes, ApiKey | None]] = {}
        self._any_until = -math.inf

    async def find(self, token: str) -> ApiKey | None:
        """Return the key that a token stands for, or None. Raises one of `DATABASE_ERRORS`."""
        prefix, _, rest = token.partition("_")
        key_id, _, secret = rest.partition("_")
        if prefix != _PREFIX or not secret or len(token) > 200 or clean_text(key_id) is None:
            return None
        digest = _digest(secret)
        key, expected = await self._look_up(key_id)
        if key is None or not hmac.compare_digest(digest, expected):
            return None
        return key

    async def any(self) -> bool:
        """Tell whether any key can be used at all. Raises one of `DATABASE_ERRORS`."""
        # Whoever knocks without a key shall not cost a query each time.
        if time.monotonic() < self._any_until:
            return True
        async with self._database.connection(_TIMEOUT) as connection:
            found = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM api_keys WHERE revoked_at IS NULL)", timeout=_TIMEOUT
            )
        if found:
            self._any_until = time.monotonic() + _FRESH
        return bool(found)

    async def _look_up(self, key_id: str) -> tuple[ApiKey | None, bytes]:
        now = time.monotonic()
        at, digest, key = self._found.get(key_id, (-_GOOD_WITHOUT_DATABASE, b"", None))
        if now - at < _FRESH:
            return key, digest
        try:
            async with self._database.connection(_TIMEOUT) as connection:
                row = await connection.fetchrow(
                    "SELECT * FROM api_keys WHERE key_id = $1 AND revoked_at IS NULL",
                    key_id,
                    timeout=_TIMEOUT,
                )
        except DATABASE_ERRORS:
            if key is not None and now - at < _GOOD_WITHOUT_DATABASE:
                return key, digest
            raise
        if len(self._found) >= _MAX_REMEMBERED:
            self._found.clear()
        key, digest = (_key(row), row["digest"]) if row else (None, b"")
        self._found[key_id] = (now, digest, key)
        return key, digest
