"""Which web pages may read the API from a browser: none, unless `CORS_ORIGINS` names them."""

from collections.abc import Collection
from typing import Any

from aiohttp import hdrs, web

_METHODS = "GET, POST"
_HEADERS = "Authorization, Content-Type, If-None-Match, X-Correlation-ID"
_EXPOSED = "ETag, X-Correlation-ID, Retry-After"


def cors(origins: Collection[str]) -> Any:
    """Make the middleware. Other origins get no header, so that browsers keep the answer away."""

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if not request.path.startswith("/api/") or origin not in origins or origin is None:
            untouched: web.StreamResponse = await handler(request)
            return untouched
        if (
            request.method == hdrs.METH_OPTIONS
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        ):
            response: web.StreamResponse = web.Response(status=204)
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _HEADERS
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
        else:
            response = await handler(request)
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        return response

    return middleware
