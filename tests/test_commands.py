"""`ghl-exporter` on the command line, against a real database."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from exporter.database.connect import connect
from exporter.database.migrations import all_migrations
from exporter.demo.servers import EmbeddedPostgres
from exporter.inbox.partitions import create_partitions, drop_old_partitions
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rebuild import RebuildRefused, rebuild
from exporter.settings import SettingsError, load_settings
from tests.conftest import MakeService, Service, Signer, wait_until
from tests.projecting import dump, project_all, received, store
from tests.sender import Sender, contact

Done = subprocess.CompletedProcess[str]


def command(*arguments: str, **settings: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "exporter", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **{name.upper(): value for name, value in settings.items()},
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
async def empty_database_url(postgres: EmbeddedPostgres) -> str:
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    return postgres.url(name)


def test_help_tells_each_command_and_where_the_settings_are() -> None:
    done = command("--help")
    assert done.returncode == 0
    for name in ("serve", "migrate", "check", "validate", "demo", "rebuild", "replay"):
        assert name in done.stdout
        own = command(name, "--help")
        assert own.returncode == 0
        assert len(own.stdout.splitlines()) >= 6
    assert "docs/reference/settings.md" in done.stdout


def test_a_command_line_that_is_wrong_is_2() -> None:
    assert command("nothing").returncode == 2
    assert command().returncode == 2


def test_check_says_everything_that_is_wrong_at_once() -> None:
    done = command(
        "check",
        listen_address="nowhere",
        time_zones='{"*": "Mars/Olympus"}',
        pipeline_stages="{",
        kpi_interval="0",
        ghl_public_keys="none",
        database_url="mysql://x",
    )
    assert done.returncode == 1
    for name in (
        "LISTEN_ADDRESS",
        "TIME_ZONES",
        "PIPELINE_STAGES",
        "KPI_INTERVAL",
        "GHL_PUBLIC_KEYS",
        "DATABASE_URL",
    ):
        assert f"wrong  {name}: " in done.stdout
    assert "Traceback" not in done.stderr


def test_check_names_what_it_can_not_reach(tmp_path: Path) -> None:
    done = command(
        "check",
        database_url="postgresql://someone:hunter2@127.0.0.1:1/none",
        redis_url="redis://:hunter2@127.0.0.1:1",
        spool_path="/proc/none/spool.sqlite3",
    )
    assert done.returncode == 1
    assert "wrong  DATABASE_URL: " in done.stdout
    assert "wrong  SPOOL_PATH: " in done.stdout
    assert "note   REDIS_URL: " in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_check_of_an_empty_database_names_the_migrations(empty_database_url: str) -> None:
    done = command("check", database_url=empty_database_url)
    assert done.returncode == 1
    for migration in all_migrations():
        assert migration.name in done.stdout
    for name in ("rebuild", "replay"):
        refused = command(name, database_url=empty_database_url)
        assert refused.returncode == 1
        assert "run ghl-exporter migrate" in refused.stderr


def test_check_of_a_good_setup_is_0(database_url: str) -> None:
    done = command("check", database_url=database_url, ghl_webhook_secret="s")
    assert done.returncode == 0, done.stderr
    assert "wrong" not in done.stdout + done.stderr
    assert "all migrations are applied" in done.stdout


def test_migrate_applies_each_file_once(empty_database_url: str) -> None:
    first = command("migrate", database_url=empty_database_url)
    assert first.returncode == 0, first.stderr
    assert [line.split()[-1] for line in first.stdout.splitlines()] == [
        migration.name for migration in all_migrations()
    ]
    assert command("migrate", database_url=empty_database_url).stdout == "up to date\n"


async def test_copies_that_migrate_at_one_moment_wait_for_one_another(
    empty_database_url: str,
) -> None:
    done = await asyncio.gather(
        *(asyncio.to_thread(command, "migrate", database_url=empty_database_url) for _ in range(4))
    )
    assert [one.returncode for one in done] == [0] * 4
    assert sum("applied" in one.stdout for one in done) == 1


def event(number: int, at: datetime, **fields: object) -> tuple[bytes, str, datetime]:
    body = contact(id=f"c-{number}", dateAdded=at.isoformat(), timestamp=at.isoformat(), **fields)
    return body, "ghl", at


async def fill(connection: asyncpg.Connection, count: int = 50) -> None:
    """Store contacts of the last days and project them."""
    now = datetime.now(UTC)
    events = [event(n, now - timedelta(hours=n)) for n in range(count)]
    await store(connection, [received(*one) for one in events])
    await project_all(connection, load_settings())


async def test_rebuild_finds_no_difference(
    database_url: str, connection: asyncpg.Connection
) -> None:
    await fill(connection)
    before = await dump(connection)
    done = command("rebuild", database_url=database_url)
    assert done.returncode == 0, done.stderr
    assert "50 events; rows that differ: 0" in done.stdout
    assert await dump(connection) == before


async def test_rebuild_mends_facts_and_a_dry_run_only_tells(
    database_url: str, connection: asyncpg.Connection
) -> None:
    await fill(connection)
    before = await dump(connection)
    await connection.execute("UPDATE contacts SET deleted = true WHERE contact_id = 'c-7'")
    await connection.execute("DELETE FROM daily_business")
    broken = await dump(connection)
    told = command("rebuild", "--dry-run", database_url=database_url)
    assert told.returncode == 0
    assert "contacts: 2" in told.stdout
    assert "daily_business: " in told.stdout
    assert await dump(connection) == broken
    assert command("rebuild", database_url=database_url).returncode == 0
    assert await dump(connection) == before


async def test_rebuild_takes_up_other_settings_and_is_due_no_more(
    database_url: str, connection: asyncpg.Connection
) -> None:
    at = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    await create_partitions(connection, at.date())
    await store(connection, [received(*event(1, at))])
    await project_all(connection, load_settings())
    day = "SELECT created_day::text FROM contacts"
    assert await connection.fetchval(day) == "2026-03-01"
    # Whoever serves notes the rules; here a rebuild does.
    assert command("rebuild", database_url=database_url).returncode == 0
    zones = '{"*": "Europe/Berlin"}'
    note = "the facts are of other settings or an older version"
    assert note in command("check", database_url=database_url, time_zones=zones).stdout
    assert command("rebuild", database_url=database_url, time_zones=zones).returncode == 0
    assert await connection.fetchval(day) == "2026-03-02"
    assert note not in command("check", database_url=database_url, time_zones=zones).stdout


async def test_rebuild_beside_a_service_under_load_loses_nothing(
    make_service: MakeService, database_url: str, signer: Signer, connection: asyncpg.Connection
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    sender = Sender(service.port, signer)
    now = datetime.now(UTC).isoformat()
    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await sender.send(contact(id=f"c-{number}", dateAdded=now))

    loading = asyncio.create_task(load())
    for _ in range(3):
        await asyncio.sleep(0.3)
        done = await asyncio.to_thread(command, "rebuild", database_url=database_url)
        assert done.returncode == 0, done.stderr
    stop.set()
    await loading
    assert all(answer.status == 200 for answer in sender.answers)
    assert not await sender.missing(connection)

    async def projected() -> bool:
        return not await connection.fetchval("SELECT count(*) FROM inbox_pending")

    await wait_until(projected)
    assert await connection.fetchval("SELECT count(*) FROM contacts") == len(sender.ledger)
    last = await asyncio.to_thread(command, "rebuild", "--dry-run", database_url=database_url)
    assert "rows that differ: 0" in last.stdout, last.stdout


async def test_a_second_rebuild_is_refused_while_one_runs(
    database_url: str, connection: asyncpg.Connection
) -> None:
    await fill(connection, 5)
    settings = load_settings(database_url=database_url)
    reader = await connect(settings, "test")
    answers: list[Done] = []

    def meanwhile(done: int, total: int) -> None:
        answers.append(command("rebuild", database_url=database_url))

    report = await rebuild(
        connection, reader, FactSettings.from_settings(settings), progress=meanwhile
    )
    await reader.close()
    assert report.events == 5
    assert answers[0].returncode == 1
    assert "another rebuild is under way" in answers[0].stderr


async def test_old_months_are_dropped_and_a_rebuild_says_what_it_would_forget(
    database_url: str, connection: asyncpg.Connection
) -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=200)
    await create_partitions(connection, old.date())
    events = [event(1, old), event(2, now)]
    await store(connection, [received(*one) for one in events])
    # Not before it is projected.
    assert f"inbox_{old:%Y_%m}" not in await drop_old_partitions(connection, 60)
    await project_all(connection, load_settings())
    assert f"inbox_{old:%Y_%m}" in await drop_old_partitions(connection, 60)
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 1
    assert await connection.fetchval("SELECT count(*) FROM contacts") == 2
    # Sent again, it is still known as received.
    await store(connection, [received(*events[0])])
    assert await connection.fetchval("SELECT count(*) FROM inbox") == 1

    refused = command("rebuild", database_url=database_url)
    assert refused.returncode == 1
    assert "1 stored events were dropped by age" in refused.stderr
    assert await connection.fetchval("SELECT count(*) FROM contacts") == 2
    forced = command("rebuild", "--forget-dropped", database_url=database_url)
    assert forced.returncode == 0, forced.stderr
    assert await connection.fetchval("SELECT count(*) FROM contacts") == 1
    with pytest.raises(RebuildRefused):
        await rebuild(connection, connection, FactSettings.from_settings(load_settings()))


async def test_replay_tries_the_quarantined_events_of_a_location_again(
    make_service: MakeService, database_url: str, signer: Signer, connection: asyncpg.Connection
) -> None:
    service: Service = make_service(database_url=database_url)
    service.start()
    sender = Sender(service.port, signer)
    for location in ("loc-a", "loc-b"):
        assert (await sender.send(contact(id=None, locationId=location))).taken
    quarantined = "SELECT array_agg(location_id ORDER BY location_id) FROM quarantine"

    async def both() -> bool:
        return bool(await connection.fetchval(quarantined) == ["loc-a", "loc-b"])

    await wait_until(both)
    done = command("replay", "--location", "loc-a", database_url=database_url)
    assert done.returncode == 0
    assert "1 events wait to be projected again" in done.stdout
    # Nothing was mended, so it comes back.
    await wait_until(both)
    service.stop()
    assert "2 events wait" in command("replay", database_url=database_url).stdout
    assert await connection.fetchval(quarantined) is None
    assert "0 events wait" in command("replay", database_url=database_url).stdout


async def test_keys_are_created_listed_and_revoked(
    connection: asyncpg.Connection, database_url: str
) -> None:
    made = command(
        "keys",
        "create",
        *("--name", "the platform", "--scopes", "read,track", "--locations", "a,b"),
        database_url=database_url,
    )
    assert made.returncode == 0, made.stderr
    token = made.stdout.removesuffix("\n")
    assert "\n" not in token
    assert token.startswith("ghlx_")
    key_id = token.split("_")[1]
    listed = command("keys", "list", database_url=database_url).stdout
    assert f"{key_id}  good     read,track        a,b" in listed
    assert "the platform" in listed
    assert token.split("_", 2)[2] not in listed
    assert command("keys", "revoke", key_id, database_url=database_url).returncode == 0
    assert command("keys", "revoke", key_id, database_url=database_url).returncode == 1
    assert f"{key_id}  revoked" in command("keys", "list", database_url=database_url).stdout
    rows = await connection.fetch("SELECT actor, action, detail FROM audit ORDER BY at")
    assert [row["action"] for row in rows] == ["keys create", "keys revoke"]
    assert rows[0]["actor"].startswith("command:")
    assert rows[0]["detail"] == f"{key_id} the platform"


@pytest.mark.parametrize(
    ("scopes", "locations", "says"),
    [("write", "a", "no scope: write"), ("", "a", "no scope"), ("read", ",", "--locations")],
)
def test_a_key_that_can_not_be_made_is_said(
    database_url: str, scopes: str, locations: str, says: str
) -> None:
    done = command(
        *("keys", "create", "--name", "n", "--scopes", scopes, "--locations", locations),
        database_url=database_url,
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert done.stdout == ""


def test_a_secret_can_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("DATABASE_URL", "postgresql://from-a-file/x"),
        ("REDIS_URL", "redis://from-a-file"),
        ("GHL_WEBHOOK_SECRET", "hush"),
    ):
        path = tmp_path / name
        path.write_text(f"{value}\n")
        monkeypatch.setenv(f"{name}_FILE", str(path))
    settings = load_settings()
    assert settings.database_url.get_secret_value() == "postgresql://from-a-file/x"
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://from-a-file"
    assert settings.ghl_webhook_secret is not None
    assert settings.ghl_webhook_secret.get_secret_value() == "hush"
    assert "hush" not in repr(settings)
    # What stands in the environment itself is nearer.
    monkeypatch.setenv("GHL_WEBHOOK_SECRET", "louder")
    secret = load_settings().ghl_webhook_secret
    assert secret is not None
    assert secret.get_secret_value() == "louder"
    monkeypatch.setenv("GHL_WEBHOOK_SECRET", "")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match="REDIS_URL_FILE: "):
        load_settings()


def test_settings_come_from_a_dotenv_file_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('KPI_INTERVAL=3\nTIME_ZONES={"*": "Asia/Kolkata"}\n')
    settings = load_settings()
    assert settings.kpi_interval == 3
    assert settings.zone("anything").key == "Asia/Kolkata"
