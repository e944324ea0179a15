"""The id by which a request is found again: in the answer, in the log, in the inbox."""

import re
from uuid import uuid4

from aiohttp import web

CORRELATION_HEADER = "X-Correlation-ID"
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def correlation_id_of(request: web.BaseRequest) -> str:
    """Return the id that the sender gave, or a new one where it gave none that can be used."""
    given = request.headers.get(CORRELATION_HEADER) or request.headers.get("X-Request-ID")
    return given if given and _CORRELATION_ID.fullmatch(given) else uuid4().hex
