"""Webhooks per second through the whole path, beside less than the whole path, in one run.

    python -m benchmarks.ingest [--seconds 5] [--rounds 5] [--connections 64]

Rounds of the variants alternate, so that a noisy machine is noisy for all of them; medians count.
PostgreSQL has fsync on. Where there are two CPUs, the servers have the first and the load the last;
PostgreSQL takes what it gets.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from statistics import median

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.signing import SigningKey
from rich.console import Console
from rich.table import Table

from benchmarks.load import Orders, Result, send
from exporter.database.connect import connect
from exporter.database.locks import LEADER_LOCK
from exporter.database.migrations import migrate
from exporter.demo.servers import EmbeddedPostgres
from exporter.settings import load_settings
from tests.conftest import free_port

_SERVICE = "from benchmarks.load import pin; pin(0); from exporter.cli import main; main(['serve'])"
# The server, and whether it projects what it stores.
VARIANTS = {
    "whole path: verify, commit, project": ("service", True),
    "whole path, another copy projects": ("service", False),
    "same handler, stores nothing": ("nothing", False),
    "bare handler, verifies only": ("verify", False),
    "same handler, one INSERT each": ("insert", False),
}
WHOLE, WITHOUT_PROJECTION, NOTHING, BARE, INSERT = VARIANTS


class Server:
    """One variant's server, with a database of its own."""

    def __init__(self, kind: str, postgres: EmbeddedPostgres, key: SigningKey, path: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self.database = f"{kind}_{self.port}"
        self.url = postgres.url(self.database)
        self._path = path / self.database
        self._path.mkdir()
        public = Ed25519PublicKey.from_public_bytes(bytes(key.verify_key))
        self._environment = {
            **os.environ,
            "DATABASE_URL": self.url,
            "LISTEN_ADDRESS": f"127.0.0.1:{self.port}",
            "SPOOL_PATH": str(self._path / "spool.sqlite3"),
            "GHL_PUBLIC_KEYS": public.public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            ).decode(),
            "LOG_FORMAT": "json",
        }

    async def create_database(self, postgres: EmbeddedPostgres) -> asyncpg.Connection:
        """Make the database and return a connection to it."""
        admin = await asyncpg.connect(postgres.url())
        await admin.execute(f"CREATE DATABASE {self.database}")
        await admin.close()
        connection = await connect(load_settings(database_url=self.url), "bench")
        await migrate(connection)
        return connection

    @contextlib.asynccontextmanager
    async def without_leader(self) -> AsyncIterator[None]:
        """Let no instance lead: a session has the lock, and is busy, for an idle one loses it."""
        holder = await connect(load_settings(database_url=self.url), "bench")
        await holder.execute("SET statement_timeout = 0")
        await holder.fetchval("SELECT pg_advisory_lock($1)", LEADER_LOCK)
        busy = asyncio.create_task(holder.execute("SELECT pg_sleep(86400)"))
        try:
            yield
        finally:
            busy.cancel()
            await asyncio.wait([busy])
            holder.terminate()

    @contextlib.contextmanager
    def running(self, more: Mapping[str, str] | None = None) -> Iterator[None]:
        """Run the server, with `more` settings; its log goes to a file, as it would elsewhere."""
        command = (
            ["-c", _SERVICE] if self.kind == "service" else ["-m", "benchmarks.servers", self.kind]
        )
        with (self._path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                env={**self._environment, **(more or {})},
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
            yield
        finally:
            process.terminate()
            process.wait()

    def _wait(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/nothing", timeout=1)
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError((self._path / "log").read_text()[-2000:])

    def events_per_commit(self) -> float:
        """Return how many events shared a commit, on average."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
        name = "ghl_exporter_group_commit_events"
        return float(values[f"{name}_sum"]) / max(float(values[f"{name}_count"]), 1.0)


async def _measure(options: argparse.Namespace, console: Console, directory: Path) -> None:
    key = SigningKey.generate()
    cpus = os.cpu_count() or 1
    results: dict[str, list[Result]] = {name: [] for name in VARIANTS}
    async with contextlib.AsyncExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        servers: dict[str, Server] = {}
        connections: dict[str, asyncpg.Connection] = {}
        for name, (kind, projects) in VARIANTS.items():
            server = servers[name] = Server(kind, postgres, key, directory)
            connections[name] = await server.create_database(postgres)
            if not projects:
                await stack.enter_async_context(server.without_leader())
            stack.enter_context(server.running())
        version = await connections[WHOLE].fetchval("SHOW server_version")
        with console.status("measuring") as status:
            for number in range(options.rounds):
                for name, server in servers.items():
                    status.update(f"round {number + 1} of {options.rounds}: {name}")
                    await connections[name].execute("CHECKPOINT")
                    orders = Orders(
                        server.port,
                        options.connections,
                        options.seconds,
                        int(options.seconds * options.most),
                        bytes(key).hex(),
                        cpus - 1 if cpus > 1 else None,
                    )
                    results[name].append(await asyncio.to_thread(send, orders))
                    if name == WHOLE:
                        await _wait_until_projected(connections[name])
        commits = servers[WHOLE].events_per_commit()
        for connection in connections.values():
            await connection.close()
    _print(console, results, options, version, commits)


async def _wait_until_projected(connection: asyncpg.Connection) -> None:
    """Wait: what is left to do would cost the next variant's round."""
    while await connection.fetchval("SELECT EXISTS (SELECT FROM inbox_pending)"):
        await asyncio.sleep(0.1)


def _print(
    console: Console,
    results: dict[str, list[Result]],
    options: argparse.Namespace,
    version: str,
    commits: float,
) -> None:
    def rate(name: str) -> float:
        return median(result.per_second for result in results[name])

    table = Table(title=f"{options.connections} connections, {os.cpu_count()} CPUs")
    table.add_column("", no_wrap=True)
    for column in ("webhooks/s", "p50 ms", "p99 ms", "not 2xx"):
        table.add_column(column, justify="right")
    for name, rounds in results.items():
        failed = sum(
            count
            for result in rounds
            for status, count in result.statuses.items()
            if not status.startswith("2")
        )
        table.add_row(
            name,
            f"{rate(name):,.0f}",
            f"{median(r.p50 for r in rounds) * 1000:.1f}",
            f"{median(r.p99 for r in rounds) * 1000:.1f}",
            str(failed),
        )
    console.print(table)
    console.print(f"PostgreSQL {version}; {commits:.1f} events to a commit")
    for beside in (NOTHING, BARE, INSERT):
        for name in (WHOLE, WITHOUT_PROJECTION):
            console.print(f"ratio  {name} / {beside}: {rate(name) / rate(beside):.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument(
        "--most", type=int, default=14_000, help="webhooks to prepare for each second"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ghl-exporter-ingest-") as directory:
        asyncio.run(_measure(options, Console(width=110), Path(directory)))


if __name__ == "__main__":
    main()
