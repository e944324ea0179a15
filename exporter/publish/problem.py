"""Errors as problem+json (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from aiohttp import web


def problem(
    status: int, detail: str, *, headers: Mapping[str, str] | None = None, close: bool = False
) -> web.Response:
    """Make an error response. `close` ends the connection: its body may not have been read."""
    response = web.Response(
        status=status,
        body=orjson.dumps({"title": HTTPStatus(status).phrase, "status": status, "detail": detail}),
        content_type="application/problem+json",
        headers=headers,
    )
    if close:
        response.force_close()
    return response
