"""A database that fails as it is told: with any SQLSTATE, where its tables are written or read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg

from exporter.demo.servers import EmbeddedPostgres


def _states(base: type[asyncpg.PostgresError]) -> set[str]:
    own = {base.sqlstate} if getattr(base, "sqlstate", None) else set()
    return own.union(*(_states(sub) for sub in base.__subclasses__()))


# And some that no class is for.
STATES = sorted(_states(asyncpg.PostgresError) | {"99999", "ZZZZZ", "42ZZZ"})
# As a trigger that something else has made: it fails with what the table `fault` says.
FAULT = """
CREATE TABLE fault (code text);
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE code text := (SELECT code FROM fault);
BEGIN
    IF code IS NOT NULL THEN
        RAISE EXCEPTION 'it fails with %', code USING ERRCODE = code, DETAIL = 'ann@example.com';
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION fails() RETURNS boolean STABLE LANGUAGE plpgsql AS $$
DECLARE code text := (SELECT code FROM fault);
BEGIN
    IF code IS NOT NULL THEN
        RAISE EXCEPTION 'it fails with %', code USING ERRCODE = code, DETAIL = 'ann@example.com';
    END IF;
    RETURN true;
END $$;
"""


class Faulty:
    """A database whose tables fail as they are told."""

    def __init__(self, url: str, admin: asyncpg.Connection) -> None:
        self.url = url
        self.admin = admin

    async def fail_at(self, *tables: str) -> None:
        for table in tables:
            await self.admin.execute(
                f"CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON {table}"
                " FOR EACH ROW EXECUTE FUNCTION fail()"
            )

    async def fail_where_it_is_read(self, table: str) -> None:
        await self.admin.execute(
            f"ALTER TABLE {table} RENAME TO {table}_below;"
            f"CREATE VIEW {table} AS SELECT * FROM {table}_below WHERE fails()"
        )

    async def say(self, code: str | None) -> None:
        await self.admin.execute("UPDATE fault SET code = $1", code)


@asynccontextmanager
async def faulty_database(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[Faulty]:
    name = f"faulty_{uuid4().hex[:8]}"
    server = await asyncpg.connect(postgres.url())
    await server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    admin = await asyncpg.connect(postgres.url(name))
    await admin.execute(FAULT)
    await admin.execute("INSERT INTO fault VALUES (NULL)")
    try:
        yield Faulty(postgres.url(name), admin)
    finally:
        await admin.close()
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()
