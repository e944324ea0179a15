"""Each place names the GRANT that a role lacks, and a role with few rights can work."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from exporter.database.advice import describe
from exporter.demo.servers import EmbeddedPostgres
from tests.conftest import TEMPLATE, MakeService, Signer, wait_until
from tests.sender import Sender, contact
from tests.test_commands import command

PASSWORD = "s3cr3t-of-the-role"
ALL_COMMANDS = (
    ("migrate",),
    ("check",),
    ("keys", "list"),
    ("keys", "create", "--name", "n", "--scopes", "read", "--locations", "*"),
    ("keys", "revoke", "0123456789ab"),
    ("rebuild",),
    ("rebuild", "--dry-run"),
    ("replay",),
    ("import", "/dev/null"),
)


class Surroundings:
    """A database, a role that may only connect to it, and a superuser to change that."""

    def __init__(self, postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> None:
        self.role, self.database = f"role-{uuid4().hex[:8]}", f"rights_{uuid4().hex[:8]}"
        self.admin = admin
        self.url = (
            f"postgresql://{self.role}:{PASSWORD}@127.0.0.1:{postgres.port}"
            f"/{self.database}?sslmode=disable"
        )

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.admin.execute(statement.replace("ROLE_", f'"{self.role}"'))

    async def grant(self, line: str) -> None:
        """Do what a line of ours says to do."""
        for part in line.partition("GRANT ")[2].split("; GRANT "):
            await self.admin.execute(f"GRANT {part.partition(', or ')[0]}")


@asynccontextmanager
async def surroundings(
    postgres: EmbeddedPostgres, template: str = "template0"
) -> AsyncIterator[Surroundings]:
    server = await asyncpg.connect(postgres.url())
    made = Surroundings(postgres, server)
    await server.execute(f"CREATE ROLE \"{made.role}\" LOGIN PASSWORD '{PASSWORD}'")
    await server.execute(f"CREATE DATABASE {made.database} TEMPLATE {template}")
    made.admin = await asyncpg.connect(postgres.url(made.database))
    try:
        yield made
    finally:
        await made.admin.close()
        await server.execute(f"DROP DATABASE {made.database} WITH (FORCE)")
        await server.execute(f'DROP ROLE "{made.role}"')
        await server.close()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that says what is wrong, without a traceback or a secret."""
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert PASSWORD not in said
    lines = [line for line in said.splitlines() if line.startswith("wrong")]
    if len(lines) > 1:  # `check` reports what is missing too
        lines = [line for line in lines if "GRANT" in line]
    [line] = lines
    return line


async def test_a_role_that_may_not_create_is_told_the_grant(postgres: EmbeddedPostgres) -> None:
    async with surroundings(postgres) as made:
        await made.run(f"GRANT ALL ON DATABASE {made.database} TO ROLE_")
        expected = f'GRANT USAGE, CREATE ON SCHEMA public TO "{made.role}"'
        line = one_line(command("migrate", database_url=made.url))
        assert line.endswith(f"permission denied for schema public (SQLSTATE 42501): {expected}")
        for arguments in ALL_COMMANDS[1:]:
            line = one_line(command(*arguments, database_url=made.url))
            assert "migrate" in line or expected in line
        await made.grant(expected)
        done = command("migrate", database_url=made.url)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", ALL_COMMANDS, ids=" ".join)
async def test_each_command_without_rights_on_the_tables_says_what_is_missing(
    postgres: EmbeddedPostgres, arguments: tuple[str, ...]
) -> None:
    async with surroundings(postgres, TEMPLATE) as made:
        line = one_line(command(*arguments, database_url=made.url))
        assert f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{made.role}"' in line


async def test_rights_are_named_for_the_schema_that_the_session_uses(
    postgres: EmbeddedPostgres,
) -> None:
    async with surroundings(postgres) as made:
        await made.run(
            'CREATE SCHEMA "the Schema"',
            f'ALTER ROLE ROLE_ IN DATABASE {made.database} SET search_path = "the Schema"',
        )
        # It may not even look into it: the server sees no schema at all.
        line = one_line(command("migrate", database_url=made.url))
        assert "no schema has been selected to create in (SQLSTATE 3F000)" in line
        assert "search_path" in line
        await made.run('GRANT USAGE ON SCHEMA "the Schema" TO ROLE_')
        line = one_line(command("migrate", database_url=made.url))
        assert f'GRANT USAGE, CREATE ON SCHEMA "the Schema" TO "{made.role}"' in line
        await made.grant(line)
        done = command("migrate", database_url=made.url)
        assert done.returncode == 0, done.stderr
        assert await made.admin.fetchval("SELECT to_regclass('\"the Schema\".inbox') IS NOT NULL")


