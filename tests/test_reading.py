"""The reading endpoints over HTTP: what they answer, to whom, in which form, and what is kept."""

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import openpyxl
import pytest
from aiohttp.test_utils import TestClient

from exporter.api.dashboard import leaves
from exporter.api.keys import create_key
from exporter.api.openapi import document
from exporter.api.responses import ENDPOINTS
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey
from exporter.domain.event import InboxEvent
from exporter.kpis.definitions import answered_kpis
from exporter.service.app import METRICS_APP, create_app
from exporter.settings import Settings, load_settings
from tests.conftest import wait_until
from tests.projecting import project_all, received, store, tracked

BASE = "/api/business-metrics"
NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
FORMULA = '=HYPERLINK("http://evil.example","free")'


def _ghl(kind: str, days_ago: float, **fields: Any) -> InboxEvent:
    at = (NOW - timedelta(days=days_ago)).isoformat()
    body = {"type": kind, "locationId": "a", "timestamp": at, **fields}
    return received(json.dumps(body).encode(), "ghl", NOW)


def _events() -> list[InboxEvent]:
    """Ten leads in 10 days, five before; a deal each second day; an agent named like a formula."""
    events = [
        _ghl("UserCreate", 20, id=FORMULA, firstName=FORMULA),
        _ghl("UserCreate", 20, id="ann", firstName="Ann", lastName="Lee"),
    ]
    for n in range(15):
        at = (NOW - timedelta(days=n)).isoformat()
        events.append(_ghl("ContactCreate", n, id=f"c{n}", dateAdded=at, assignedTo="ann"))
        owner = FORMULA if n % 4 else "ann"
        if n % 2 == 0:
            events.append(
                _ghl(
                    "OpportunityCreate",
                    n,
                    id=f"o{n}",
                    contactId=f"c{n}",
                    status="won",
                    monetaryValue=1000 * (n + 1),
                    assignedTo=owner,
                )
            )
        rec = {"location_id": "a", "recommendation_id": f"r{n}", "occurred_at": at}
        events.append(tracked({**rec, "agent_id": "ann"}, "property-recommendation", NOW))
        if n % 3 == 0:
            liked = {**rec, "interaction_type": "liked"}
            events.append(tracked(liked, "property-interaction", NOW))
    other = {"type": "ContactCreate", "locationId": "b", "id": "x", "dateAdded": NOW.isoformat()}
    events.append(received(json.dumps(other).encode(), "ghl", NOW))
    return events


@pytest.fixture
async def settings(
    connection: asyncpg.Connection, database_url: str, valkey: EmbeddedValkey, tmp_path: Path
) -> Settings:
    made = load_settings(
        database_url=database_url,
        redis_url=valkey.url(),
        spool_path=tmp_path / "spool.sqlite3",
        cors_origins="https://app.example.com",
    )
    await store(connection, _events())
    await project_all(connection, made)
    return made


class Reader:
    """Asks with a key."""

    def __init__(self, client: TestClient[Any, Any], key: str | None) -> None:
        self.client = client
        self.key = key

    async def get(
        self, path: str, headers: dict[str, str] | None = None, **query: object
    ) -> tuple[int, bytes, Mapping[str, str]]:
        sent = {**({"Authorization": f"Bearer {self.key}"} if self.key else {}), **(headers or {})}
        asked = {name: str(value) for name, value in query.items()}
        async with self.client.get(path, params=asked, headers=sent) as response:
            return response.status, await response.read(), response.headers

    async def json(self, path: str, **query: object) -> Any:
        status, body, _ = await self.get(path, None, **query)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture
async def reader(
    settings: Settings, connection: asyncpg.Connection, aiohttp_client: Any
) -> AsyncIterator[Reader]:
    client = await aiohttp_client(create_app(settings))
    yield Reader(client, await create_key(connection, "all", ["read"], ["*"]))


async def test_the_dashboard_says_what_was_told_rates_in_percent(reader: Reader) -> None:
    answer = await reader.json(f"{BASE}/dashboard/a", days=10)
    assert answer["period_days"] == 10
    assert answer["summary"]["leads_created"] == 10
    assert answer["summary"]["deals_closed"] == 5
    assert answer["summary"]["conversion_rate"] == 50
    assert answer["summary"]["total_revenue"] == 1000 + 3000 + 5000 + 7000 + 9000
    assert answer["summary"]["revenue_per_lead"] == 2500
    assert answer["property_matching"]["acceptance_rate"] == 40
    assert answer["property_matching"]["interactions"]["liked"] == 4
    best = answer["top_agents"][0]
    assert (best["agent_id"], best["name"], best["revenue"]) == ("ann", "Ann Lee", 15_000)
    assert answer["performance_grade"]["grade"] in {"A+", "A", "A-", "B+", "B", "B-"}
    assert "trends" not in answer
    summary = await reader.json(f"{BASE}/summary/a", days=10)
    assert summary["summary"] == answer["summary"]


