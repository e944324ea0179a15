"""Read and write rows of the derived tables, many in one statement."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

import asyncpg

from exporter.projection.schema import Table, table_of

R = TypeVar("R", bound=tuple[Any, ...])


def _unnest(types: Sequence[str]) -> str:
    return ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, 1))


@cache
def _upsert_sql(table: Table) -> str:
    key, rest = table.names[: table.key], table.names[table.key :]
    updates = ", ".join(f"{name} = excluded.{name}" for name in rest)
    action = f"UPDATE SET {updates}" if updates else "NOTHING"
    return (
        f"INSERT INTO {table.name} ({', '.join(table.names)})"
        f" SELECT * FROM unnest({_unnest([kind for _, kind in table.columns])})"
        f" ON CONFLICT ({', '.join(key)}) DO {action}"
    )


@cache
def _delete_sql(table: Table) -> str:
    key = table.columns[: table.key]
    match = " AND ".join(f"t.{name} = k.{name}" for name, _ in key)
    return (
        f"DELETE FROM {table.name} t"
        f" USING unnest({_unnest([kind for _, kind in key])}) k ({', '.join(n for n, _ in key)})"
        f" WHERE {match}"
    )


@cache
def _select_sql(table: Table, by: tuple[str, ...]) -> str:
    kinds = dict(table.columns)
    match = " AND ".join(f"t.{name} = k.{name}" for name in by)
    columns = ", ".join(f"t.{name}" for name in table.names)
    return (
        f"SELECT {columns} FROM unnest({_unnest([kinds[name] for name in by])}) k ({', '.join(by)})"
        f" JOIN {table.name} t ON {match}"
    )


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def upsert(connection: asyncpg.Connection, row_type: type[R], rows: Sequence[R]) -> None:
    """Write rows; a row replaces the one with the same key. Each key may occur once."""
    if rows:
        await connection.execute(_upsert_sql(table_of(row_type)), *_columns(rows))


async def _delete(
    connection: asyncpg.Connection, table: Table, keys: Sequence[tuple[Any, ...]]
) -> None:
    if keys:
        await connection.execute(_delete_sql(table), *_columns(keys))


async def select(
    connection: asyncpg.Connection,
    row_type: type[R],
    by: tuple[str, ...],
    values: Iterable[tuple[Any, ...]],
) -> list[R]:
    """Return the rows whose columns `by` have one of the values."""
    wanted = list(values)
    if not wanted:
        return []
    records = await connection.fetch(_select_sql(table_of(row_type), by), *_columns(wanted))
    make: Any = row_type
    # The statement selects the columns in the order of the row type's fields.
    return [make(*record) for record in records]


async def replace(
    connection: asyncpg.Connection, row_type: type[R], old: Iterable[R], new: Iterable[R]
) -> list[R]:
    """Turn the rows `old` into the rows `new`; return every row that was removed or written.

    Of a row that changed, both versions are returned.
    """
    table = table_of(row_type)
    before = {row[: table.key]: row for row in old}
    after = {row[: table.key]: row for row in new}
    removed = [key for key in before if key not in after]
    changed = [row for key, row in after.items() if before.get(key) != row]
    await _delete(connection, table, removed)
    await upsert(connection, row_type, changed)
    return [
        *(before[key] for key in removed),
        *changed,
        *(before[row[: table.key]] for row in changed if row[: table.key] in before),
    ]
