"""Who may call: a bearer token, its scopes, its locations."""

from aiohttp import hdrs, web

from exporter.api.audit import Audit
from exporter.api.keys import EVERYWHERE, ApiKey, KeyRing
from exporter.api.limits import PerMinute, RateLimit, seconds_left
from exporter.database.errors import DATABASE_ERRORS
from exporter.http.client_address import Clients
from exporter.http.problem import Problem
from exporter.http.refusal_log import RefusalLog

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ghl-exporter"'}
_CLOSED = (
    "the API is closed: no key has been created (ghl-exporter keys create --name NAME"
    " --scopes read,track --locations '*')"
)
RETRY_AFTER = {"Retry-After": "5"}


# Requests a minute that an address may make without a good key before it gets 429. A key that was
# good before works from there all the same: an office, or a proxy, is one address.
_STRANGERS_PER_MINUTE = 60
# Entries of the audit table a minute about requests without a good key, from all addresses.
_NOTES_PER_MINUTE = 100


class Guard:
    """Lets a request pass, or raises the Problem that it is answered with."""

    def __init__(
        self, keys: KeyRing, limit: RateLimit, clients: Clients, refusals: RefusalLog, audit: Audit
    ) -> None:
        self._keys = keys
        self._limit = limit
        self._clients = clients
        self._refusals = refusals
        self._audit = audit
        self._strangers = PerMinute()
        self._notes = PerMinute()

    async def key_of(self, request: web.Request, scope: str) -> ApiKey:
        """Return the request's key. Raises Problem: 401, 403, 429, or 503 where nobody can tell."""
        try:
            key = await self._identify(request, _token_of(request))
        except DATABASE_ERRORS:
            raise Problem(
                503, "PostgreSQL is away, and this key is not known yet", headers=RETRY_AFTER
            ) from None
        if (wait := await self._limit.spend(key.key_id)) is not None:
            raise Problem(429, "this key calls too often", headers={"Retry-After": str(wait)})
        if not key.may(scope):
            raise Problem(403, f"this key lacks the scope {scope}")
        return key

    async def _identify(self, request: web.Request, token: str) -> ApiKey:
        client = self._clients.of(request)
        known = self._keys.knows(token)
        # Counted before anybody asks PostgreSQL: what comes all at once is bounded too.
        count = 0 if known else self._strangers.add(client)
        if count > _STRANGERS_PER_MINUTE:
            self._note(request, client, 429, once=count == _STRANGERS_PER_MINUTE + 1)
            detail = "this address sends too many requests without a good key"
            raise Problem(429, detail, headers={"Retry-After": str(seconds_left())})
        key = await self._keys.find(token)
        if key is not None:
            if not known:
                self._strangers.add(client, -1)
            return key
        if known:  # it has been revoked
            count = self._strangers.add(client)
        self._note(request, client, 401, once=count == 1)
        detail = "send a key that is good: Authorization: Bearer …"
        raise Problem(401, detail if await self._keys.any() else _CLOSED, headers=_CHALLENGE)

    def _note(self, request: web.Request, client: str, status: int, once: bool) -> None:
        self._refusals.note("no_good_key", client=client)
        if once and self._notes.add("") <= _NOTES_PER_MINUTE:
            self._audit.note_stranger(request, client, status)


def _token_of(request: web.Request) -> str:
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    kind, _, token = (given[0] if len(given) == 1 else "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def require_location(key: ApiKey, location_id: str) -> None:
    """Raise Problem where the key may not see the location; whether there is one is not told."""
    if not key.sees(location_id):
        raise Problem(403, f"this key may not see the location {location_id}")


def only_location(key: ApiKey) -> str:
    """Return the one location of a key. Raises Problem where the key may see several, or all.

    What such a key says without a location could be of any tenant's.
    """
    if len(key.locations) == 1 and EVERYWHERE not in key.locations:
        return next(iter(key.locations))
    raise Problem(422, "this key sees several locations: say which one in location_id")