async def test_trends_are_each_days_figure_and_the_change_against_the_period_before(
    reader: Reader,
) -> None:
    answer = await reader.json(f"{BASE}/dashboard/a", days=7, include_trends="true")
    leads = answer["trends"]["summary.leads_created"]
    assert [point["value"] for point in leads["series"]] == [1] * 7
    assert leads["series"][-1]["day"] == answer["last_day"]
    assert (leads["previous"], leads["change_rate"]) == (7, 0)
    revenue = answer["trends"]["summary.total_revenue"]
    assert sum(point["value"] for point in revenue["series"]) == answer["summary"]["total_revenue"]
    assert revenue["previous"] == 9000 + 11_000 + 13_000
    change = (16_000 - 33_000) / 33_000 * 100
    assert revenue["change_rate"] == pytest.approx(change)
    # Each figure of the dashboard has its trend.
    figures = {name: answer[name] for name in ("summary", "business_impact", "ghl_integration")}
    assert {path for path, _ in leaves(figures)} <= set(answer["trends"])


async def test_what_an_endpoint_answers_is_what_its_model_says(reader: Reader) -> None:
    """Every KPI is answered by exactly one endpoint, under its own name."""
    answered: list[str] = []
    for endpoint in ENDPOINTS:
        answer = await reader.json(f"{BASE}/{endpoint}/a")
        answered += answer["figures"]
        answered += [name for name in (answer.get("agents") or [{}])[0] if name.startswith("ghl_")]
    assert sorted(answered) == sorted(m.name for kpi in answered_kpis() for m in kpi.metric)


async def test_one_agent(reader: Reader) -> None:
    answer = await reader.json(f"{BASE}/agent-performance/a", agent_id="ann", days=10)
    assert [row["agent"] for row in answer["agents"]] == ["ann"]
    assert answer["agents"][0]["ghl_agent_leads_assigned"] == 10
    answer = await reader.json(f"{BASE}/agent-performance/a", agent_id="nobody")
    assert answer["agents"] == []


async def test_a_figure_is_explained_by_the_rows_it_was_computed_from(reader: Reader) -> None:
    about = {"location_id": "a", "days": 10}
    answer = await reader.json(f"{BASE}/explain/ghl_revenue", **about)
    assert answer["figure"] == sum(row["deal_value"] for row in answer["items"]) == 25_000
    assert answer["total"] == 5
    first = await reader.json(f"{BASE}/explain/ghl_revenue", **about, page_size=2)
    last = await reader.json(f"{BASE}/explain/ghl_revenue", **about, page_size=2, page=3)
    assert (len(first["items"]), len(last["items"]), last["total"]) == (2, 1, 5)
    assert first["items"] == answer["items"][:2]
    assert last["items"] == answer["items"][4:]
    leads = await reader.json(f"{BASE}/explain/ghl_revenue_per_lead", **about, list="leads")
    assert (leads["total"], leads["lists"]) == (10, ["deals", "leads"])
    anns = await reader.json(f"{BASE}/explain/ghl_agent_revenue", **about, agent="ann")
    assert anns["figure"] == [{"agent": "ann", "value": 15_000}]
    assert sum(row["deal_value"] for row in anns["items"]) == 15_000
    liked = await reader.json(
        f"{BASE}/explain/ghl_property_interactions", **about, interaction="liked"
    )
    assert liked["total"] == liked["figure"]["liked"] == 4


@pytest.mark.parametrize("name", [m.name for kpi in answered_kpis() for m in kpi.metric])
async def test_every_list_of_every_kpi_can_be_asked_for(reader: Reader, name: str) -> None:
    answer = await reader.json(f"{BASE}/explain/{name}", location_id="a")
    for chosen in answer["lists"]:
        shown = await reader.json(f"{BASE}/explain/{name}", location_id="a", list=chosen)
        assert shown["total"] >= len(shown["items"])
        assert all(list(item) == shown["columns"] for item in shown["items"])


