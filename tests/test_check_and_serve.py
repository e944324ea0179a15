"""`check` and `serve` agree on settings; `serve` takes webhooks without what it can do without."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest
from redis.asyncio import Redis

from exporter.cache.redis import KEY_KINDS
from exporter.database.connect import connect
from exporter.database.errors import DatabaseUnavailableError
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey
from exporter.inbox.store import insert_events
from exporter.service.app import create_app
from exporter.settings import FALLBACKS, SECRETS, Settings, examine_settings, load_settings
from tests.conftest import MakeService, Service, Signer, free_port, wait_until
from tests.projecting import received
from tests.sender import Sender, contact
from tests.test_commands import Done, command, event
from tests.test_settings import SPECIAL_URLS

ROOT = Path(__file__).parents[1]
MARK = "s3cret"


def wrong(done: Done) -> list[str]:
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("wrong")]


def texts(service: Service) -> str:
    """All that a service shows: its log, its page."""
    return service.log.read_text() + service.get("/")[1].decode()


async def takes_webhooks(service: Service, signer: Signer, status: int) -> None:
    """Assert that the service is ready and answers a webhook with a status."""
    assert service.get("/-/ready")[0] == 200
    answer = await Sender(service.port, signer).send(contact())
    assert answer.status == status, answer


SHAPES = {
    "empty": "",
    "blank": " \t",
    "bom": "\ufeff",
    "crlf": "\r\n",
    "scheme": f"mysql://u:{MARK}@h/d",
    "garbage": f"{MARK}\u2603",
    "special": f"postgresql://u:{MARK}#/?[@h/d",
    "redis": f"redis://:{MARK}@h/x?{MARK}=1",
    "number": "-1",
    "huge": "9" * 400,
    "float": "1e308",
    "infinite": "inf",
    "json": '{"*": {"' + MARK + '": [NaN]}}',
    "deep": "[" * 50_000,
    "list": f'["{MARK}", 3, null]',
    "nul": f"{MARK}\0",
    "surrogate": f"{MARK}\udcff",
    "long": "x" * 5000,
    "directory": "/",
    "address": f"{'a' * 70}:1",
}
UNSET = ("empty", "blank", "bom", "crlf")


async def test_no_value_of_any_setting_raises_or_shows_a_secret(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    chosen = dict(SHAPES)
    for number in range(10):
        size = chance.randrange(1, 40)
        chosen[f"random {number}"] = MARK + "".join(
            chr(chance.choice([chance.randrange(1, 128), chance.randrange(1, 0x3000)]))
            for _ in range(size)
        )
    secret, env_file = tmp_path / "value", tmp_path / ".env"
    for name in Settings.model_fields:
        for shape, value in chosen.items():
            where = chance.choice(["environment", "file", "dotenv"])
            environment = {}
            env_file.unlink(missing_ok=True)
            if where == "environment" or name not in SECRETS:
                environment[name.upper()] = value
            elif where == "file":
                secret.write_bytes(value.encode("utf-8", "surrogateescape"))
                environment[f"{name.upper()}_FILE"] = str(secret)
            else:
                env_file.write_bytes(f"{name.upper()}={value}".encode("utf-8", "surrogateescape"))
            loaded = examine_settings(env_file=env_file, environment=environment)
            said = [str(fault) for fault in loaded.faults] + loaded.notes
            assert all("\n" not in line for line in said), (name, shape, where)
            if name in SECRETS:
                assert not any(MARK in line for line in said), (name, shape, where, said)
            if shape in UNSET and where != "file":
                assert not loaded.faults, (name, shape, where, said)
            if not loaded.fatal:
                # What is not refused can be served with.
                create_app(loaded.settings)


def sample() -> Iterator[dict[str, str]]:
    """Settings of which `check` and `serve` must think the same."""
    for name, url in SPECIAL_URLS[::4]:
        yield {name: url}
    yield {"redis_url": "redis://127.0.0.1:1/0?ssl_cert_reqs=none"}
    yield {"database_url_file": "/nowhere/s3cret"}
    yield {"spool_path": "/"}
    yield {"spool_path": "/proc/none/spool.sqlite3"}
    yield {"spool_path": "", "kpi_interval": "", "ghl_public_keys": " ", "log_level": "\ufeff"}
    yield {"listen_address": "nonsense", "cors_origins": "foo", "redis_url": f"http://{MARK}"}
    yield {"metrics_address": "127.0.0.1:12199", "listen_address": "127.0.0.1:12199"}
    yield {"listen_address": "192.0.2.1:12105"}
    yield {"listen_address": f"{'a' * 70}:12105"}
    yield {"metrics_token_file": "/nowhere"}


@pytest.mark.parametrize("given", list(sample()), ids=",".join)
async def test_serve_refuses_what_check_calls_fatal_and_else_takes_webhooks(
    given: dict[str, str], make_service: MakeService, database_url: str, signer: Signer
) -> None:
    fallback = set(given) <= {*FALLBACKS, "database_url_file"}
    starts = fallback or not any(given.values()) or given.get("spool_path") == ""
    service = make_service(**{"database_url": database_url, **given})
    if "database_url_file" in given:
        del service.environment["DATABASE_URL"]
    if given.get("ghl_public_keys"):
        service.environment["GHL_PUBLIC_KEYS"] = signer.pem
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "check"],
        env=service.environment,
        cwd=service.directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert MARK not in done.stdout + done.stderr
    assert done.returncode == (1 if wrong(done) else 0)
    service.start(wait=False)
    assert service.process is not None
    if not starts:
        assert wrong(done)
        assert service.process.wait(20) == 1
        log = service.log.read_text()
        assert [line for line in log.splitlines() if line.startswith("wrong")] == wrong(done)
        assert "Traceback" not in log
        assert MARK not in log
        return
    service.wait_ready()
    spools = any(name.startswith("database_url") for name in given)
    await takes_webhooks(service, signer, 202 if spools else 200)
    shown = texts(service)
    assert "Traceback" not in shown
    assert MARK not in shown
    for line in wrong(done):
        # Each fault is one line of the log, and on the page.
        variable, _, problem = line.removeprefix("wrong  ").partition(": ")
        if "can't be written" in problem:
            assert "spool_unavailable" in shown
            assert "The local spool cannot be used" in shown
            continue
        unusable = [one for one in service.log_lines() if one["event"] == "setting_unusable"]
        assert [(one["variable"], one["reason"]) for one in unusable] == [(variable, problem)]
        assert f"{variable}: " in service.get("/")[1].decode()
        assert service.log.read_text().count(problem) == 1


async def test_a_database_url_that_can_not_be_used_is_in_the_health_report(
    make_service: MakeService, database_url: str
) -> None:
    key = command(
        *("keys", "create", "--name", "n", "--scopes", "read", "--locations", "*"),
        database_url=database_url,
    ).stdout.strip()
    service = make_service(database_url=database_url, redis_url="redis://")
    service.start()

    def known() -> bool:
        answer = service.get("/api/business-metrics/health", {"Authorization": f"Bearer {key}"})
        return answer[0] == 200 and b"REDIS_URL: it has to name one host" in answer[1]

    await wait_until(known)
    # Reading answers before an instance leads.
    await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    assert service.metrics()["ghl_exporter_redis_up"] == 0


def test_a_command_of_the_database_says_in_one_line_that_its_url_is_unusable() -> None:
    url = f"postgresql://u:{MARK}#x@127.0.0.1/d"
    for arguments in (("migrate",), ("rebuild",), ("replay",), ("keys", "list")):
        done = command(*arguments, database_url=url)
        assert done.returncode == 1
        assert done.stdout == ""
        assert re.fullmatch(r"wrong  DATABASE_URL: percent-encode [^\n]+\n", done.stderr)


def test_a_secret_file_with_a_bom_and_crlf_is_the_secret(
    make_service: MakeService, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"\xef\xbb\xbfs3cret\r\n")
    service = make_service(ghl_webhook_secret_file=path, database_url="postgresql://127.0.0.1:1/x")
    service.start()
    from urllib.request import Request, urlopen

    body = orjson.dumps({"type": "x", "location": {"id": "loc"}, "contact_id": "c"})
    request = Request(
        f"{service.url}/webhooks/workflow",
        body,
        {"X-Webhook-Secret": "s3cret", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=10) as answer:
        assert answer.status in (200, 202)


async def test_a_database_that_is_newer_is_named_and_webhooks_go_to_the_spool(
    make_service: MakeService,
    database_url: str,
    signer: Signer,
    connection: asyncpg.Connection,
) -> None:
    await connection.execute("INSERT INTO schema_migrations VALUES (9999, '9999_later')")
    says = "the database is newer than this version, which doesn't know its migrations 9999_later"
    for arguments in (("check",), ("migrate",), ("keys", "list"), ("rebuild",)):
        done = command(*arguments, database_url=database_url)
        assert done.returncode == 1
        assert says in wrong(done)[-1]
        assert "Traceback" not in done.stderr
    service = make_service(database_url=database_url)
    service.start()
    await takes_webhooks(service, signer, 202)
    assert says in service.log.read_text()
    assert "the database is newer than this version" in service.get("/")[1].decode()
    assert "Traceback" not in service.log.read_text()
    assert not await connection.fetchval("SELECT count(*) FROM inbox")
    await connection.execute("DELETE FROM schema_migrations WHERE number = 9999")

    async def drained() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM inbox"))

    await wait_until(drained)


async def test_redis_that_refuses_keys_is_noted_and_is_not_up(
    make_service: MakeService, database_url: str, valkey: EmbeddedValkey
) -> None:
    admin: Any = Redis.from_url(valkey.url())
    rules = ("on", ">pw", "~cache:*", "~ghl_exporter*", "+@all")
    await admin.execute_command("ACL", "SETUSER", "app", *rules)
    url = re.sub(r"//:[^@]*@", "//app:pw@", valkey.url())
    try:
        done = command("check", database_url=database_url, redis_url=url)
        assert "note   REDIS_URL: it refuses a key that the service needs: " in done.stdout
        assert done.returncode == 0
        service = make_service(database_url=database_url, redis_url=url)
        service.start()
        # Sampled once before it is looked at.
        await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
        assert service.metrics()["ghl_exporter_redis_up"] == 0
        await admin.execute_command("ACL", "SETUSER", "app", "~*")
        done = command("check", database_url=database_url, redis_url=url)
        assert "right  Redis sets, reads and deletes keys" in done.stdout
        await wait_until(lambda: service.metrics()["ghl_exporter_redis_up"] == 1)
        assert not [key async for key in admin.scan_iter("*:probe:*")]
    finally:
        await admin.execute_command("ACL", "DELUSER", "app")
        await admin.aclose()


class ClusterValkey(EmbeddedValkey):
    """A node of a cluster."""

    def _command(self) -> list[str]:
        # Its own bus would have a port 10,000 above, where another server may be.
        bus = ("--cluster-port", str(free_port()))
        return [*super()._command(), "--cluster-enabled", "yes", *bus, "--dir", str(self.directory)]


def test_a_node_of_a_cluster_that_has_not_all_keys_is_noted(
    database_url: str, tmp_path: Path
) -> None:
    with ClusterValkey(tmp_path / "cluster") as server:
        done = command("check", database_url=database_url, redis_url=server.url())
        assert "note   REDIS_URL: it refuses a key that the service needs: " in done.stdout


def test_check_names_a_setting_that_accepts_nothing(database_url: str) -> None:
    done = command("check", database_url=database_url, accept_rsa_signatures="true")
    assert "note   ACCEPT_RSA_SIGNATURES accepts nothing" in done.stdout


def test_the_probe_knows_every_kind_of_key() -> None:
    sql = (ROOT / "sql" / "cache" / "days.sql").read_text()
    assert set(re.findall(r"'([a-z_]+):'", sql)) <= set(KEY_KINDS)
    code = "".join(path.read_text() for path in (ROOT / "exporter").rglob("*.py"))
    assert set(re.findall(r"f?\"([a-z_]+):\{", code)) & set(KEY_KINDS)


async def test_a_session_whose_commits_do_not_wait_for_the_disk_stores_nothing_unnoticed(
    postgres: EmbeddedPostgres, database_url: str, connection: asyncpg.Connection
) -> None:
    role = f"hasty_{uuid4().hex[:8]}"
    admin = await asyncpg.connect(database_url)
    await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    await admin.execute(f"ALTER ROLE {role} SET synchronous_commit = off")
    await admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    url = re.sub(r"//[^@]*@", f"//{role}:x@", database_url)
    try:
        done = command("check", database_url=url)
        assert f"the role {role} may not read and write inbox_id: GRANT ALL" in wrong(done)[0]
        await admin.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        # Overruled in the session that commits, and noted by check.
        session = await connect(load_settings(database_url=url), "test")
        assert await session.fetchval("SHOW synchronous_commit") == "on"
        now = await session.fetchval("SELECT now()")
        assert await insert_events(session, [received(*event(1, now))]) == {0}
        done = command("check", database_url=url)
        assert "note   synchronous_commit is off by default" in done.stdout
        # A pooler can put another session in its place: the commit itself is asked.
        await session.execute("SET synchronous_commit = off")
        with pytest.raises(DatabaseUnavailableError, match="synchronous_commit is off"):
            await insert_events(session, [received(*event(2, now))])
        await session.close()
    finally:
        await admin.execute(f"DROP OWNED BY {role}")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()


def test_misspelt_lines_of_a_dotenv_file_are_reported_by_both(
    make_service: MakeService, database_url: str
) -> None:
    service = make_service(database_url=database_url)
    (service.directory / ".env").write_text("SPOOL_PTAH=/x\nEXPORTER_PORT=1\n")
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "check"],
        env=service.environment,
        cwd=service.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    says = "SPOOL_PTAH: no such setting in .env; did you mean SPOOL_PATH?"
    assert wrong(done) == [f"wrong  {says}"]
    assert "note   .env has lines that are no settings: EXPORTER_PORT" in done.stdout
    service.start()
    assert says in service.get("/")[1].decode()


def test_check_goes_on_after_a_setting_that_is_wrong(database_url: str) -> None:
    done = command(
        "check",
        database_url=database_url,
        listen_address="nowhere",
        redis_url="redis://127.0.0.1:1",
        spool_path="/proc/none/x",
    )
    assert [line.split()[1] for line in wrong(done)] == ["LISTEN_ADDRESS:", "SPOOL_PATH:"]
    assert "right  all migrations are applied" in done.stdout
    assert "note   REDIS_URL: " in done.stdout


def test_check_of_an_address_in_use_is_a_note(make_service: MakeService, database_url: str) -> None:
    service = make_service(database_url=database_url)
    service.start()
    address = f"127.0.0.1:{service.port}"
    done = command("check", database_url=database_url, listen_address=address)
    assert f"note   LISTEN_ADDRESS {address} is in use" in done.stdout
    assert done.returncode == 0
