"""Does it work: a small story is told, and every figure must say exactly that."""

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import orjson
from nacl.signing import SigningKey

from exporter.api.parameters import MOST_DAYS
from exporter.api.read import BASE
from exporter.api.responses import ENDPOINTS
from exporter.client import AsyncClient
from exporter.demo.signing import signature_headers
from exporter.validate.progress import Progress
from exporter.validate.report import Report

_PATIENCE = 20.0  # seconds
_PRICE = 412_000.0


async def check_functions(
    report: Report,
    session: aiohttp.ClientSession,
    client: AsyncClient,
    location_id: str,
    progress: Progress,
) -> None:
    """Track a lead's way to a deal at a new location, and look for it in the dashboard."""
    group = "functions"
    name = uuid4().hex
    async with client.webhook("ContactCreate") as processing:
        processing.enrichment_data = {"budget": _PRICE}
        processing.ai_activated = True
    for stage in ("lead_created", "ai_qualified", "property_showing", "offer_submitted"):
        client.track_conversion_stage(name, stage, ai_score=80)
    client.track_lead_conversion(name, "deal_closed", deal_value=_PRICE, agent_id="validator")
    client.track_agent_activity("validator", "call", contact_id=name, ai_recommendation_used=True)
    client.track_property_recommendation(name, contact_id=name, agent_id="validator")
    client.track_property_interaction(name, "liked", contact_id=name)
    sent = await client.flush(_PATIENCE / 4)
    stats = client.stats
    report.add(
        group, "tracking calls are taken", sent, f"{stats.sent} taken, {stats.rejected} wrong"
    )
    expected = {
        ("summary", "leads_created"): 1.0,
        ("summary", "deals_closed"): 1.0,
        ("summary", "total_revenue"): _PRICE,
        ("property_matching", "recommendations_made"): 1.0,
    }
    started = time.monotonic()
    found: dict[tuple[str, str], float] = {}
    dashboard = None
    # All of it was today. Each length of the window is a question of its own, which nobody has
    # cached an answer to.
    for days in range(1, MOST_DAYS + 1):
        dashboard = await client.get_executive_dashboard_metrics(days=days)
        found = {place: _at(dashboard, place) for place in expected}
        if found == expected or time.monotonic() - started > _PATIENCE:
            break
        progress.waiting(started, _PATIENCE)
        await asyncio.sleep(0.5)
    for place, value in expected.items():
        report.add(group, f"{place[1]} grew", found[place] == value, found[place], f"{value:,.0f}")
    seconds = time.monotonic() - started
    figure = f"{seconds:.1f} s"
    if dashboard is None:
        figure = "no figures of a new location: is GHL_LOCATION_ID set?"
    report.add(
        group, "tracked and answered within", found == expected, figure, f"{_PATIENCE:.0f} s"
    )
    seen, why = await _has_series(session, location_id, progress)
    report.add(group, "the location has series on /metrics", seen, why)


async def _has_series(
    session: aiohttp.ClientSession, location_id: str, progress: Progress
) -> tuple[bool | None, str]:
    """Wait for the location's KPIs; None where this address has none to read, with the reason."""
    started = time.monotonic()
    patience = _PATIENCE
    while True:
        async with session.get("/metrics") as response:
            if response.status == 404:
                return None, "/metrics has an address of its own (METRICS_ADDRESS)"
            if response.status != 200:
                return None, "/metrics is not open: is METRICS_TOKEN set?"
            text = await response.text()
        if f'ghl_leads_created{{location="{location_id}"' in text:
            return True, ""
        if re.search(r"^ghl_exporter_leader 0", text, re.MULTILINE):
            return None, "another instance publishes KPIs"
        if interval := re.search(r"^ghl_exporter_kpi_interval_seconds (\S+)$", text, re.MULTILINE):
            patience = _PATIENCE + float(interval[1])
        if time.monotonic() - started > patience:
            return False, f"not within {patience:.0f} s"
        progress.waiting(started, patience)
        await asyncio.sleep(0.5)


def _at(dashboard: dict[str, Any] | None, place: tuple[str, str]) -> float:
    value = (dashboard or {}).get(place[0], {}).get(place[1])
    return float(value or 0)


async def check_webhooks(
    report: Report, session: aiohttp.ClientSession, key: SigningKey | None, location_id: str
) -> None:
    """Send webhooks that are signed, signed by somebody else, and twice."""
    group = "webhooks"
    if key is None:
        report.add(group, "signed webhooks", None, "only GHL can sign for a service that runs")
        return
    body = orjson.dumps(
        {
            "type": "ContactCreate",
            "locationId": location_id,
            "id": uuid4().hex,
            "webhookId": uuid4().hex,
            "timestamp": datetime.now(UTC).isoformat(),
        }
    )
    cases = (
        ("a signed one is taken", key, 200),
        ("sent again it is taken, and counted once", key, 200),
        ("one that somebody else signed is refused", SigningKey.generate(), 401),
    )
    for name, signer, expected in cases:
        headers = signature_headers(signer, body)
        async with session.post("/webhooks/ghl", data=body, headers=headers) as response:
            report.add(group, name, response.status == expected, response.status, str(expected))


async def check_api(
    report: Report, session: aiohttp.ClientSession, key: str, location_id: str
) -> None:
    """Ask every endpoint, with the key and without."""
    group = "api"
    place = quote(location_id, safe="")
    paths = [f"{BASE}/{name}/{place}" for name in ("dashboard", "summary", *ENDPOINTS)]
    paths += [f"{BASE}/explain/ghl_revenue?location_id={place}", f"{BASE}/health"]
    headers = {"Authorization": f"Bearer {key}"}
    for path in paths:
        async with session.get(path) as refused, session.get(path, headers=headers) as answered:
            figure = f"{refused.status} without a key, {answered.status} with it"
            good = (refused.status, answered.status) == (401, 200)
            name = path.partition("?")[0].removeprefix(BASE).removesuffix(f"/{place}")
            report.add(group, name, good, figure, "401, 200")
    for kind in ("csv", "xlsx"):
        path = f"{BASE}/dashboard/{place}?format={kind}"
        async with session.get(path, headers=headers) as response:
            size = len(await response.read())
            good = response.status == 200 and size > 0
            report.add(group, f"the dashboard as {kind}", good, f"{size:,} bytes")
