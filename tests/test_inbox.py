"""Faults of PostgreSQL while webhooks come in: each is answered in time, and none is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from exporter.database.connect import connect
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres
from exporter.settings import load_settings
from tests.conftest import MakeService, Service, Signer, free_port, wait_until
from tests.sender import ANSWER_WITHIN, Answer, Sender, contact

SENDERS = 8


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this module's own, which is stopped and started at will."""
    with EmbeddedPostgres(
        tmp_path_factory.mktemp("fragile"), settings={"max_connections": "20"}
    ) as server:
        asyncio.run(_migrate(server.url()))
        yield server


async def _migrate(url: str) -> None:
    connection = await connect(load_settings(database_url=url), "test")
    await migrate(connection)
    await connection.close()


@pytest.fixture
def running(fragile: EmbeddedPostgres, make_service: MakeService) -> Service:
    service = make_service(database_url=fragile.url(), kpi_interval="60")
    service.start()
    return service


@pytest.fixture
async def sender(running: Service, signer: Signer) -> Sender:
    return Sender(running.port, signer)


@contextlib.asynccontextmanager
async def _admin(server: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url())
    try:
        yield connection
    finally:
        await connection.close()


async def _under_load(sender: Sender, fault: Callable[[], Awaitable[object]]) -> None:
    stop = asyncio.Event()
    load = asyncio.create_task(sender.stream(stop, SENDERS))
    try:
        await asyncio.sleep(0.3)
        await fault()
        await asyncio.sleep(0.3)
    finally:
        stop.set()
        await load


async def _settle(service: Service, server: EmbeddedPostgres, sender: Sender) -> None:
    """Wait until all is drained, and hold the ledger against the inbox."""
    await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0, 20)
    assert {answer.status for answer in sender.answers} <= {200, 202, 429}
    assert max(answer.seconds for answer in sender.answers) < ANSWER_WITHIN
    async with _admin(server) as connection:
        assert not await sender.missing(connection)


def _statuses(sender: Sender) -> set[int]:
    return {answer.status for answer in sender.answers}


async def test_requests_in_flight_share_commits(
    running: Service, sender: Sender, fragile: EmbeddedPostgres
) -> None:
    for _ in range(5):
        await asyncio.gather(*(sender.send(contact()) for _ in range(40)))
    metrics = running.metrics()
    commits = metrics["ghl_exporter_group_commit_events_count"]
    assert metrics["ghl_exporter_group_commit_events_sum"] == 200
    assert commits < 100
    await _settle(running, fragile, sender)


async def test_without_postgresql_at_the_start_webhooks_wait_in_the_spool(
    make_service: MakeService, signer: Signer, tmp_path: Path
) -> None:
    server = EmbeddedPostgres(tmp_path / "late")
    with server:
        url = server.url()
    service = make_service(database_url=url)
    service.start()
    sender = Sender(service.port, signer)
    for _ in range(10):
        assert (await sender.send(contact())).status == 202
    assert service.get("/metrics")[0] == 200
    assert service.metrics()["ghl_exporter_database_up"] == 0
    with server:
        await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0, 20)
        await wait_until(lambda: service.metrics()["ghl_exporter_database_up"] == 1)
        assert (await sender.send(contact())).status == 200
        async with _admin(server) as connection:
            assert not await sender.missing(connection)


@pytest.mark.parametrize("seconds", [1, 5])
async def test_a_server_that_hangs_costs_nobody_an_answer(
    running: Service, sender: Sender, fragile: EmbeddedPostgres, seconds: int
) -> None:
    async def hang() -> None:
        fragile.pause()
        try:
            await asyncio.sleep(seconds)
            assert running.get("/metrics")[0] == 200
        finally:
            fragile.resume()

    await _under_load(sender, hang)
    await _settle(running, fragile, sender)
    if seconds > 2:
        assert 202 in _statuses(sender)


async def test_a_locked_inbox_costs_nobody_an_answer(
    running: Service, sender: Sender, fragile: EmbeddedPostgres
) -> None:
    async def lock() -> None:
        async with _admin(fragile) as connection, connection.transaction():
            await connection.execute("LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(4)

    await _under_load(sender, lock)
    assert 202 in _statuses(sender)
    await _settle(running, fragile, sender)


async def test_when_every_backend_is_terminated_nothing_is_lost(
    running: Service, sender: Sender, fragile: EmbeddedPostgres
) -> None:
    async def terminate() -> None:
        async with _admin(fragile) as connection:
            for _ in range(10):
                await connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'ghl-exporter%'"
                )
                await asyncio.sleep(0.2)

    await _under_load(sender, terminate)
    await _settle(running, fragile, sender)


