"""Rows are stated once: what is derived from a row type is what the database has."""

import ast
import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import exporter
from exporter.database.connect import connect
from exporter.database.migrations import all_migrations
from exporter.projection import schema
from exporter.projection.rebuild import DERIVED_TABLES
from exporter.projection.rollups import ROLLUPS, TouchedCells
from exporter.settings import load_settings
from tests.projecting import dump
from tests.test_commands import command, fill

ROW_TYPES: list[Any] = [
    kind
    for kind in vars(schema).values()
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
]
# In the catalogue's words.
TYPES = {
    "text": "text",
    "boolean": "boolean",
    "bigint": "bigint",
    "float8": "double precision",
    "numeric": "numeric",
    "timestamptz": "timestamp with time zone",
    "date": "date",
    "jsonb": "jsonb",
}
# A number of Python has one type, and the smaller column takes it.
SMALLER = {("entity_events", "precedence"): "smallint"}
# Filled in by the writer, which knows the location's time zone.
FILLED_LATER = {("activities", "happened_day")}
_COLUMNS = """
SELECT column_name, data_type, is_nullable = 'YES' AS optional FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = $1
"""
_KEY = """
SELECT a.attname FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = $1::regclass AND i.indisprimary
"""


@pytest.mark.parametrize("row_type", ROW_TYPES, ids=lambda one: one.__name__)
async def test_a_row_is_what_the_catalogue_says(
    connection: asyncpg.Connection, row_type: Any
) -> None:
    table = schema.table_of(row_type)
    found = {row["column_name"]: row for row in await connection.fetch(_COLUMNS, table.name)}
    assert set(found) == set(row_type._fields)
    for column, kind in table.columns:
        expected = SMALLER.get((table.name, column), TYPES[kind])
        assert found[column]["data_type"] == expected, column
        optional = type(None) in getattr(row_type.__annotations__[column], "__args__", ())
        filled_later = (table.name, column) in FILLED_LATER
        assert found[column]["optional"] == (optional and not filled_later), column
    key = {row["attname"] for row in await connection.fetch(_KEY, table.name)}
    assert set(table.names[: table.key]) == key


def test_rows_are_constructed_by_keyword() -> None:
    """By position two columns of one type could be swapped, and nothing would notice."""
    names = {row_type.__name__ for row_type in ROW_TYPES}
    found = 0
    for path in Path(exporter.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in names:
                found += 1
                assert not node.args, f"{path.name}:{node.lineno}"
    assert found >= len(names)


async def test_every_roll_up_has_its_table_and_its_statement(
    connection: asyncpg.Connection,
) -> None:
    day = await connection.fetchval("SELECT current_date")
    await TouchedCells([("loc", day)]).recompute(connection)
    for name in (*ROLLUPS, *DERIVED_TABLES):
        assert await connection.fetchval("SELECT to_regclass($1)", name), name


async def test_a_database_with_old_names_is_renamed_in_place(
    database_url: str, connection: asyncpg.Connection
) -> None:
    """Undo the renaming on a database with history; migrating it again changes no row."""
    await fill(connection)
    assert command("rebuild", database_url=database_url).returncode == 0
    before = await dump(connection)
    assert before["entity_events"]
    [renaming] = [one for one in all_migrations() if one.number == 10]
    for line in renaming.sql.splitlines():
        if line.startswith("ALTER TABLE"):
            _, _, table, _, _, old, _, new = line.rstrip(";").split()
            await connection.execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")
    await connection.execute(
        "UPDATE entity_events SET event_type = 'found' WHERE event_type = 'backfilled'"
    )
    await connection.execute("DELETE FROM schema_migrations WHERE number = 10")
    # Somebody reads a table meanwhile: the migration waits, and nobody queues behind it for long.
    reader = await connect(load_settings(database_url=database_url), "test")
    await reader.execute("BEGIN")
    await reader.execute("SELECT count(*) FROM contacts")
    migrating = asyncio.create_task(
        asyncio.to_thread(command, "migrate", database_url=database_url)
    )
    await asyncio.sleep(1.5)
    assert not migrating.done()
    assert await connection.fetchval("SELECT count(*) FROM opportunities") is not None
    await reader.execute("COMMIT")
    await reader.close()
    done = await migrating
    assert done.returncode == 0, done.stderr
    assert renaming.name in done.stdout
    assert await dump(connection) == before
    done = command("rebuild", "--dry-run", database_url=database_url)
    assert "rows that differ: 0" in done.stdout
