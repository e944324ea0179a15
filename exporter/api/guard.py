"""Who may call: a bearer token, its scopes, its locations."""

from aiohttp import hdrs, web

from exporter.api.keys import EVERYWHERE, ApiKey, KeyRing
from exporter.api.limits import RateLimit
from exporter.database.errors import DATABASE_ERRORS
from exporter.publish.problem import Problem

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ghl-exporter"'}
_CLOSED = (
    "the API is closed: no key has been created (ghl-exporter keys create --name NAME"
    " --scopes read,track --locations '*')"
)
RETRY_AFTER = {"Retry-After": "5"}


class Guard:
    """Lets a request pass, or raises the Problem that it is answered with."""

    def __init__(self, keys: KeyRing, limit: RateLimit) -> None:
        self._keys = keys
        self._limit = limit

    async def key_of(self, request: web.Request, scope: str) -> ApiKey:
        """Return the request's key. Raises Problem: 401, 403, 429, or 503 where nobody can tell."""
        given = request.headers.getall(hdrs.AUTHORIZATION, [])
        kind, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        try:
            key = await self._keys.find(token.strip()) if kind.lower() == "bearer" else None
            if key is None:
                detail = "send a key that is good: Authorization: Bearer …"
                if not await self._keys.any():
                    detail = _CLOSED
                raise Problem(401, detail, headers=_CHALLENGE)
        except DATABASE_ERRORS:
            raise Problem(
                503, "PostgreSQL is away, and this key is not known yet", headers=RETRY_AFTER
            ) from None
        if (wait := await self._limit.spend(key.key_id)) is not None:
            raise Problem(429, "this key calls too often", headers={"Retry-After": str(wait)})
        if not key.may(scope):
            raise Problem(403, f"this key lacks the scope {scope}")
        return key


def require_location(key: ApiKey, location_id: str) -> None:
    """Raise Problem where the key may not see the location; whether there is one is not told."""
    if not key.sees(location_id):
        raise Problem(403, f"this key may not see the location {location_id}")


def only_location(key: ApiKey) -> str | None:
    """Return the one location of a key that has one, None for a key that sees all.

    Raises Problem for a key of several: what it says without a location could be of another's.
    """
    if EVERYWHERE in key.locations:
        return None
    if len(key.locations) == 1:
        return next(iter(key.locations))
    raise Problem(422, "this key sees several locations: say which one in location_id")
