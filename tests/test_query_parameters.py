"""What a question may say: plain numbers and days, each once, and nothing that is not known."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.api.keys import create_key
from exporter.service.app import create_app
from exporter.settings import load_settings

BASE = "/api/business-metrics"

# Python's own readers take most of these for a number, a day or a truth value.
WRONG_DAYS = (
    "1_0",
    "+7",
    " 7",
    "7 ",
    "\u0667",
    "\uff19",
    "1e1",
    "7.0",
    "",
    "0x7",
    "-1",
    "0",
    "366",
)
WRONG_UNTIL = ("2026-W48-3", "20261125", "2026-11-25T00:00", "1764028800", "2026-1-5", "2026-02-30")
WRONG = [
    *(("days", value) for value in (*WRONG_DAYS, "true", "null")),
    *(
        ("until", value)
        for value in (*WRONG_UNTIL, " 2026-11-25", "", "\u0662\u0660\u0662\u0666-11-25")
    ),
    *(("include_trends", value) for value in ("yes", "1", "on", "True", "")),
    *(("format", value) for value in ("CSV", "", "pdf")),
]


@pytest.fixture
async def ask(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path, aiohttp_client: Any
) -> Any:
    settings = load_settings(
        database_url=database_url, spool_path=tmp_path / "spool.sqlite3", ghl_location_id="a"
    )
    client = await aiohttp_client(create_app(settings))
    key = await create_key(connection, "test", ["read"], ["*"])

    async def ask(path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}"}
        async with client.get(f"{BASE}/{path}", headers=headers) as response:
            return response.status, await response.json()

    return ask


async def test_a_parameter_that_is_not_plainly_written_is_refused_by_name(ask: Any) -> None:
    for name, value in WRONG:
        status, answer = await ask(f"dashboard/a?{name}={value.replace('+', '%2B')}")
        assert (status, [error["field"] for error in answer["errors"]]) == (422, [name]), value


async def test_plain_parameters_are_taken(ask: Any) -> None:
    status, answer = await ask("dashboard/a?days=007&until=2026-11-25&include_trends=false")
    assert (status, answer["period_days"], answer["last_day"]) == (200, 7, "2026-11-25")


async def test_an_unknown_parameter_is_refused_with_the_nearest_name(ask: Any) -> None:
    status, answer = await ask("dashboard/a?day=7&include_trend=true&zzz=1")
    assert status == 422
    assert {error["field"]: error["problem"] for error in answer["errors"]} == {
        "day": "there is no such parameter; did you mean days?",
        "include_trend": "there is no such parameter; did you mean include_trends?",
        "zzz": "there is no such parameter",
    }


async def test_a_parameter_that_is_given_twice_is_refused(ask: Any) -> None:
    status, answer = await ask("dashboard/a?days=7&days=8")
    assert (status, answer["errors"]) == (422, [{"field": "days", "problem": "is given twice"}])


@pytest.mark.parametrize("wrong", ["page=1_0", "page_size=1e2", "page=0", "page_size=-5", "page="])
async def test_pages_are_plain_numbers(ask: Any, wrong: str) -> None:
    status, answer = await ask(f"explain/ghl_revenue?location_id=a&{wrong}")
    assert (status, answer["errors"][0]["field"]) == (422, wrong.partition("=")[0])
