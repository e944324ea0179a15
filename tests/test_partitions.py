"""Partitions of the inbox, created at once and emptied by age; statements that take too long."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import structlog.testing

from exporter.database.connect import connect
from exporter.database.locks import PROJECTION_LOCK
from exporter.inbox.inbox import Inbox
from exporter.inbox.partitions import create_partitions, drop_old_partitions
from exporter.projection.fact_settings import FactSettings
from exporter.projection.projector import Projector
from exporter.projection.rebuild import rebuild
from exporter.settings import load_settings
from exporter.telemetry.metrics import LiveMetrics
from tests.conftest import wait_until
from tests.projecting import project_all, received, store
from tests.sender import contact
from tests.test_spool import an_event, filled

LONG_AGO = datetime.now(UTC) - timedelta(days=400)


@contextmanager
def quiet_logs() -> Iterator[list[dict[str, object]]]:
    with structlog.testing.capture_logs() as logs:
        yield logs  # type: ignore[misc]


async def test_ten_sessions_create_the_same_partitions_at_once(database_url: str) -> None:
    settings = load_settings(database_url=database_url)
    sessions = [await connect(settings, "test") for _ in range(10)]
    try:
        with quiet_logs() as logs:
            await asyncio.gather(*(create_partitions(one, LONG_AGO.date()) for one in sessions))
        missing = [line for line in logs if line["event"] == "partition_not_created"]
        names = await sessions[0].fetch(
            "SELECT relname FROM pg_class WHERE relname ~ '^inbox_\\d{4}_\\d{2}$'"
        )
    finally:
        for one in sessions:
            await one.close()
    # A lock may be waited for in vain on a busy machine: then it is said, and nothing is raised.
    assert len(names) + len({line["partition"] for line in missing}) >= 14
    assert len(names) == 16 or missing


async def test_a_session_that_takes_no_lock_is_no_fault(
    connection: asyncpg.Connection, database_url: str
) -> None:
    """As an instance of an earlier version does."""
    other = await connect(load_settings(database_url=database_url), "test")
    month = f"inbox_{datetime.now(UTC):%Y_%m}"
    first = datetime.now(UTC).date().replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            f"CREATE TABLE {month} PARTITION OF inbox"
            f" FOR VALUES FROM ('{first}') TO ('{following}')"
        )
        creating = asyncio.create_task(create_partitions(connection))
        await asyncio.sleep(0.1)
        await transaction.commit()
        await creating
    finally:
        await other.close()
    assert await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", month)


async def test_the_default_partition_is_emptied_by_age(
    connection: asyncpg.Connection, database_url: str
) -> None:
    now = datetime.now(UTC)
    await create_partitions(connection)
    old = [received(contact(id=f"c-{number}"), "ghl", LONG_AGO) for number in range(20)]
    future = received(contact(id="future"), "ghl", now + timedelta(days=4000))
    await store(connection, [*old, future])
    count = "SELECT count(*) FROM inbox_default"
    assert await connection.fetchval(count) == 21
    assert await drop_old_partitions(connection, 60) == [], "not before it is projected"
    await project_all(connection, load_settings())
    assert await drop_old_partitions(connection, 60) == ["inbox_default"]
    assert await connection.fetchval(count) == 1
    dropped = "SELECT events FROM inbox_dropped WHERE partition_name = 'inbox_default'"
    assert await connection.fetchval(dropped) == 20
    # Once more: the number grows, and what was received is still known.
    await store(connection, [*old[:3], received(contact(id="x"), "ghl", LONG_AGO)])
    await project_all(connection, load_settings())
    await drop_old_partitions(connection, 60)
    assert await connection.fetchval(dropped) == 21


async def test_a_month_that_is_dropped_twice_is_counted_twice(
    connection: asyncpg.Connection,
) -> None:
    name = f"inbox_{LONG_AGO:%Y_%m}"
    for _ in range(2):
        await create_partitions(connection, LONG_AGO.date())
        await store(connection, [received(contact(), "ghl", LONG_AGO)])
        await project_all(connection, load_settings())
        assert await drop_old_partitions(connection, 60) != []
    query = "SELECT events FROM inbox_dropped WHERE partition_name = $1"
    assert await connection.fetchval(query, name) == 2


async def test_a_partition_that_is_in_use_or_not_ours_ends_no_term(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await create_partitions(connection, LONG_AGO.date())
    name = f"inbox_{LONG_AGO:%Y_%m}"
    other = await connect(load_settings(database_url=database_url), "test")
    try:
        async with other.transaction():
            await other.execute(f"LOCK TABLE {name} IN ACCESS SHARE MODE")
            with quiet_logs() as logs:
                assert name not in await drop_old_partitions(connection, 60)
            assert name in [line.get("partition") for line in logs]
    finally:
        await other.close()
    assert name in await drop_old_partitions(connection, 60)
    role = f"nobody_{datetime.now(UTC):%H%M%S%f}"
    await connection.execute(
        f"CREATE ROLE {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    await connection.execute(f"SET ROLE {role}")
    with quiet_logs() as logs:
        await create_partitions(connection, LONG_AGO.date())
    await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert "partition_not_created" in [line["event"] for line in logs]


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(CASE WHEN NEW.{column}::text LIKE '%never%' THEN 60 ELSE 0.02 END);
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION slow();
"""