async def test_files_for_spreadsheets_start_no_formula(reader: Reader) -> None:
    query: dict[str, object] = {"location_id": "a", "days": 10, "format": "csv"}
    _, body, headers = await reader.get(f"{BASE}/explain/ghl_revenue", None, **query)
    assert headers["Content-Type"].startswith("text/csv")
    assert headers["Content-Disposition"] == 'attachment; filename="explain-ghl_revenue.csv"'
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert len(rows) == 5
    assert {row["agent_id"] for row in rows} == {"ann", "'" + FORMULA}
    assert sum(float(row["deal_value"]) for row in rows) == 25_000
    _, body, _ = await reader.get(
        f"{BASE}/explain/ghl_revenue", None, **{**query, "format": "xlsx"}
    )
    sheet = openpyxl.load_workbook(io.BytesIO(body))["deals"]
    column = [cell.value for cell in next(sheet.iter_cols(min_col=4, max_col=4))]
    assert column[0] == "agent_id"
    assert FORMULA in column
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)
    for kind in ("csv", "xlsx"):
        status, body, _ = await reader.get(
            f"{BASE}/dashboard/a", None, days=10, format=kind, include_trends="true"
        )
        assert status == 200
        if kind == "csv":
            text = body.decode()
            assert "summary.total_revenue,25000" in text
            assert ",=" not in text
        else:
            book = openpyxl.load_workbook(io.BytesIO(body))
            assert {"summary", "business_impact", "top_agents", "trends"} <= set(book.sheetnames)


async def test_an_answer_that_the_asker_has_is_not_sent_again(
    reader: Reader, connection: asyncpg.Connection
) -> None:
    path = f"{BASE}/revenue-metrics/a"
    _, _, headers = await reader.get(path)
    assert headers["Cache-Control"] == "private, max-age=15"
    status, body, _ = await reader.get(path, {"If-None-Match": headers["ETag"]})
    assert (status, body) == (304, b"")
    status, _, other = await reader.get(path, {"If-None-Match": headers["ETag"]}, days=3)
    assert (status, other["ETag"] == headers["ETag"]) == (200, False)


async def test_kept_answers_come_from_redis_and_without_it_from_the_database(
    settings: Settings, connection: asyncpg.Connection, aiohttp_client: Any, tmp_path: Path
) -> None:
    with EmbeddedValkey(tmp_path / "own") as own:
        mine = settings.model_copy(
            update={"redis_url": type(settings.database_url)(own.url()), "dashboard_cache_ttl": 60}
        )
        client = await aiohttp_client(create_app(mine))
        reader = Reader(client, await create_key(connection, "all", ["read"], ["*"]))
        path = f"{BASE}/dashboard/a"
        first = await reader.json(path)
        await store(connection, [_ghl("ContactCreate", 0, id="new", dateAdded=NOW.isoformat())])
        await project_all(connection, mine)
        assert await reader.json(path) == first
        # Another question is another answer.
        assert (await reader.json(path, days=1))["summary"]["leads_created"] == 2
    answer = await reader.json(path)
    assert answer["summary"]["leads_created"] == first["summary"]["leads_created"] + 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"days": 0}, "days"),
        ({"days": 366}, "days"),
        ({"days": "many"}, "days"),
        ({"until": "20260101"}, "until"),
        ({"until": "2026-02-30"}, "until"),
        ({"until": "1767225600"}, "until"),
        ({"until": "0001-01-01"}, "until"),
        ({"window": "30d"}, "window"),
        ({"format": "pdf"}, "format"),
    ],
)
async def test_a_wrong_question_is_answered_with_the_parameters_name(
    reader: Reader, query: dict[str, object], field: str
) -> None:
    status, body, headers = await reader.get(f"{BASE}/dashboard/a", None, **query)
    assert status == 422
    assert headers["Content-Type"].startswith("application/problem+json")
    assert [problem["field"] for problem in json.loads(body)["errors"]] == [field]


async def test_a_parameter_given_twice_is_refused(reader: Reader) -> None:
    status, body, _ = await reader.get(f"{BASE}/dashboard/a?days=1&days=2")
    assert (status, json.loads(body)["errors"][0]["field"]) == (422, "days")


async def test_a_location_that_nothing_was_told_of_is_not_zeros(reader: Reader) -> None:
    for path in (f"{BASE}/dashboard/typo", f"{BASE}/revenue-metrics/typo"):
        assert (await reader.get(path))[0] == 404
    assert (await reader.get(f"{BASE}/explain/ghl_revenue", None, location_id="typo"))[0] == 404
    assert (await reader.get(f"{BASE}/explain/ghl_nothing", None, location_id="a"))[0] == 404
    assert (await reader.get(f"{BASE}/dashboard/%00"))[0] == 404


def _paths() -> list[str]:
    return [
        path.replace("{location_id}", "a").replace("{kpi}", "ghl_revenue")
        for path, methods in document()["paths"].items()
        if "get" in methods
    ]


