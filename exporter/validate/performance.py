"""Is it fast enough: the first design's targets, measured here and now."""

import asyncio
import re
import time
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import orjson
from nacl.signing import SigningKey

from exporter.api.read import BASE
from exporter.api.responses import ENDPOINTS
from exporter.database.connect import connect
from exporter.database.errors import UNAVAILABLE
from exporter.demo.signing import signature_headers
from exporter.kpis.definitions import all_kpis
from exporter.kpis.refresh import query_kpi
from exporter.kpis.windows import EXPORTED_DAYS, windows
from exporter.settings import Settings
from exporter.validate.progress import Progress
from exporter.validate.report import Report, percentile

WEBHOOK_P95_MS = 1000
DASHBOARD_MS = 2000
API_P95_MS = 200
QUERY_P90_MS = 50
MEMORY_MB = 512
_GROUP = "performance"
_WEBHOOKS, _AT_ONCE = 400, 8
_QUERY_ROUNDS = 5


async def check_performance(
    report: Report,
    session: aiohttp.ClientSession,
    api_key: str,
    signing_key: SigningKey | None,
    location_id: str,
    settings: Settings | None,
    progress: Progress,
) -> None:
    """Measure against the targets. `settings`: of the database, where it can be reached."""
    await _webhooks(report, session, signing_key, location_id)
    await _answers(report, session, api_key, location_id, progress)
    await _queries(report, settings, location_id)
    await _memory(report, session)


async def _webhooks(
    report: Report, session: aiohttp.ClientSession, key: SigningKey | None, location_id: str
) -> None:
    name = "webhook, from its first byte to its answer, p95"
    if key is None:
        report.add(_GROUP, name, None, "only GHL can sign for a service that runs")
        return
    taken: list[float] = []
    numbers = iter(range(_WEBHOOKS))

    async def send() -> None:
        for number in numbers:
            told = {
                "type": "NoteCreate",
                "locationId": location_id,
                "webhookId": uuid4().hex,
                "timestamp": datetime.now(UTC).isoformat(),
                "body": f"note {number} " + "x" * 800,
            }
            body = orjson.dumps(told)
            headers = signature_headers(key, body)
            started = time.perf_counter()
            async with session.post("/webhooks/ghl", data=body, headers=headers) as response:
                await response.read()
                response.raise_for_status()
            taken.append((time.perf_counter() - started) * 1000)

    await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
    report.below(_GROUP, name, percentile(taken, 0.95), WEBHOOK_P95_MS, "ms")


async def _answers(
    report: Report,
    session: aiohttp.ClientSession,
    key: str,
    location_id: str,
    progress: Progress,
) -> None:
    place = quote(location_id, safe="")
    headers = {"Authorization": f"Bearer {key}"}

    async def ask(path: str, days: int) -> float:
        while True:
            started = time.perf_counter()
            async with session.get(f"{path}?days={days}", headers=headers) as response:
                await response.read()
            if response.status != HTTPStatus.TOO_MANY_REQUESTS:
                response.raise_for_status()
                return (time.perf_counter() - started) * 1000
            # A key may only ask so often in a minute.
            wait = min(int(response.headers.get("Retry-After", "1")), 60)
            progress.update(f"the key's limit is reached, waiting {wait} s")
            await asyncio.sleep(wait)

    # Each length of the window is a question of its own, which nobody has kept an answer to.
    path = f"{BASE}/dashboard/{place}"
    fresh = [await ask(path, days) for days in range(60, 90)]
    report.below(_GROUP, "dashboard, computed, slowest of 30", max(fresh), DASHBOARD_MS, "ms")
    kept = [await ask(path, 89) for _ in range(30)]
    report.below(_GROUP, "dashboard, kept, p95", percentile(kept, 0.95), DASHBOARD_MS, "ms")
    for name in ENDPOINTS:
        progress.update(name)
        each = [await ask(f"{BASE}/{name}/{place}", days) for days in range(60, 80)]
        report.below(_GROUP, f"{name}, computed, p95", percentile(each, 0.95), API_P95_MS, "ms")


async def _queries(report: Report, settings: Settings | None, location_id: str) -> None:
    name = "KPI queries, p90 of each, the slowest"
    if settings is None:
        report.add(_GROUP, name, None, "needs DATABASE_URL")
        return
    try:
        connection = await connect(settings, "validate")
    except UNAVAILABLE as error:
        report.add(_GROUP, name, None, f"DATABASE_URL: {error}")
        return
    now = datetime.now(UTC)
    worst, slowest = "", 0.0
    try:
        chosen = windows(settings, [location_id], now=now, days=EXPORTED_DAYS)
        for kpi in all_kpis():
            taken = []
            for _ in range(_QUERY_ROUNDS):
                started = time.perf_counter()
                await query_kpi(connection, kpi, chosen, settings=settings, now=now, timeout=30)
                taken.append((time.perf_counter() - started) * 1000)
            if (value := percentile(taken, 0.9)) > slowest:
                worst, slowest = kpi.name, value
    finally:
        await connection.close()
    report.below(_GROUP, f"{name} ({worst})", slowest, QUERY_P90_MS, "ms")


async def _memory(report: Report, session: aiohttp.ClientSession) -> None:
    async with session.get("/metrics") as response:
        found = re.search(r"^process_resident_memory_bytes (\S+)$", await response.text(), re.M)
    if found is None:
        report.add(
            _GROUP,
            "memory of the service",
            None,
            "/metrics is not open (METRICS_TOKEN), or has none",
        )
        return
    report.below(_GROUP, "memory of the service", float(found[1]) / 1e6, MEMORY_MB, "MB")
