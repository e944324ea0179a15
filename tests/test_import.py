"""`ghl-exporter import`: opportunities as GHL's search answers them, from a file."""

import json
import random
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.settings import load_settings
from tests.projecting import project_all
from tests.test_commands import command


def opportunity(number: int, **fields: object) -> dict[str, Any]:
    return {
        "id": f"opp-{number}",
        "locationId": "loc",
        "name": "Someone",
        "status": "won",
        "monetaryValue": 1000,
        "assignedTo": "ann",
        "lastStatusChangeAt": "2026-02-10T10:00:00.000Z",
        "updatedAt": "2026-02-11T10:00:00.000Z",
        **fields,
    }


def write(path: Path, lines: list[object]) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


async def test_what_is_imported_becomes_deals_and_again_it_is_known(
    tmp_path: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    lines: list[object] = [opportunity(number) for number in range(1200)]
    path = write(tmp_path / "opportunities.jsonl", lines)
    first = command("import", str(path), database_url=database_url)
    assert first.returncode == 0, first.stderr
    assert "1,200 new, 0 known, 0 wrong" in first.stdout
    again = command("import", str(path), database_url=database_url)
    assert again.returncode == 0
    assert "0 new, 1,200 known, 0 wrong" in again.stdout
    await project_all(connection, load_settings())
    row = await connection.fetchrow("SELECT count(*), min(closed_day)::text FROM deals")
    assert row is not None
    assert tuple(row) == (1200, "2026-02-10")
    assert await connection.fetchval("SELECT count(*) FROM webhook_outcomes") == 0


async def test_a_newer_state_is_an_event_of_its_own(
    tmp_path: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    states = [
        opportunity(1),
        opportunity(1, status="lost", updatedAt="2026-02-12T10:00:00Z"),
        opportunity(1, status="open", updatedAt="2026-02-09T10:00:00Z"),
    ]
    random.Random(7).shuffle(states)
    for number, state in enumerate(states):
        path = write(tmp_path / f"{number}.jsonl", [state])
        assert command("import", str(path), database_url=database_url).returncode == 0
    await project_all(connection, load_settings())
    assert await connection.fetchval("SELECT status FROM opportunities") == "lost"
    assert await connection.fetchval("SELECT count(*) FROM deals") == 0


async def test_lines_that_are_wrong_are_named_and_the_others_stored(
    tmp_path: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    lines: list[object] = [
        opportunity(1),
        "",
        "{",
        "[]",
        opportunity(2, id=None),
        opportunity(3, updatedAt="soon"),
        opportunity(4, locationId=""),
        opportunity(5),
    ]
    path = write(tmp_path / "some.jsonl", lines)
    done = command("import", str(path), database_url=database_url)
    assert done.returncode == 1
    assert "2 new, 0 known, 5 wrong" in done.stdout
    for number, word in ((3, "JSON"), (4, "object"), (5, "id"), (6, "updatedAt"), (7, "location")):
        line = next(text for text in done.stderr.splitlines() if f"line {number}: " in text)
        assert word in line
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 2


async def test_a_whole_page_of_the_answer_and_an_array_are_taken(
    tmp_path: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    lines: list[object] = [
        {"opportunities": [opportunity(1), opportunity(2)], "meta": {"total": 3}},
        [opportunity(3), "no opportunity", opportunity(4, id=None)],
        opportunity(5),
    ]
    path = write(tmp_path / "pages.jsonl", lines)
    done = command("import", str(path), database_url=database_url)
    assert "4 new, 0 known, 2 wrong" in done.stdout
    assert "line 2, opportunity 2: no JSON object" in done.stderr
    assert "line 2, opportunity 3: id is missing" in done.stderr
    stored = await connection.fetch("SELECT location_id, body FROM inbox")
    assert {row["location_id"] for row in stored} == {"loc"}
    assert {json.loads(row["body"])["id"] for row in stored} == {
        "opp-1",
        "opp-2",
        "opp-3",
        "opp-5",
    }


@pytest.mark.parametrize("pretty", [{"opportunities": [opportunity(1)]}, [opportunity(1)]])
async def test_a_file_of_pretty_printed_json_is_refused_with_the_way_out(
    tmp_path: Path, database_url: str, connection: asyncpg.Connection, pretty: object
) -> None:
    path = tmp_path / "page.json"
    path.write_text(json.dumps(pretty, indent=2))
    done = command("import", str(path), database_url=database_url)
    assert done.returncode == 1
    assert "jq -c" in done.stderr
    assert done.stderr.count("line ") == 1
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 0


async def test_an_opportunity_of_the_first_api_has_its_contact_nested(
    tmp_path: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    lines: list[object] = [
        opportunity(1, contact={"id": "c-1", "name": "D"}),
        opportunity(2, contact={"id": "c-other"}, contactId="c-2"),
        opportunity(3, contact={"name": "D"}),
        opportunity(4),
    ]
    path = write(tmp_path / "first.jsonl", lines)
    done = command("import", str(path), database_url=database_url)
    assert done.returncode == 0
    assert "4 new" in done.stdout
    assert "2 name no contact" in done.stdout
    await project_all(connection, load_settings())
    rows = await connection.fetch(
        "SELECT opportunity_id, contact_id FROM opportunities ORDER BY opportunity_id"
    )
    assert [tuple(row) for row in rows] == [
        ("opp-1", "c-1"),
        ("opp-2", "c-2"),
        ("opp-3", None),
        ("opp-4", None),
    ]


async def test_a_location_can_be_named_for_those_that_name_none(
    tmp_path: Path, database_url: str, connection: asyncpg.Connection
) -> None:
    nameless = {k: v for k, v in opportunity(1).items() if k != "locationId"}
    path = write(tmp_path / "nameless.jsonl", [nameless, opportunity(2)])
    done = command("import", str(path), database_url=database_url)
    assert done.returncode == 1
    assert "line 1: locationId is missing or can't be read: name it with --location" in done.stderr
    done = command("import", str(path), "--location", "loc-b", database_url=database_url)
    assert done.returncode == 0, done.stderr
    assert "1 new, 1 known, 0 wrong" in done.stdout
    await project_all(connection, load_settings())
    rows = await connection.fetch("SELECT location_id, deal_id FROM deals ORDER BY 2")
    assert [tuple(row) for row in rows] == [("loc-b", "opp-1"), ("loc", "opp-2")]
    wrong = command("import", str(path), "--location", "x" * 300, database_url=database_url)
    assert wrong.returncode == 1
    assert "--location" in wrong.stderr


def test_a_file_that_is_not_there_is_said(database_url: str, tmp_path: Path) -> None:
    done = command("import", str(tmp_path / "none"), database_url=database_url)
    assert done.returncode == 1
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr
