"""A service that runs: may this key do what is asked for, what can be read, what must be erased."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import aiohttp

from exporter.api.read import BASE
from exporter.commands.output import Output
from exporter.validate.progress import Progress
from exporter.validate.report import Report
from exporter.validate.target import ValidateError

_ERASE_TRIES = 4
_ERASE_PAUSE = 2.0
_ERASE_TIMEOUT = aiohttp.ClientTimeout(total=60)
_LOCATION = re.compile(r'^ghl_leads_created\{location="((?:[^"\\]|\\.)*)"', re.MULTILINE)
# Each costs a question of the key's limit.
_TRIED_LOCATIONS = 20
_MAKE_KEY = "ghl-exporter keys create --name validate --scopes {scopes} --locations '*'"


def own_location() -> str:
    """Return a location id that nobody else has."""
    return f"ghl-exporter-validate-{token_hex(8)}"


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _place(location_id: str) -> str:
    return f"{BASE}/locations/{quote(location_id, safe='')}"


def _summary(location_id: str) -> str:
    return f"{BASE}/summary/{quote(location_id, safe='')}"


async def require_key(session: aiohttp.ClientSession, key: str) -> None:
    """Raise ValidateError unless a ghl-exporter answers, and lets the key read."""
    status, detail = await _ask(session, "GET", f"{BASE}/health", key)
    if status != 200:
        raise ValidateError(_why(status, detail, "read"))


async def require_erasing(session: aiohttp.ClientSession, key: str, location_id: str) -> None:
    """Raise ValidateError unless the key may erase what will be written."""
    path = f"{_place(location_id)}?dry_run=true"
    status, detail = await _ask(session, "DELETE", path, key)
    if status != 200:
        raise ValidateError(
            f"nothing was written, for it could not be erased: {_why(status, detail, 'admin')}"
        )


def _why(status: int, detail: str, scope: str) -> str:
    """Return in one line why the service did not answer 200."""
    made = _MAKE_KEY.format(scopes=scope)
    match status:
        case 401:
            return f"GHL_EXPORTER_KEY: the service does not know this key ({made})"
        case 403:
            return f"GHL_EXPORTER_KEY: {detail} ({made})"
        case 404 | 405:
            return f"--url: no ghl-exporter answers there, or one of an older version ({status})"
        case _:
            return f"--url: the service answers {status}: {detail}"


async def _ask(session: aiohttp.ClientSession, method: str, path: str, key: str) -> tuple[int, str]:
    """Return the status and the problem's detail; another program's 200 counts as 404."""
    async with session.request(
        method, path, headers=_headers(key), allow_redirects=False
    ) as response:
        try:
            answer: Any = await response.json()
        except (aiohttp.ContentTypeError, ValueError):
            return (404 if response.status == 200 else response.status), "no JSON"
    detail = answer.get("detail", "") if isinstance(answer, dict) else ""
    return response.status, str(detail)


async def find_location(session: aiohttp.ClientSession, key: str) -> str | None:
    """Return a location that has figures and that the key may see; None where none can be found."""
    async with session.get("/metrics") as response:
        if response.status != 200:
            return None
        shown = dict.fromkeys(_LOCATION.findall(await response.text()))
    # What was erased just now still has series, and is not found; other keys have other locations.
    for label in islice(shown, _TRIED_LOCATIONS):
        location_id = re.sub(r"\\(.)", r"\1", label)
        if (await _ask(session, "GET", _summary(location_id), key))[0] == 200:
            return location_id
    return None


async def require_location(session: aiohttp.ClientSession, key: str, location_id: str) -> None:
    """Raise ValidateError unless the service knows a location that the key may see."""
    status, detail = await _ask(session, "GET", _summary(location_id), key)
    if status == 404:
        raise ValidateError(f"--location-id: the service knows no location {location_id!r}")
    if status != 200:
        raise ValidateError(_why(status, detail, "read"))


@asynccontextmanager
async def erasing(
    session: aiohttp.ClientSession,
    key: str,
    location_id: str,
    report: Report,
    output: Output,
    progress: Progress,
) -> AsyncIterator[None]:
    """Erase a location at the end, however that comes: done, failed, or stopped."""
    try:
        yield
    finally:
        with progress.phase(f"erasing {location_id}"):
            problem = await _erase(session, key, location_id)
        report.add("cleaning up", "what was written is erased", problem is None, problem or "")
        if problem is None:
            await check_erased(report, session, key, location_id)
        else:
            output.error(
                f"{location_id} is not erased ({problem}): run ghl-exporter erase {location_id}"
            )


async def _erase(session: aiohttp.ClientSession, key: str, location_id: str) -> str | None:
    """Erase a location; return why it was not, if so."""
    problem = ""
    for attempt in range(_ERASE_TRIES):
        if attempt:
            await asyncio.sleep(_ERASE_PAUSE)
        try:
            async with session.delete(
                _place(location_id), headers=_headers(key), timeout=_ERASE_TIMEOUT
            ) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
            continue
        if response.status == 200:
            return answer.get("problem") if isinstance(answer, dict) else "no JSON"
        problem = f"the service answers {response.status}"
    return problem


async def check_erased(
    report: Report, session: aiohttp.ClientSession, key: str, location_id: str
) -> None:
    """Check that the service knows nothing of an erased location any more."""
    path = f"{BASE}/dashboard/{quote(location_id, safe='')}"
    status, _ = await _ask(session, "GET", path, key)
    report.add("cleaning up", "the service knows nothing of it", status == 404, status, "404")
