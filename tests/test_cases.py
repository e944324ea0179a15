"""The hand-computed cases: events, and the KPI values they must give."""

import json
import random
from datetime import date, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.api.keys import create_key
from exporter.api.responses import ENDPOINTS
from exporter.domain.event import InboxEvent
from exporter.kpis.definitions import answered_kpis
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rebuild import rebuild
from exporter.service.app import create_app
from exporter.settings import Settings, load_settings
from tests.conftest import SHARED, needs_shared
from tests.projecting import (
    clear,
    dump,
    found,
    kpis,
    project_all,
    received,
    rest_values,
    store,
    tracked,
)

pytestmark = needs_shared

# Of now alone: REST answers null for a past `until`, as the cases have.
CURRENT = {m.name for kpi in answered_kpis() if kpi.current for m in kpi.metric}
KNOWN = {metric.name for kpi in answered_kpis() for metric in kpi.metric}


CASES = sorted((SHARED / "cases").glob("*.json"))


def _event(event: dict[str, Any]) -> InboxEvent:
    at = datetime.fromisoformat(event["received_at"])
    if event["kind"] == "track":
        return tracked(event["body"], event["endpoint"], at)
    if event["kind"] == "backfill":
        return found(event["body"], at)
    return received(json.dumps(event["body"]).encode(), event["endpoint"], at)


def _settings(case: dict[str, Any], url: str, **more: object) -> Settings:
    given = {name.lower(): value for name, value in case.get("settings", {}).items()}
    return load_settings(database_url=url, time_zones={"*": case["time_zone"]}, **given, **more)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
async def test_a_case_gives_exactly_its_values_in_any_order_and_after_rebuild(
    path: Path, connection: asyncpg.Connection, database_url: str
) -> None:
    case = json.loads(path.read_text())
    settings = _settings(case, database_url)
    events = [_event(event) for event in case["events"]]
    facts = []
    for seed in range(4):
        await clear(connection)
        order = list(events)
        if seed:
            random.Random(seed).shuffle(order)
            order += random.Random(seed).sample(events, len(events) // 2)
        for event in order:
            await store(connection, [event])
            if seed % 2:
                await project_all(connection, settings)
        await project_all(connection, settings)
        await _compare(case, connection, settings, f"seed {seed}")
        facts.append(await dump(connection))
    reader = await asyncpg.connect(database_url)
    report = await rebuild(connection, reader, FactSettings.from_settings(settings))
    await reader.close()
    assert not any(report.differences.values()), report.differences
    await _compare(case, connection, settings, "after rebuild")
    assert await dump(connection) == facts[-1]


async def _compare(
    case: dict[str, Any], connection: asyncpg.Connection, settings: Settings, when: str
) -> None:
    until = date.fromisoformat(case["until"])
    values = await kpis(connection, settings, case["expected"], until=until, days=case["days"])
    for location, expected in case["expected"].items():
        for name, value in expected.items():
            assert name.partition("{")[0] in KNOWN
            got = values[location].get(name)
            assert got == (None if value is None else pytest.approx(value, rel=1e-9)), (
                f"{name} {when}"
            )


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
async def test_rest_answers_a_case_with_exactly_its_values(
    path: Path,
    connection: asyncpg.Connection,
    database_url: str,
    tmp_path: Path,
    aiohttp_client: Any,
) -> None:
    case = json.loads(path.read_text())
    settings = _settings(case, database_url, spool_path=tmp_path / "spool.sqlite3")
    await store(connection, [_event(event) for event in case["events"]])
    await project_all(connection, settings)
    key = await create_key(connection, "test", ["read"], ["*"])
    client = await aiohttp_client(create_app(settings))
    headers = {"Authorization": f"Bearer {key}"}
    query = {"until": case["until"], "days": str(case["days"])}
    for location, expected in case["expected"].items():
        values: dict[str, float | None] = {}
        for endpoint in ENDPOINTS:
            url = f"/api/business-metrics/{endpoint}/{location}"
            async with client.get(url, params=query, headers=headers) as response:
                answer = await response.json()
                assert response.status == 200, answer
            values |= rest_values(endpoint, answer)
        for name, value in expected.items():
            none = value is None or name in CURRENT
            assert values.get(name) == (None if none else pytest.approx(value, rel=1e-9)), name
