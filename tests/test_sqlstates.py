"""Every SQLSTATE, raised by a server at each place: nothing ends, and each reason is one line."""

import argparse
import asyncio
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from exporter.api import authentication as guard_module
from exporter.api.keys import create_key
from exporter.cache.redis import Cache
from exporter.commands.check import run_check
from exporter.commands.output import Output
from exporter.commands.run import run_command
from exporter.database.connect import connect, create_pool
from exporter.database.errors import UNAVAILABLE, reason_of
from exporter.demo.servers import EmbeddedPostgres
from exporter.inbox import inbox as inbox_module
from exporter.inbox.inbox import Inbox, Outcome
from exporter.inbox.store import insert_events
from exporter.kpis.refresh import KpiRefresher
from exporter.publishing.day_figures import DayFigures
from exporter.service import leader as leader_module
from exporter.service import lease as lease_module
from exporter.service.app import create_app
from exporter.service.leader import Leader
from exporter.service.serve import Migrator
from exporter.settings import examine_settings, load_settings
from exporter.support.error_text import QUOTING_CLASSES
from exporter.support.tasks import end_tasks
from exporter.telemetry.metrics import LiveMetrics
from tests.conftest import TEMPLATE, MakeService, Signer, wait_until
from tests.faulty import STATES, faulty_database
from tests.projecting import received
from tests.sender import Sender, contact

# These are said in other words: what the pooler must be set to.
OF_POOLERS = ("42P05", "26000")
PASSWORD = "s3cr3t-of-the-role"
NOW = datetime.now(UTC)


def test_there_are_many() -> None:
    assert len(STATES) > 240


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"SEED={seed}")
    return random.Random(seed)


def _of_each_class(chance: random.Random) -> list[str]:
    by_class: dict[str, list[str]] = {}
    for state in STATES:
        by_class.setdefault(state[:2], []).append(state)
    return [chance.choice(states) for states in by_class.values()]


def _is_described(reason: str, state: str) -> None:
    # What quotes a row's values is left out of messages.
    said = f"it fails with {state} " if not state.startswith(QUOTING_CLASSES) else ""
    assert said in reason
    assert f"(SQLSTATE {state})" in reason
    assert "\n" not in reason
    assert "ann@example.com" not in reason
    assert PASSWORD not in reason


