"""PgBouncer: session mode works as it is installed; transaction mode is refused by name."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from exporter.database.connect import connect
from exporter.database.errors import TransactionPoolingError
from exporter.demo.servers import EmbeddedPostgres
from exporter.settings import load_settings
from tests.conftest import MakeService, Signer, wait_until
from tests.pooler import PgBouncer
from tests.sender import Sender, contact
from tests.test_commands import command

pytestmark = pytest.mark.skipif(
    not PgBouncer.available(), reason="needs PgBouncer: apt install pgbouncer"
)
IGNORED = "extra_float_digits,synchronous_commit,jit,timezone"


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> str:
    """An empty database's name."""
    name = f"pooled_{uuid4().hex[:8]}"
    admin = await asyncpg.connect(postgres.url())
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    return name


@pytest.fixture
def session_mode(postgres: EmbeddedPostgres, tmp_path: Path) -> Iterator[PgBouncer]:
    with PgBouncer(tmp_path / "session", postgres, "session") as pooler:
        yield pooler


async def test_session_mode_with_the_packages_defaults_works(
    session_mode: PgBouncer, database: str, make_service: MakeService, signer: Signer
) -> None:
    url = session_mode.url(database)
    done = command("migrate", database_url=url)
    assert done.returncode == 0, done.stderr
    service = make_service(database_url=url)
    service.start()
    await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    sender = Sender(service.port, signer)
    for _ in range(5):
        assert (await sender.send(contact())).status == 200
    await wait_until(lambda: service.metrics()["ghl_exporter_inbox_backlog_events"] == 0)
    done = command("rebuild", "--dry-run", database_url=url)
    assert done.stdout == "5 events; rows that differ: 0\n", done.stderr
    assert command("check", database_url=url).returncode == 0
    # It still leads: its session is its own.
    assert service.metrics()["ghl_exporter_leader"] == 1
    assert not [x for x in service.log_lines() if x["event"].endswith("_unavailable")]
    assert service.stop() == 0


@pytest.mark.parametrize("options", [{}, {"ignore_startup_parameters": IGNORED}])
async def test_transaction_mode_is_refused_by_name_and_webhooks_go_to_the_spool(
    postgres: EmbeddedPostgres,
    tmp_path: Path,
    database: str,
    make_service: MakeService,
    signer: Signer,
    options: dict[str, str],
) -> None:
    with PgBouncer(tmp_path / "transaction", postgres, "transaction", **options) as pooler:
        url = pooler.url(database)
        for arguments in (("migrate",), ("check",), ("keys", "list"), ("rebuild",), ("migrate",)):
            done = command(*arguments, database_url=url)
            assert done.returncode == 1
            said = done.stdout + done.stderr
            [line] = [line for line in said.splitlines() if line.startswith("wrong")]
            assert "PgBouncer" in line
            assert "pool_mode=session" in line
            assert "Traceback" not in said
        service = make_service(database_url=url)
        service.start()
        sender = Sender(service.port, signer)
        for _ in range(5):
            assert (await sender.send(contact())).status == 202
            await asyncio.sleep(0.3)
        assert service.get("/-/ready")[0] == 200
        assert "pool_mode=session" in service.get("/")[1].decode()
        reasons = [x["reason"] for x in service.log_lines() if x["event"] == "database_unavailable"]
        assert len(reasons) == len(set(reasons))
        assert any("pool_mode=session" in reason for reason in reasons)
        assert "Traceback" not in service.log.read_text()
        assert service.metrics()["ghl_exporter_leader"] == 0
        # As the operator mends it.
        pooler.stop()
    with PgBouncer(tmp_path / "transaction", postgres, "session", **options):
        await wait_until(lambda: service.metrics()["ghl_exporter_spool_events"] == 0)
        await wait_until(lambda: service.metrics()["ghl_exporter_leader"] == 1)
    direct = await asyncpg.connect(postgres.url(database))
    assert not await sender.missing(direct)
    await direct.close()


@pytest.mark.parametrize("round_robin", ["0", "1"])
async def test_transaction_mode_is_found_at_the_first_connection(
    postgres: EmbeddedPostgres, tmp_path: Path, database: str, round_robin: str
) -> None:
    with PgBouncer(
        tmp_path / "pooler", postgres, "transaction", server_round_robin=round_robin
    ) as pooler:
        settings = load_settings(database_url=pooler.url(database))
        for _ in range(5):
            with pytest.raises(TransactionPoolingError, match="PgBouncer"):
                await connect(settings, "test")
