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
from exporter.domain.json_fields import clean_text

READ, TRACK, ADMIN = "read", "track", "admin"
SCOPES = (READ, TRACK, ADMIN)
EVERYWHERE = "*"

_PREFIX = "ghlx"
_ID_BYTES, _SECRET_BYTES = 6, 32
# Seconds that a revoked key may still work.
_FRESH = 5.0
# Seconds that a key which was good stays good while PostgreSQL can't be asked.
_GOOD_WITHOUT_DATABASE = 86_400.0
_TIMEOUT = 1.0
_LONGEST_TOKEN = 200


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


# When it was looked up, on the monotonic clock, its secret's digest, and the key.
_Remembered = tuple[float, bytes, ApiKey | None]
_NOT_KNOWN: _Remembered = (-math.inf, b"", None)


class KeyRing:
    """Finds the key of a token: remembered for seconds, and for longer while PostgreSQL is away.

    Only keys that exist are remembered, so nothing that strangers send takes their place.
    """

    def __init__(self, database: ApiDatabase) -> None:
        self._database = database
        self._known: dict[str, _Remembered] = {}
        self._any_until = -math.inf

    def knows(self, token: str) -> bool:
        """Tell whether a token was good when its key was last looked up, at most a day ago."""
        parts = _parts(token)
        at, digest, _ = self._known.get(parts[0] if parts else "", _NOT_KNOWN)
        good = time.monotonic() - at < _GOOD_WITHOUT_DATABASE
        return parts is not None and good and hmac.compare_digest(parts[1], digest)

    async def find(self, token: str) -> ApiKey | None:
        """Return the key that a token stands for, or None. Raises one of `DATABASE_ERRORS`."""
        if (parts := _parts(token)) is None:
            return None
        key_id, digest = parts
        _, expected, key = await self._look_up(key_id)
        return key if hmac.compare_digest(digest, expected) else None

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

    async def _look_up(self, key_id: str) -> _Remembered:
        now = time.monotonic()
        remembered = self._known.get(key_id, _NOT_KNOWN)
        if now - remembered[0] < _FRESH:
            return remembered
        try:
            async with self._database.connection(_TIMEOUT) as connection:
                row = await connection.fetchrow(
                    "SELECT * FROM api_keys WHERE key_id = $1 AND revoked_at IS NULL",
                    key_id,
                    timeout=_TIMEOUT,
                )
        except DATABASE_ERRORS:
            if now - remembered[0] < _GOOD_WITHOUT_DATABASE:
                return remembered
            raise
        if row is None:
            self._known.pop(key_id, None)
            return _NOT_KNOWN
        self._known[key_id] = found = (now, row["digest"], _key(row))
        return found


def _parts(token: str) -> tuple[str, bytes] | None:
    """Return the id and the secret's digest, or None where a text can't be a token of ours."""
    prefix, _, rest = token.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != _PREFIX or not secret or len(token) > _LONGEST_TOKEN:
        return None
    return None if clean_text(key_id) is None else (key_id, _digest(secret))
