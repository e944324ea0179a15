"""Files of lists: whole, whatever their length, or not sent at all."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import openpyxl
import pytest
from aiohttp.test_utils import TestClient

from exporter.api import download
from exporter.api.keys import create_key
from exporter.service.app import create_app
from exporter.settings import load_settings

BASE = "/api/business-metrics"
ROWS = 12_345
TODAY = datetime.now(UTC).date()

Ask = Callable[..., Awaitable[aiohttp.ClientResponse]]


@pytest.fixture
async def client(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path, aiohttp_client: Any
) -> TestClient[Any, Any]:
    settings = load_settings(
        database_url=database_url, spool_path=tmp_path / "spool.sqlite3", ghl_location_id="a"
    )
    made: TestClient[Any, Any] = await aiohttp_client(create_app(settings))
    return made


@pytest.fixture
async def ask(client: TestClient[Any, Any], connection: asyncpg.Connection) -> AsyncIterator[Ask]:
    key = await create_key(connection, "test", ["read"], ["*"])

    async def ask(path: str, **query: str) -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {key}"}
        return await client.get(f"{BASE}/{path}", params=query, headers=headers)

    yield ask


async def _make_leads(connection: asyncpg.Connection, count: int) -> None:
    await connection.execute(
        """
        INSERT INTO contacts (location_id, contact_id, created_at, created_day, deleted, has_deal)
        SELECT 'a', 'c' || n, now(), current_date, false, false FROM generate_series(1, $1) n
        """,
        count,
    )


async def test_a_file_holds_the_whole_list(ask: Ask, connection: asyncpg.Connection) -> None:
    await _make_leads(connection, ROWS)
    page = await (await ask("explain/ghl_leads_created", location_id="a")).json()
    assert (page["total"], len(page["items"])) == (ROWS, 100)
    response = await ask("explain/ghl_leads_created", location_id="a", format="csv")
    body = await response.read()
    assert int(response.headers["Content-Length"]) == len(body)
    rows = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    assert len({row["contact_id"] for row in rows}) == len(rows) == ROWS
    response = await ask("explain/ghl_leads_created", location_id="a", format="xlsx")
    book = openpyxl.load_workbook(io.BytesIO(await response.read()), read_only=True)
    cells = list(book["leads"].iter_rows(values_only=True))
    assert cells[0][0] == "contact_id"
    assert len({row[0] for row in cells[1:]}) == len(cells) - 1 == ROWS


async def test_an_empty_list_is_a_file_with_its_head(ask: Ask) -> None:
    response = await ask("explain/ghl_leads_created", location_id="a", format="csv")
    assert response.status == 200
    assert (await response.text()).startswith("contact_id,created_at")


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
async def test_a_file_has_no_pages(ask: Ask, kind: str) -> None:
    response = await ask("explain/ghl_revenue", location_id="a", format=kind, page_size="5")
    assert response.status == 422
    assert "whole list" in await response.text()


async def test_a_list_that_a_sheet_has_no_room_for_is_refused(
    ask: Ask, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _make_leads(connection, 50)
    monkeypatch.setattr(download, "XLSX_ROWS", 50)
    response = await ask("explain/ghl_leads_created", location_id="a", format="xlsx")
    assert response.status == 422
    assert "format=csv" in await response.text()
    monkeypatch.setattr(download, "XLSX_ROWS", 51)
    response = await ask("explain/ghl_leads_created", location_id="a", format="xlsx")
    assert response.status == 200


async def test_a_database_that_fails_meanwhile_leaves_no_short_file(
    ask: Ask, connection: asyncpg.Connection
) -> None:
    await _make_leads(connection, ROWS)
    # A row that fails to be read, far behind the beginning.
    await connection.execute(
        """
        ALTER TABLE contacts RENAME TO all_contacts;
        CREATE FUNCTION fails_late(id text) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN IF id = 'c9000' THEN RAISE 'disk gone' USING ERRCODE = '58030'; END IF;
        RETURN false; END $$;
        CREATE VIEW contacts AS SELECT location_id, contact_id, created_at, created_day, owner_id,
            first_answer_at, first_answer_user, fails_late(contact_id) AS has_deal, deleted
        FROM all_contacts;
        """
    )
    response = await ask("explain/ghl_leads_created", location_id="a", format="csv")
    assert response.status >= 500
    assert response.content_type == "application/problem+json"


async def test_a_reader_who_goes_away_holds_no_connection(
    ask: Ask, client: TestClient[Any, Any], connection: asyncpg.Connection
) -> None:
    await _make_leads(connection, ROWS)
    for _ in range(8):
        response = await ask("explain/ghl_leads_created", location_id="a", format="csv")
        response.close()
    async with asyncio.timeout(20):
        response = await ask("explain/ghl_leads_created", location_id="a", format="csv")
        assert len((await response.text()).splitlines()) == ROWS + 1


async def test_what_is_of_now_alone_is_null_for_a_past_day(
    ask: Ask, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        INSERT INTO opportunities (location_id, opportunity_id, status, monetary_value,
                                   first_seen_day, deleted)
        VALUES ('a', 'o', 'open', 1000, $1, false)
        """,
        TODAY - timedelta(days=9),
    )
    await connection.execute(
        "INSERT INTO open_pipeline SELECT 'a', $1::date, 1, 1000", TODAY - timedelta(days=9)
    )

    async def figures(until: date) -> tuple[Any, Any, Any]:
        query = {"until": until.isoformat()}
        answer = await (await ask("revenue-metrics/a", **query)).json()
        found = answer["figures"]
        query["location_id"] = "a"
        listed = await (await ask("explain/ghl_open_opportunities", **query)).json()
        assert listed["figure"] == found["ghl_open_opportunities"]
        text = await (await ask("explain/ghl_open_opportunities", format="csv", **query)).text()
        assert len(text.splitlines()) - 1 == len(listed["items"]) == listed["total"]
        return found["ghl_open_opportunities"], found["ghl_open_pipeline_value"], listed["total"]

    assert await figures(TODAY) == (1, 1000, 1)
    assert await figures(TODAY - timedelta(days=1)) == (None, None, 0)
    answer = await (await ask("dashboard/a", days="3", include_trends="true")).json()
    trend = answer["trends"]["business_impact.open_opportunities"]
    assert [point["value"] for point in trend["series"]] == [None, None, 1]
    assert (trend["previous"], trend["change_rate"]) == (None, None)