async def test_when_the_connections_are_used_up_the_spool_takes_over(
    running: Service, sender: Sender, fragile: EmbeddedPostgres
) -> None:
    async def use_up() -> None:
        async with contextlib.AsyncExitStack() as stack:
            admin = await stack.enter_async_context(_admin(fragile))
            # The service may be quicker to connect again than this is to take its place.
            while await admin.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'ghl-exporter%'"
            ):
                with contextlib.suppress(asyncpg.TooManyConnectionsError):
                    while True:
                        await stack.enter_async_context(_admin(fragile))
            await asyncio.sleep(1.5)

    await _under_load(sender, use_up)
    assert 202 in _statuses(sender)
    await _settle(running, fragile, sender)


async def test_a_server_that_became_a_standby_is_not_written_to(
    running: Service, sender: Sender, fragile: EmbeddedPostgres
) -> None:
    async def read_only(value: str) -> None:
        async with _admin(fragile) as connection:
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            await connection.execute("SELECT pg_reload_conf()")

    async def fail_over() -> None:
        await read_only("on")
        await asyncio.sleep(2)
        await read_only("off")

    await _under_load(sender, fail_over)
    assert 202 in _statuses(sender)
    await _settle(running, fragile, sender)


async def test_where_nothing_can_be_stored_it_is_refused_until_it_can(
    make_service: MakeService, signer: Signer, fragile: EmbeddedPostgres, tmp_path: Path
) -> None:
    nowhere = tmp_path / "a-file"
    nowhere.touch()
    service = make_service(
        database_url=fragile.url(), spool_path=nowhere / "spool.sqlite3", kpi_interval="60"
    )
    service.start()
    sender = Sender(service.port, signer)
    assert (await sender.send(contact())).status == 200
    fragile.stop()
    try:
        answer = await sender.send(contact())
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 0
        assert service.get("/-/ready")[0] == 503
        assert service.get("/-/healthy")[0] == 200
    finally:
        fragile.start()
    await wait_until(lambda: service.get("/-/ready")[0] == 200, 20)
    assert (await sender.send(contact())).status == 200
    refused = 'ghl_exporter_webhooks_total{outcome="refused",source="ghl"}'
    assert service.metrics()[refused] == 1
    async with _admin(fragile) as connection:
        assert not await sender.missing(connection)


async def test_an_event_that_postgresql_refuses_holds_up_nobody(
    running: Service, sender: Sender, fragile: EmbeddedPostgres
) -> None:
    """A row that the server takes for bad data, as a later version or a trigger might."""
    trigger: Any = """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF new.idempotency_key LIKE 'bad-%' THEN
                RAISE EXCEPTION 'no' USING ERRCODE = 'data_exception';
            END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON inbox_keys
            FOR EACH ROW EXECUTE FUNCTION refuse();
    """
    async with _admin(fragile) as connection:
        await connection.execute(trigger)
        try:
            bad = [sender.send(contact(webhookId=f"bad-{number}")) for number in range(3)]
            good = [sender.send(contact()) for _ in range(20)]
            answers = await asyncio.gather(*bad, *good)
            assert {answer.status for answer in answers} <= {200, 202}
            await wait_until(lambda: running.metrics()["ghl_exporter_spool_events"] == 0, 20)
            assert running.metrics()["ghl_exporter_spool_set_aside_events"] == 3
            missing = await sender.missing(connection)
            assert sorted(key for _, key, _ in missing) == ["bad-0", "bad-1", "bad-2"]
            assert (await sender.send(contact())).status == 200
        finally:
            await connection.execute("DROP FUNCTION refuse CASCADE")


class _Silence(asyncio.Protocol):
    """A server that takes connections and never says a word."""

    def __init__(self, taken: list[asyncio.BaseTransport]) -> None:
        self._taken = taken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._taken.append(transport)


@pytest.mark.parametrize("kind", ["refuses", "hangs"])
async def test_the_first_webhook_after_a_start_without_postgresql_is_answered_at_once(
    make_service: MakeService, signer: Signer, kind: str
) -> None:
    loop = asyncio.get_running_loop()
    port = free_port()
    taken: list[asyncio.BaseTransport] = []
    silent = await loop.create_server(
        lambda: _Silence(taken), "127.0.0.1", port if kind == "hangs" else 0
    )
    try:
        service = make_service(database_url=f"postgresql://nobody@127.0.0.1:{port}/none")
        service.start(wait=False)
        sender = Sender(service.port, signer)
        bodies = [contact() for _ in range(5)]
        answers = await asyncio.gather(*(_send_once_it_listens(sender, body) for body in bodies))
        answers.append(await sender.send(contact()))
        print("seconds:", *(round(answer.seconds, 3) for answer in answers))
        assert {answer.status for answer in answers} == {202}
        # From the moment at which the socket took the connection, the rest of the start included.
        assert max(answer.seconds for answer in answers) < 2
    finally:
        silent.close()
        for transport in taken:
            transport.close()
        await silent.wait_closed()


async def _send_once_it_listens(sender: Sender, body: bytes) -> Answer:
    while True:
        try:
            return await sender.send(body)
        except OSError:
            await asyncio.sleep(0.002)
