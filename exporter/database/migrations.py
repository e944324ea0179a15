"""Apply the plain `.sql` files of `sql/migrations`, in order, once each, under a lock."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import asyncpg

from exporter.database.errors import DatabaseUnavailableError
from exporter.database.locks import MIGRATION_LOCK, transaction_with_lock_timeout
from exporter.support.bundled_files import bundled

_HAS_NO_TABLE = "SELECT to_regclass('schema_migrations') IS NULL"
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True)
class Migration:
    """One file: its number, its name, its SQL."""

    number: int
    name: str
    sql: str


def all_migrations() -> list[Migration]:
    """Read the migration files, in order. Raises ValueError where a name or a number is off."""
    migrations = []
    for path in sorted((bundled("sql") / "migrations").glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"migration {path.name} is not named like 0001_what_it_does.sql")
        migrations.append(Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8")))
    numbers = [migration.number for migration in migrations]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"migrations are not numbered without gaps: {numbers}")
    return migrations


async def applied(connection: asyncpg.Connection) -> set[int]:
    """Return the numbers of the migrations that this database has."""
    if await connection.fetchval(_HAS_NO_TABLE):
        return set()
    rows = await connection.fetch("SELECT number FROM schema_migrations")
    return {row["number"] for row in rows}


async def pending(connection: asyncpg.Connection) -> Sequence[Migration]:
    """Return the migrations that this database lacks."""
    done = await applied(connection)
    return [migration for migration in all_migrations() if migration.number not in done]


async def refuse_newer(connection: asyncpg.Connection) -> None:
    """Refuse a database that a newer version has migrated. Raises DatabaseUnavailableError.

    This version could store events in ways that the newer one can't read.
    """
    if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        return
    known = _newest()
    rows = await connection.fetch(
        "SELECT name FROM schema_migrations WHERE number > $1 ORDER BY number", known
    )
    if rows:
        names = ", ".join(row["name"] for row in rows)
        raise DatabaseUnavailableError(
            f"the database is newer than this version, which doesn't know its migrations {names}:"
            " install the version that made them"
        )


@cache
def _newest() -> int:
    return all_migrations()[-1].number


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    await connection.execute(migration.sql)
    await connection.execute(
        "INSERT INTO schema_migrations (number, name) VALUES ($1, $2)",
        migration.number,
        migration.name,
    )


async def migrate(connection: asyncpg.Connection) -> list[str]:
    """Bring the database up to date and return the names of what was applied.

    Each file is one transaction. Instances that start together wait for one another; a table that
    the running service uses is waited for in short tries, so that nobody queues behind it for long.
    """
    # A role that may not create anything can still use what is there.
    if not await pending(connection):
        return []
    # Neither waiting for another instance nor an index over a long history ends half-way.
    await connection.execute("SET statement_timeout = 0")
    await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
    try:
        if await connection.fetchval(_HAS_NO_TABLE):
            await connection.execute(
                "CREATE TABLE schema_migrations ("
                "number integer PRIMARY KEY, name text NOT NULL,"
                " applied_at timestamptz NOT NULL DEFAULT now())"
            )
        names = []
        for migration in await pending(connection):
            await transaction_with_lock_timeout(connection, partial(_apply, connection, migration))
            names.append(migration.name)
        return names
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)
