"""The service comes up, takes webhooks and says why, whatever is wrong with its database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
import structlog

from exporter.database.availability import Availability
from exporter.database.errors import reason_of
from exporter.demo.servers import EmbeddedPostgres
from exporter.support.tasks import end_tasks, ignoring
from tests.conftest import TEMPLATE, MakeService, Service, Signer, wait_until
from tests.sender import Sender, contact

PASSWORD = "s3cr3t-of-the-role"


def _url(postgres: EmbeddedPostgres, role: str, database: str, password: str = PASSWORD) -> str:
    return f"postgresql://{role}:{password}@127.0.0.1:{postgres.port}/{database}?sslmode=disable"


@asynccontextmanager
async def _database(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[tuple[str, str]]:
    """Make a database, and a role that may only connect to it; return their names."""
    role, database = f"role_{uuid4().hex[:8]}", f"surroundings_{uuid4().hex[:8]}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    await admin.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
    try:
        yield role, database
    finally:
        await admin.execute(f"DROP DATABASE {database} WITH (FORCE)")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()


async def _takes_webhooks_and_says_why(
    service: Service, signer: Signer, event: str, *words: str
) -> Sender:
    service.start()
    sender = Sender(service.port, signer)
    # At once: nobody waits for a database that can't be used.
    assert (await sender.send(contact())).status == 202
    assert service.get("/-/ready")[0] == 200

    def logged() -> list[str]:
        return [line["reason"] for line in service.log_lines() if line["event"] == event]

    await wait_until(logged)
    for word in words:
        assert any(word in reason for reason in logged()), logged()
        assert word in service.get("/")[1].decode()
    await asyncio.sleep(1.2)
    assert len(logged()) == len(set(logged())), "each reason once"
    text = service.log.read_text()
    assert "Traceback" not in text
    assert PASSWORD not in text
    assert PASSWORD not in service.get("/")[1].decode()
    return sender


async def test_with_a_wrong_password(
    postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer
) -> None:
    url = _url(postgres, "postgres", "postgres")
    service = make_service(database_url=url)
    await _takes_webhooks_and_says_why(
        service, signer, "database_unavailable", "password authentication failed"
    )
    service.stop()


async def test_without_the_database_then_with_it(
    postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer
) -> None:
    name = f"surroundings_{uuid4().hex[:8]}"
    service = make_service(database_url=postgres.url(name))
    await _takes_webhooks_and_says_why(service, signer, "database_unavailable", "does not exist")
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name}")
    await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0)
    expected = {"migration_available", "database_available", "leader_available"}
    await wait_until(lambda: expected <= {line["event"] for line in service.log_lines()})
    assert service.stop() == 0
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_with_a_role_that_may_not_create_tables(
    postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer
) -> None:
    async with _database(postgres, "template0") as (role, database):
        service = make_service(database_url=_url(postgres, role, database))
        await _takes_webhooks_and_says_why(
            service, signer, "migration_unavailable", "permission denied for schema public", "42501"
        )
        admin = await asyncpg.connect(postgres.url(database))
        await admin.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        await admin.close()
        await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0)
        await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
        service.stop()


async def test_with_a_role_that_may_read_but_not_write(
    postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer
) -> None:
    async with _database(postgres, TEMPLATE) as (role, database):
        admin = await asyncpg.connect(postgres.url(database))
        await admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        service = make_service(database_url=_url(postgres, role, database))
        await _takes_webhooks_and_says_why(
            service, signer, "database_unavailable", "permission denied for", "42501"
        )
        assert service.metrics()["ghl_exporter_database_up"] == 0
        service.stop()
        await admin.close()


async def test_with_a_url_that_the_driver_refuses(
    make_service: MakeService, signer: Signer
) -> None:
    service = make_service(database_url=f"postgresql://user:{PASSWORD}@127.0.0.1:port/ghl")
    await _takes_webhooks_and_says_why(service, signer, "database_unavailable", "DATABASE_URL")
    service.stop()


async def test_every_class_of_error_is_described_in_a_line_without_details(
    connection: asyncpg.Connection,
) -> None:
    for number in ("08006", "22003", "23505", "25006", "28000", "42501", "53100", "57014", "XX000"):
        with pytest.raises(asyncpg.PostgresError) as caught:
            await connection.execute(
                "DO $$ BEGIN RAISE EXCEPTION E'it\\nfails' USING ERRCODE = '"
                + number
                + "', DETAIL = 'Key (email)=(ann@example.com)'; END $$"
            )
        said = reason_of(caught.value)
        # The message of a data exception quotes the value.
        text = "NumericValueOutOfRangeError" if number == "22003" else "it fails"
        assert said.startswith(f"{text} (SQLSTATE {number})")
        assert "ann@example.com" not in said


async def test_a_cancellation_that_an_error_hides_is_found() -> None:
    async def goes_on() -> None:
        while True:
            with ignoring(ConnectionError):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    raise ConnectionResetError from None

    task = asyncio.create_task(goes_on())
    await asyncio.sleep(0)
    assert await end_tasks([task], within=5)
    assert task.cancelled()


async def test_tasks_that_swallow_a_cancellation_are_cancelled_again() -> None:
    async def swallows() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue
        await asyncio.sleep(60)

    task = asyncio.create_task(swallows())
    await asyncio.sleep(0)
    assert await end_tasks([task], within=5)
    stubborn = asyncio.create_task(swallows())
    await asyncio.sleep(0)
    assert not await end_tasks([stubborn], within=0.2)
    assert await end_tasks([stubborn], within=5)


def test_each_reason_is_logged_once_in_an_outage() -> None:
    thing = Availability("thing", "It is away")
    with structlog.testing.capture_logs() as lines:
        thing.lost("no route")
        thing.lost("no route")
        thing.lost("starting up")
        thing.lost("no route")
        thing.found()
        thing.lost("no route")
        thing.found()
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("thing_unavailable", "no route"),
        ("thing_unavailable", "starting up"),
        ("thing_available", None),
    ]
