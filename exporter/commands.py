"""What the commands about the database do: migrate, check, rebuild, replay, import, keys."""

import argparse
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from exporter.api.audit import audit_command
from exporter.api.keys import KeyProblem, create_key, list_keys, revoke_key
from exporter.database.connect import UNAVAILABLE, connect
from exporter.database.migrations import migrate, pending
from exporter.inbox.backfill import import_opportunities
from exporter.kpis.definitions import KpiFileError, all_kpis
from exporter.projection.rebuild import RebuildRefused, rebuild
from exporter.projection.replay import replay
from exporter.projection.rules import Rules
from exporter.settings import Settings

_OLDEST_POSTGRES = 140_000


class _NoDatabase(Exception):
    """The database can't be used; the text says why."""


@asynccontextmanager
async def _database(settings: Settings, name: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        connection = await connect(settings, name)
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        raise _NoDatabase(f"DATABASE_URL: {error or type(error).__name__}") from error
    try:
        yield connection
    finally:
        await connection.close()


async def _require_migrations(connection: asyncpg.Connection) -> None:
    missing = await pending(connection)
    if missing:
        raise _NoDatabase("the database lacks migrations: run ghl-exporter migrate")


async def migrate_database(settings: Settings, console: Console) -> int:
    """Apply what is missing."""
    try:
        async with _database(settings, "migrate") as connection:
            names = await migrate(connection)
    except _NoDatabase as error:
        console.print(f"[red]wrong[/]  {error}")
        return 1
    for name in names:
        console.print(f"applied {name}")
    if not names:
        console.print("up to date")
    return 0


async def check(settings: Settings, console: Console) -> int:
    """Say everything that is right and wrong; the settings themselves were read already."""
    good: list[str] = ["settings can be read"]
    wrong: list[str] = []
    warn: list[str] = []
    try:
        good.append(f"{len(all_kpis())} KPI files can be read")
    except KpiFileError as error:
        wrong.append(str(error))
    _check_spool(settings, good, wrong)
    if settings.ghl_webhook_secret is None:
        warn.append("GHL_WEBHOOK_SECRET is not set: /webhooks/workflow is closed")
    try:
        async with _database(settings, "check") as connection:
            await _check_database(settings, connection, good, wrong, warn)
    except _NoDatabase as error:
        wrong.append(str(error))
    await _check_redis(settings, good, warn)
    for mark, colour, lines in (
        ("right", "green", good),
        ("note ", "yellow", warn),
        ("wrong", "red", wrong),
    ):
        for line in lines:
            console.print(f"[{colour}]{mark}[/]  {line}", soft_wrap=True)
    return 1 if wrong else 0


def _check_spool(settings: Settings, good: list[str], wrong: list[str]) -> None:
    folder = settings.spool_path.resolve().parent
    existing = folder
    while not existing.exists():
        existing = existing.parent
    try:
        # Tried, for root may write anywhere by its rights and yet not on every file system.
        with tempfile.TemporaryFile(dir=existing):
            good.append(f"SPOOL_PATH can be written ({settings.spool_path.resolve()})")
    except OSError as error:
        wrong.append(f"SPOOL_PATH: {existing} can't be written: {error.strerror}")


async def _check_database(
    settings: Settings,
    connection: asyncpg.Connection,
    good: list[str],
    wrong: list[str],
    warn: list[str],
) -> None:
    version = int(await connection.fetchval("SHOW server_version_num"))
    text = await connection.fetchval("SHOW server_version")
    if version < _OLDEST_POSTGRES:
        wrong.append(f"PostgreSQL is {text}; 14 is the oldest that works")
    else:
        good.append(f"PostgreSQL {text} answers and can be written")
    for name in ("fsync", "full_page_writes"):
        if await connection.fetchval(f"SHOW {name}") != "on":
            wrong.append(f"PostgreSQL has {name} off: what was answered could be lost")
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        wrong.append("the database's encoding is not UTF8")
    missing = await pending(connection)
    if missing:
        names = ", ".join(migration.name for migration in missing)
        wrong.append(f"migrations are missing: {names} (ghl-exporter migrate)")
        return
    good.append("all migrations are applied")
    noted = await connection.fetchval("SELECT fingerprint FROM projection_state")
    if noted is not None and noted != Rules.from_settings(settings).fingerprint():
        warn.append("the facts are of other settings or an older version: run ghl-exporter rebuild")
    quarantined = await connection.fetchval("SELECT count(*) FROM quarantine")
    if quarantined:
        warn.append(f"{quarantined:,} events are in quarantine (ghl-exporter replay)")


async def _check_redis(settings: Settings, good: list[str], warn: list[str]) -> None:
    if settings.redis_url is None:
        return
    redis = Redis.from_url(settings.redis_url.get_secret_value(), socket_connect_timeout=2)
    try:
        await redis.ping()
        good.append("Redis answers")
    except (RedisError, OSError) as error:
        warn.append(f"REDIS_URL: {error} (it is a cache: slower, never wrong)")
    finally:
        await redis.aclose()


def progress_bar(console: Console) -> Progress:
    """Make the progress bar of long work."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


async def rebuild_facts(
    settings: Settings, console: Console, *, dry_run: bool, forget_dropped: bool
) -> int:
    """Rebuild with a progress bar, and print what differs."""
    try:
        async with (
            _database(settings, "rebuild") as connection,
            _database(settings, "rebuild reader") as reader,
        ):
            await _require_migrations(connection)
            with progress_bar(console) as bar:
                task = bar.add_task("rebuilding", total=None)
                report = await rebuild(
                    connection,
                    reader,
                    Rules.from_settings(settings),
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                    dry_run=dry_run,
                    forget_dropped=forget_dropped,
                )
            if not dry_run:
                await audit_command(connection, "rebuild")
    except (_NoDatabase, RebuildRefused) as error:
        console.print(f"[red]wrong[/]  {error}")
        return 1
    differences = {table: count for table, count in report.differences.items() if count}
    console.print(f"{report.events:,} events; rows that differ: {sum(differences.values()):,}")
    for table, count in differences.items():
        console.print(f"  {table}: {count:,}")
    return 0


async def replay_quarantined(settings: Settings, console: Console, location: str | None) -> int:
    """Queue quarantined events again."""
    try:
        async with _database(settings, "replay") as connection:
            await _require_migrations(connection)
            count = await replay(connection, location)
            await audit_command(connection, "replay", location or "")
    except _NoDatabase as error:
        console.print(f"[red]wrong[/]  {error}")
        return 1
    console.print(f"{count:,} events wait to be projected again")
    return 0


async def import_file(settings: Settings, console: Console, path: Path) -> int:
    """Import a file of opportunities with a progress bar, and name the lines that are wrong."""
    try:
        with path.open("rb") as file:
            async with _database(settings, "import") as connection:
                await _require_migrations(connection)
                with Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    DownloadColumn(),
                    TimeRemainingColumn(),
                    console=console,
                ) as bar:
                    task = bar.add_task("importing", total=os.fstat(file.fileno()).st_size or None)
                    report = await import_opportunities(
                        connection, file, lambda size: bar.advance(task, size)
                    )
                await audit_command(connection, "import", path.name)
    except (_NoDatabase, OSError) as error:
        console.print(f"[red]wrong[/]  {error}")
        return 1
    console.print(
        f"{report.lines:,} lines: {report.new:,} new, {report.known:,} known,"
        f" {report.wrong:,} wrong"
    )
    for text in report.problems:
        console.print(f"[red]wrong[/]  {text}", soft_wrap=True)
    return 1 if report.wrong else 0


async def manage_keys(settings: Settings, console: Console, options: argparse.Namespace) -> int:
    """Create, list or revoke API keys. A new key is the only line on standard output."""
    try:
        async with _database(settings, "keys") as connection:
            await _require_migrations(connection)
            match options.action:
                case "create":
                    scopes, locations = options.scopes.split(","), options.locations.split(",")
                    made = await create_key(connection, options.name, scopes, locations)
                    detail = f"{made.split('_')[1]} {options.name}"
                    await audit_command(connection, "keys create", detail)
                    print(made)  # noqa: T201
                case "list":
                    for key in await list_keys(connection):
                        state = "revoked" if key.revoked_at else "good"
                        console.print(
                            f"{key.key_id}  {state:<7}  {','.join(sorted(key.scopes)):<16}"
                            f"  {','.join(sorted(key.locations))}  {key.created_at:%Y-%m-%d}"
                            f"  {key.name}",
                            soft_wrap=True,
                            markup=False,
                        )
                case _:
                    if not await revoke_key(connection, options.key_id):
                        console.print(f"[red]wrong[/]  there is no good key {options.key_id}")
                        return 1
                    await audit_command(connection, "keys revoke", options.key_id)
                    console.print(f"revoked {options.key_id}")
    except (_NoDatabase, KeyProblem) as error:
        console.print(f"[red]wrong[/]  {error}")
        return 1
    return 0
