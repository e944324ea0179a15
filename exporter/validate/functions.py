"""Does it work: a small story is told, and every figure must say exactly that."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import orjson
from nacl.signing import SigningKey

from exporter.api.kpi_answers import ENDPOINTS
from exporter.api.read import BASE
from exporter.client import AsyncClient
from exporter.demo.signing import signature_headers
from exporter.validate.report import Report

_PATIENCE = 20.0
_PRICE = 412_000.0


async def check_functions(
    report: Report, session: aiohttp.ClientSession, client: AsyncClient, location_id: str
) -> None:
    """Tell a lead's way to a deal, and look for it in the dashboard.

    The location's figures of today must grow by exactly that, whatever was told before.
    """
    group = "functions"
    before = await client.get_executive_dashboard_metrics(days=1)
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
    grown: dict[tuple[str, str], float] = {}
    while grown != expected and time.monotonic() - started < _PATIENCE:
        # An answer that was kept is some seconds old.
        after = await client.get_executive_dashboard_metrics(days=1)
        grown = {
            place: _at(after, place) - _at(before, place) for place in expected if after is not None
        }
        await asyncio.sleep(0.5)
    for place, value in expected.items():
        got = grown.get(place)
        report.add(group, f"{place[1]} grew", got == value, got, f"{value:,.0f}")
    seconds = time.monotonic() - started
    report.add(group, "told and answered within", grown == expected, f"{seconds:.1f} s", "20 s")
    name = "the location has series on /metrics"
    seen = await _has_series(session, location_id)
    report.add(group, name, seen, "/metrics is not open" if seen is None else "")


async def _has_series(session: aiohttp.ClientSession, location_id: str) -> bool | None:
    """Wait for the location's KPIs; None where /metrics is not to be read."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        async with session.get("/metrics") as response:
            if response.status != 200:
                return None
            if f'ghl_leads_created{{location="{location_id}"' in await response.text():
                return True
        await asyncio.sleep(0.5)
    return False


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
            name = path.partition("?")[0].removeprefix(BASE)
            report.add(group, name, good, figure, "401, 200")
    for kind in ("csv", "xlsx"):
        path = f"{BASE}/dashboard/{place}?format={kind}"
        async with session.get(path, headers=headers) as response:
            size = len(await response.read())
            good = response.status == 200 and size > 0
            report.add(group, f"the dashboard as {kind}", good, f"{size:,} bytes")