async def test_a_batch_that_takes_too_long_is_halved(connection: asyncpg.Connection) -> None:
    await connection.execute(SLOW.format(table="contacts", column="contact_id"))
    now = datetime.now(UTC)
    names = [f"c-{number}" for number in range(60)]
    names[17] = "c-never"
    await store(connection, [received(contact(id=name), "ghl", now) for name in names])
    await connection.execute("SET statement_timeout = '400ms'")
    projector = Projector(
        connection, FactSettings.from_settings(load_settings()), LiveMetrics(), 64
    )
    with quiet_logs() as logs:
        async with asyncio.timeout(60):
            while await projector.step():
                pass
    assert await connection.fetchval("SELECT count(*) FROM inbox_pending") == 0
    assert await connection.fetchval("SELECT count(*) FROM contacts") == 59
    [error] = await connection.fetch("SELECT error FROM quarantine")
    assert "statement timeout" in error["error"]
    assert {"projection_too_slow", "event_quarantined"} <= {str(line["event"]) for line in logs}


async def test_waiting_for_a_rebuild_quarantines_nothing(
    connection: asyncpg.Connection, database_url: str
) -> None:
    await store(connection, [received(contact(), "ghl", datetime.now(UTC))])
    other = await connect(load_settings(database_url=database_url), "test")
    projector = Projector(connection, FactSettings.from_settings(load_settings()), LiveMetrics(), 1)
    await connection.execute("SET statement_timeout = '50ms'")
    try:
        await other.execute("SELECT pg_advisory_lock($1)", PROJECTION_LOCK)
        for _ in range(3):
            try:
                await projector.step()
            except asyncpg.QueryCanceledError:
                continue
            raise AssertionError("it did not wait for the lock")
    finally:
        await other.close()
    await connection.execute("RESET statement_timeout")
    await project_all(connection, load_settings())
    assert await connection.fetchval("SELECT count(*) FROM quarantine") == 0
    assert await connection.fetchval("SELECT count(*) FROM contacts") == 1


async def test_a_rebuild_takes_as_long_as_it_takes(
    connection: asyncpg.Connection, database_url: str
) -> None:
    now = datetime.now(UTC)
    await store(connection, [received(contact(id=f"c-{n}"), "ghl", now) for n in range(300)])
    await project_all(connection, load_settings())
    settings = load_settings(database_url=database_url)
    one, reader = await connect(settings, "test"), await connect(settings, "test")
    try:
        for session in (one, reader):
            await session.execute("SET statement_timeout = '5ms'")
        report = await rebuild(one, reader, FactSettings.from_settings(settings), dry_run=True)
    finally:
        await one.close()
        await reader.close()
    assert (report.events, sum(report.differences.values())) == (300, 0)


async def test_draining_takes_fewer_where_many_take_too_long(
    connection: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    await connection.execute(SLOW.format(table="inbox_pending", column="location_id"))
    database = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {database} SET statement_timeout = '500ms'")
    await filled(tmp_path / "spool", [an_event(number) for number in range(60)], batch=60)
    settings = load_settings(database_url=database_url, spool_path=tmp_path / "spool")
    inbox = Inbox(settings, LiveMetrics())
    await inbox.start()
    try:
        await wait_until(lambda: inbox.spool.events == 0)
    finally:
        await inbox.stop()
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 60
