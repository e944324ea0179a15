"""Errors as problem+json (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson
from aiohttp import web


class Problem(Exception):
    """What a handler raises to be answered as a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.errors = errors


def problem(
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    close: bool = False,
) -> web.Response:
    """Make an error response. `close` ends the connection: its body may not have been read."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    response = web.Response(
        status=status,
        body=orjson.dumps({**body, "errors": errors} if errors else body),
        content_type="application/problem+json",
        headers=headers,
    )
    if close:
        response.force_close()
    return response