@pytest.mark.parametrize("path", _paths())
async def test_no_key_no_answer_and_no_other_locations(
    reader: Reader, connection: asyncpg.Connection, path: str
) -> None:
    query = {"location_id": "a"} if "/explain/" in path else {}
    assert (await Reader(reader.client, None).get(path, None, **query))[0] == 401
    assert (await Reader(reader.client, "ghlx_0_0").get(path, None, **query))[0] == 401
    tracker = Reader(reader.client, await create_key(connection, "t", ["track"], ["*"]))
    assert (await tracker.get(path, None, **query))[0] == 403
    only_b = Reader(reader.client, await create_key(connection, "b", ["read"], ["b"]))
    expected = 200 if path.endswith("/health") else 403
    # A kept answer of somebody who may see it opens nothing.
    assert (await reader.get(path, None, **query))[0] == 200
    assert (await only_b.get(path, None, **query))[0] == expected


async def test_who_asked_for_what_is_in_the_audit_table(
    reader: Reader, connection: asyncpg.Connection
) -> None:
    only_b = Reader(reader.client, await create_key(connection, "b", ["read"], ["b"]))
    await reader.get(f"{BASE}/dashboard/a", None, days=3)
    await only_b.get(f"{BASE}/dashboard/a")

    async def written() -> bool:
        return bool(await connection.fetchval("SELECT count(*) = 2 FROM audit"))

    await wait_until(written)
    rows = await connection.fetch("SELECT * FROM audit ORDER BY at")
    assert [(row["location_id"], row["outcome"]) for row in rows] == [("a", "200"), ("a", "403")]
    assert rows[0]["action"] == f"GET {BASE}/dashboard/a"
    assert rows[0]["detail"] == "days=3"
    assert rows[0]["actor"] != rows[1]["actor"]


async def test_browsers_may_read_only_for_origins_that_are_named(reader: Reader) -> None:
    path = f"{BASE}/dashboard/a"
    allowed = {"Origin": "https://app.example.com"}
    _, _, headers = await reader.get(path, allowed)
    assert headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    _, _, headers = await reader.get(path, {"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in headers
    asking = {**allowed, "Access-Control-Request-Method": "GET"}
    async with reader.client.options(path, headers=asking) as response:
        assert response.status == 204
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    async with reader.client.options(path, headers={**asking, "Origin": "null"}) as response:
        assert response.status == 405


async def test_metrics_behind_a_token_or_at_an_address_of_their_own(
    settings: Settings, aiohttp_client: Any
) -> None:
    secret = load_settings(
        database_url=settings.database_url, spool_path=settings.spool_path, metrics_token="s3cret"
    )
    client = await aiohttp_client(create_app(secret))
    assert (await client.get("/metrics")).status == 401
    for token, status in (("wrong", 401), ("s3cret", 200)):
        answer = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert answer.status == status
    apart = create_app(settings.model_copy(update={"metrics_address": "127.0.0.1:1"}))
    client = await aiohttp_client(apart)
    assert (await client.get("/metrics")).status == 404
    beside = await aiohttp_client(apart[METRICS_APP])
    assert (await beside.get("/metrics")).status == 200
    assert (await beside.get("/docs")).status == 404


async def test_without_postgres_the_answer_is_503_and_never_zeros(
    settings: Settings,
    connection: asyncpg.Connection,
    postgres: EmbeddedPostgres,
    aiohttp_client: Any,
) -> None:
    """A key that was good stays good, and nothing is made up."""
    client = await aiohttp_client(create_app(settings.model_copy(update={"redis_url": None})))
    reader = Reader(client, await create_key(connection, "all", ["read"], ["*"]))
    assert (await reader.get(f"{BASE}/dashboard/a"))[0] == 200
    name = await connection.fetchval("SELECT current_database()")
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = $1 AND application_name <> 'ghl-exporter test'",
        name,
    )
    await admin.close()
    status, _, headers = await reader.get(f"{BASE}/dashboard/a")
    assert (status, headers["Retry-After"]) == (503, "5")

    async def noticed() -> bool:
        health = await reader.json(f"{BASE}/health")
        return (health["status"], health["database_up"]) == ("degraded", False)

    await wait_until(noticed, 20)


async def test_the_table_business_metrics_says_the_same_day_by_day(
    reader: Reader, connection: asyncpg.Connection
) -> None:
    names = {
        "leads_created": "ghl_leads_created",
        "deals_closed": "ghl_deals_closed",
        "revenue": "ghl_revenue",
        "revenue_per_lead": "ghl_revenue_per_lead",
        "average_deal_size": "ghl_average_deal_size",
        "win_ratio": "ghl_win_ratio",
    }
    for days_ago in range(5):
        day = (NOW - timedelta(days=days_ago)).date()
        rows = await connection.fetch(
            "SELECT metric_name, metric_value::float8 FROM business_metrics"
            " WHERE location_id = 'a' AND metric_date = $1",
            day,
        )
        told = {row["metric_name"]: row["metric_value"] for row in rows}
        answer = await reader.json(f"{BASE}/revenue-metrics/a", days=1, until=day)
        for name, kpi in names.items():
            assert told.get(name) == answer["figures"][kpi], (name, day)