async def test_at_connect() -> None:
    state = ""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length - 4)
        fields = {"S": "FATAL", "V": "FATAL", "C": state, "M": f"it fails with {state}"}
        body = b"".join(k.encode() + v.encode() + b"\0" for k, v in fields.items()) + b"\0"
        writer.write(b"E" + (len(body) + 4).to_bytes(4, "big") + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = load_settings(
        database_url=f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/d?sslmode=disable"
    )
    migrator = Migrator(settings)
    for state in STATES:
        with pytest.raises(UNAVAILABLE) as caught:
            await connect(settings, "test")
        if state not in OF_POOLERS:
            _is_described(reason_of(caught.value), state)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(migrator.run())
        await migrator.tried.wait()
        assert await end_tasks([running], within=5)
    assert [line["event"] for line in lines] == ["migration_unavailable"]
    server.close()
    await server.wait_closed()


async def test_at_migrate(postgres: EmbeddedPostgres, capsys: pytest.CaptureFixture[str]) -> None:
    async with faulty_database(postgres, "template0") as faulty:
        await faulty.admin.execute(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$"
            " DECLARE code text := (SELECT code FROM fault); BEGIN"
            " IF code IS NOT NULL THEN"
            "  RAISE EXCEPTION 'it fails with %', code USING ERRCODE = code; END IF; END $$;"
            "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TABLE')"
            " EXECUTE FUNCTION refuse()"
        )
        settings = load_settings(database_url=faulty.url)
        options = argparse.Namespace(command="migrate")
        for state in STATES:
            await faulty.say(state)
            migrator = Migrator(settings)
            with structlog.testing.capture_logs() as lines:
                running = asyncio.create_task(migrator.run())
                await migrator.tried.wait()
                assert not running.done()
                assert await end_tasks([running], within=5)
                assert running.cancelled()
            [line] = [line for line in lines if line["event"] == "migration_unavailable"]
            _is_described(line["reason"], state)
            assert await asyncio.to_thread(run_command, settings, options, Output()) == 1
            out, err = capsys.readouterr()
            assert out == ""
            [said] = err.splitlines()
            _is_described(said.removeprefix("wrong  PostgreSQL: "), state)
        await faulty.say(None)
        assert await asyncio.to_thread(run_command, settings, options, Output()) == 0


COMMANDS: list[dict[str, Any]] = [
    {"command": "keys", "action": "list"},
    {"command": "keys", "action": "create", "name": "n", "scopes": "read", "locations": "*"},
    {"command": "rebuild", "dry_run": False, "forget_dropped": False},
    {"command": "replay", "location": None},
    {"command": "import", "file": Path("/dev/null"), "location": "", "forget": False},
    {"command": "erase", "location": "a", "accept_again": False, "dry_run": False, "yes": True},
]


@pytest.mark.parametrize("options", COMMANDS, ids=lambda one: one.get("action", one["command"]))
async def test_at_a_command(
    postgres: EmbeddedPostgres,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    chance: random.Random,
) -> None:
    async with faulty_database(postgres, TEMPLATE) as faulty:
        await faulty.fail_at("audit", "projection_state")
        await faulty.fail_where_it_is_read("api_keys")
        settings = load_settings(database_url=faulty.url)
        for state in chance.sample(STATES, 20):
            await faulty.say(state)
            given = argparse.Namespace(**options)
            capsys.readouterr()
            assert await asyncio.to_thread(run_command, settings, given, Output()) == 1, state
            out, err = capsys.readouterr()
            assert out == "", state
            assert "Traceback" not in err
            [said] = [line for line in err.splitlines() if line.startswith("wrong")]
            _is_described(said.removeprefix("wrong  PostgreSQL: "), state)


async def test_at_check(
    postgres: EmbeddedPostgres,
    capsys: pytest.CaptureFixture[str],
    chance: random.Random,
    tmp_path: Path,
) -> None:
    async with faulty_database(postgres, TEMPLATE) as faulty:
        await faulty.fail_where_it_is_read("schema_migrations")
        loaded = examine_settings(
            environment={"DATABASE_URL": faulty.url, "SPOOL_PATH": str(tmp_path / "spool")}
        )
        for state in chance.sample(STATES, 20):
            await faulty.say(state)
            assert await asyncio.to_thread(run_check, loaded, Output()) == 1, state
            wrong = [x for x in capsys.readouterr().out.splitlines() if x.startswith("wrong")]
            [said] = [line for line in wrong if "DATABASE_URL" in line]
            if state not in OF_POOLERS:
                _is_described(said.removeprefix("wrong  DATABASE_URL: "), state)


async def test_at_an_answer(
    postgres: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    aiohttp_client: Any,
) -> None:
    # Those without a good key are never too many.
    monkeypatch.setattr(guard_module, "_STRANGERS_PER_MINUTE", 1_000)
    base = "/api/business-metrics"
    async with faulty_database(postgres, TEMPLATE) as faulty:
        token = await create_key(faulty.admin, "all", ["read"], ["*"])
        headers = {"Authorization": f"Bearer {token}"}
        await faulty.fail_where_it_is_read("locations")
        await faulty.fail_where_it_is_read("api_keys")
        settings = load_settings(database_url=faulty.url, spool_path=tmp_path / "spool")
        client = await aiohttp_client(create_app(settings))
        async with client.get(f"{base}/summary/a", headers=headers) as response:
            assert response.status == 404  # nothing fails yet, and the key is known now
        with structlog.testing.capture_logs() as lines:
            for state in STATES:
                await faulty.say(state)
                # A key that is known, one that is not, none at all.
                for given in (headers, {"Authorization": "Bearer ghlx_0_0"}, {}):
                    async with client.get(f"{base}/summary/a", headers=given) as response:
                        assert response.status == 503, state
                        assert response.content_type == "application/problem+json"
                        assert "fails" not in await response.text()
        reasons = [x["reason"] for x in lines if x["event"] == "api_database_unavailable"]
        assert reasons
        assert len(reasons) == len(set(reasons)) <= 10
        await faulty.say(None)
        async with client.get(f"{base}/summary/a", headers=headers) as response:
            assert response.status == 404


async def test_at_the_inbox(
    postgres: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chance: random.Random,
) -> None:
    monkeypatch.setattr(inbox_module, "_DRAIN_PAUSE", 0.005)
    states = _of_each_class(chance)
    async with faulty_database(postgres, TEMPLATE) as faulty:
        await faulty.fail_at("inbox")
        settings = load_settings(database_url=faulty.url, spool_path=tmp_path / "spool.sqlite3")
        inbox = Inbox(settings, LiveMetrics())
        await inbox.start()
        with structlog.testing.capture_logs() as lines:
            for state in states:
                await faulty.say(state)
                event = received(contact(), "ghl", NOW)
                outcome = await inbox.accept(event, database_until=_in(2), spool_until=_in(4))
                assert outcome is Outcome.SPOOLED, state
                aside = inbox.spool.set_aside

                def tried(state: str = state, aside: int = aside) -> bool:
                    reason = inbox.availability.reason or ""
                    return f"SQLSTATE {state}" in reason or inbox.spool.set_aside > aside

                await wait_until(tried)
                assert inbox.spool.usable
            await faulty.say(None)
            await wait_until(lambda: inbox.spool.events == 0)
        reasons = [x["reason"] for x in lines if x["event"] == "database_unavailable"]
        assert reasons
        assert len(reasons) == len(set(reasons))
        taken = await faulty.admin.fetchval("SELECT count(*) FROM inbox")
        assert taken + inbox.spool.set_aside == len(states)
        await faulty.say("XX000")
        await inbox.accept(
            received(contact(), "ghl", NOW), database_until=_in(2), spool_until=_in(4)
        )
        async with asyncio.timeout(10):
            await inbox.stop()


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_at_the_leader(
    postgres: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chance: random.Random,
) -> None:
    for module, name in ((leader_module, "_FIRST_PAUSE"), (leader_module, "_RETRY")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(lease_module, "_CONFIRM_EVERY", 0.2)
    async with faulty_database(postgres, TEMPLATE) as faulty:
        await faulty.fail_at("contacts")
        settings = load_settings(
            database_url=faulty.url, spool_path=tmp_path / "spool", projection_batch_size=1
        )
        metrics = LiveMetrics()
        pool = create_pool(settings, "kpis")
        await pool
        figures = DayFigures(settings, Cache(None))
        leader = Leader(settings, pool, KpiRefresher(settings, pool, metrics), figures, metrics)
        inbox = Inbox(settings, metrics)
        await inbox.start()
        running = asyncio.create_task(leader.run())
        with structlog.testing.capture_logs() as lines:
            for state in _of_each_class(chance):
                await faulty.say(state)
                event = received(contact(dateAdded=NOW.isoformat()), "ghl", NOW)
                await inbox.accept(event, database_until=_in(5), spool_until=_in(5))

                async def met(state: str = state) -> bool:
                    assert not running.done()
                    if f"SQLSTATE {state}" in (leader.availability.reason or ""):
                        return True
                    found = "SELECT EXISTS (SELECT FROM quarantine WHERE error LIKE $1)"
                    return bool(await faulty.admin.fetchval(found, f"%it fails with {state}%"))

                await wait_until(met)
            await faulty.say(None)

            async def projected() -> bool:
                return not await faulty.admin.fetchval("SELECT count(*) FROM inbox_pending")

            await wait_until(projected)
            await wait_until(lambda: leader.leads)
        reasons = [x["reason"] for x in lines if x["event"] == "leader_unavailable"]
        assert reasons
        assert len(reasons) == len(set(reasons))
        # Rights, missing tables, limits, outages are no event's fault; a statement that one event
        # alone makes too slow is.
        rows = await faulty.admin.fetch(
            "SELECT substring(error FROM 'fails with (..)') AS kind FROM quarantine"
            " WHERE error !~ '57014'"
        )
        kinds = {row["kind"] for row in rows}
        assert {"22", "23"} <= kinds
        assert not kinds & {"08", "0A", "25", "28", "40", "42", "53", "55", "57", "58", "XX"}
        await faulty.say("XX000")
        assert await end_tasks([running], within=10)
        assert running.cancelled()
        await inbox.stop()
        await pool.close()


async def test_a_fault_of_our_own_is_logged_with_its_traceback_and_costs_no_webhook(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setattr(inbox_module, "_DRAIN_PAUSE", 0.005)
    settings = load_settings(database_url=database_url, spool_path=tmp_path / "spool.sqlite3")
    inbox = Inbox(settings, LiveMetrics())
    await inbox.start()

    async def broken(*_: Any) -> set[int]:
        raise TypeError("a fault of ours")

    monkeypatch.setattr(inbox_module, "insert_events", broken)
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            event = received(contact(), "ghl", NOW)
            outcome = await inbox.accept(event, database_until=_in(2), spool_until=_in(4))
            assert outcome is Outcome.SPOOLED
            await asyncio.sleep(0.02)
        monkeypatch.setattr(inbox_module, "insert_events", insert_events)
        await wait_until(lambda: inbox.spool.events == 0)
    faults = [line for line in lines if line["log_level"] == "error"]
    assert [line["event"] for line in faults] == ["drain_failed"]
    assert faults[0]["exc_info"]
    await inbox.stop()


async def test_a_service_whose_database_fails_in_every_way_takes_all_webhooks(
    postgres: EmbeddedPostgres, make_service: MakeService, signer: Signer, chance: random.Random
) -> None:
    async with faulty_database(postgres, TEMPLATE) as faulty:
        await faulty.fail_at("inbox_keys", "contacts", "locations", "audit", "projection_state")
        service = make_service(database_url=faulty.url)
        service.start()
        sender = Sender(service.port, signer)
        for state in chance.sample(STATES, 60):
            await faulty.say(state)
            assert (await sender.send(contact())).taken, state
            assert service.get("/-/ready")[0] == 200, state
        await faulty.say(None)
        await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
        names = [line["event"] for line in service.log_lines()]
        assert "task_failed" not in names
        assert "ann@example.com" not in service.log.read_text()
        assert service.stop() == 0
