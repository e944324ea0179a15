"""`ghl-exporter rebuild`: the rights that it needs, what it leaves alone, events that wait."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from exporter.database.connect import connect
from exporter.demo.servers import EmbeddedPostgres
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rebuild import DERIVED_TABLES, rebuild
from exporter.settings import load_settings
from tests.conftest import MakeService, Signer, wait_until
from tests.projecting import dump, project_all, received, store
from tests.sender import Sender, contact
from tests.test_commands import command, event, fill
from tests.test_rights import surroundings


async def test_a_role_that_may_create_tables_in_its_schema_can_rebuild(
    postgres: EmbeddedPostgres,
) -> None:
    async with surroundings(postgres) as made:
        await made.run(
            "CREATE SCHEMA ghl",
            "GRANT CREATE, USAGE ON SCHEMA ghl TO ROLE_",
            f"ALTER ROLE ROLE_ IN DATABASE {made.database} SET search_path = ghl",
        )
        assert command("migrate", database_url=made.url).returncode == 0
        for arguments in (("rebuild", "--dry-run"), ("rebuild",)):
            done = command(*arguments, database_url=made.url)
            assert done.stdout == "0 events; rows that differ: 0\n", done.stderr
        await made.run(f"REVOKE TEMPORARY ON DATABASE {made.database} FROM PUBLIC")
        done = command("rebuild", database_url=made.url)
        assert done.returncode == 1
        assert f'GRANT TEMPORARY ON DATABASE {made.database} TO "{made.role}"' in done.stderr


@pytest.mark.parametrize("dry_run", [True, False])
async def test_events_that_wait_are_no_difference(
    database_url: str, connection: asyncpg.Connection, dry_run: bool
) -> None:
    await fill(connection)
    now = datetime.now(UTC)
    poison = (b'{"type": "ContactCreate", "id": 1}', "ghl", now)
    waiting = [event(1000 + n, now - timedelta(hours=n)) for n in range(20)]
    await store(connection, [received(*one) for one in (*waiting, poison)])
    before = await dump(connection)
    assert await connection.fetchval("SELECT count(*) FROM inbox_pending") == 21
    done = command("rebuild", *(["--dry-run"] if dry_run else []), database_url=database_url)
    assert done.stdout == "71 events; rows that differ: 0\n", done.stderr
    if dry_run:
        assert await dump(connection) == before
        assert await connection.fetchval("SELECT count(*) FROM inbox_pending") == 21
        await project_all(connection, load_settings())
        done = command("rebuild", "--dry-run", database_url=database_url)
        assert done.stdout == "71 events; rows that differ: 0\n"
    else:
        assert await connection.fetchval("SELECT count(*) FROM inbox_pending") == 0
        assert await connection.fetchval("SELECT count(*) FROM contacts") == 70


async def test_a_dry_run_beside_traffic_finds_no_difference(
    make_service: MakeService, database_url: str, signer: Signer
) -> None:
    service = make_service(database_url=database_url, projection_batch_size=1)
    service.start()
    sender = Sender(service.port, signer)
    await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            await sender.send(contact(dateAdded=datetime.now(UTC).isoformat()))

    loading = [asyncio.create_task(load()) for _ in range(4)]
    for _ in range(3):
        done = await asyncio.to_thread(command, "rebuild", "--dry-run", database_url=database_url)
        assert "rows that differ: 0\n" in done.stdout, done.stdout + done.stderr
    stop.set()
    await asyncio.gather(*loading)
    assert service.stop() == 0


async def test_what_others_have_made_of_the_tables_outlives_a_rebuild(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await fill(connection)
    await connection.execute("CREATE VIEW leads AS SELECT * FROM contacts")
    await connection.execute("GRANT SELECT ON contacts, deals TO pg_monitor")
    await connection.execute("UPDATE contacts SET deleted = true")
    index = "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relkind = 'i'"
    rights = "SELECT relacl::text FROM pg_class WHERE oid = 'contacts'::regclass"
    before = [await connection.fetchval(query) for query in (index, rights)]
    done = command("rebuild", database_url=database_url)
    assert "contacts: 100" in done.stdout
    assert [await connection.fetchval(query) for query in (index, rights)] == before
    assert await connection.fetchval("SELECT count(*) FROM leads WHERE NOT deleted") == 50


async def test_a_rebuild_that_fails_leaves_the_facts_and_no_lock(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await fill(connection)
    await connection.execute("UPDATE contacts SET deleted = true")
    before = await dump(connection)
    settings = load_settings(database_url=database_url)
    working, reader = await connect(settings, "test"), await connect(settings, "test")
    # The last thing that is written.
    await connection.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'it fails' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON projection_state"
        " FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    rules = FactSettings.from_settings(settings)
    with pytest.raises(asyncpg.DiskFullError):
        await rebuild(working, reader, rules)
    assert await dump(connection) == before
    await connection.execute("DROP TRIGGER fail ON projection_state")
    # On the same connection, and on another.
    assert (await rebuild(working, reader, rules)).differences["contacts"] == 100
    assert (await rebuild(connection, reader, rules)).differences == dict.fromkeys(
        DERIVED_TABLES, 0
    )
    await working.close()
    await reader.close()