async def test_a_role_that_may_create_nothing_uses_the_tables_that_are_there(
    postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer
) -> None:
    async with surroundings(postgres, TEMPLATE) as made:
        await made.run(
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "GRANT USAGE ON SCHEMA public TO ROLE_",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO ROLE_",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ROLE_",
        )
        service = make_service(database_url=made.url)
        service.start()
        sender = Sender(service.port, signer)
        await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
        assert (await sender.send(contact())).status == 200
        count = "SELECT count(*) FROM contacts"
        await wait_until(lambda: made.admin.fetchval(count))
        names = {line["event"] for line in service.log_lines()}
        assert not {name for name in names if name.endswith("_unavailable")}
        # Months' partitions can't be made: the default one takes the rows.
        lines = [x for x in service.log_lines() if x["event"] == "partition_not_created"]
        [why] = {line["error"] for line in lines}
        assert "GRANT" in why
        assert command("migrate", database_url=made.url).stdout == "up to date\n"
        assert command("check", database_url=made.url).returncode == 0
        for arguments in (("rebuild", "--dry-run"), ("rebuild",)):
            done = command(*arguments, database_url=made.url)
            assert done.stdout == "1 events; rows that differ: 0\n", done.stderr
        assert service.stop() == 0


async def test_the_service_names_the_grant_in_its_log_and_on_its_page(
    postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer
) -> None:
    async with surroundings(postgres, TEMPLATE) as made:
        await made.run(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO ROLE_",
            "REVOKE SELECT ON quarantine, locations, projection_state FROM ROLE_",
        )
        service = make_service(database_url=made.url)
        service.start()
        sender = Sender(service.port, signer)
        assert (await sender.send(contact())).status == 202
        grant = f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{made.role}"'

        def named() -> set[str]:
            return {
                line["event"]
                for line in service.log_lines()
                if line["event"].endswith("_unavailable") and grant in line["reason"]
            }

        expected = {"database_unavailable", "leader_unavailable", "database_sample_unavailable"}
        await wait_until(lambda: expected <= named())
        page = service.get("/")[1].decode()
        assert page.count("GRANT ALL ON ALL TABLES IN SCHEMA public") >= len(expected)
        assert service.get("/-/ready")[0] == 200
        assert "Traceback" not in service.log.read_text()
        await made.grant(grant)
        await made.grant(grant.replace("TABLES", "SEQUENCES"))
        await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0)
        # KPIs are refreshed in sessions of their own, which say it too.
        await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
        await made.run("REVOKE SELECT ON locations FROM ROLE_")
        await wait_until(lambda: "kpi_refresh_unavailable" in named())
        assert service.stop() == 0


def error(state: str, message: str) -> asyncpg.PostgresError:
    made = asyncpg.PostgresError.new({"C": state, "M": message})
    assert isinstance(made, asyncpg.PostgresError)
    return made


@pytest.mark.parametrize(
    ("state", "message", "advice"),
    [
        (
            "42501",
            "permission denied for sequence inbox_id",
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA s",
        ),
        ("42501", 'permission denied for database "x y"', 'GRANT CONNECT ON DATABASE "x y" TO r'),
        (
            "42501",
            'permission denied to create temporary tables in database "d"',
            "GRANT TEMPORARY ON DATABASE d TO r",
        ),
        ("42501", "must be owner of table contacts", "GRANT that role TO r"),
        # A server that speaks another language.
        (
            "42501",
            "keine Berechtigung für Schema s",
            "CREATE ON SCHEMA s TO r; GRANT ALL",
        ),
        ("3D000", 'database "x" does not exist', "create the database"),
        ("42P05", 'prepared statement "x" already exists', "pool_mode=session"),
        ("54000", "too complex\nand more", ""),
    ],
)
def test_an_error_is_described_in_a_line(state: str, message: str, advice: str) -> None:
    line = describe(error(state, message), "r", "s")
    assert line.startswith(f"{' '.join(message.split())} (SQLSTATE {state})")
    assert advice in line
    assert "\n" not in line
