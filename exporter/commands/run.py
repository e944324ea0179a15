"""What the commands about the database do: migrate, rebuild, replay, import, keys."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from rich.progress import (
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from exporter.api.audit import audit_command
from exporter.api.keys import KeyProblem, create_key, list_keys, revoke_key
from exporter.commands.output import Output
from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS, reason_of
from exporter.database.migrations import migrate, pending
from exporter.domain.json_fields import clean_text
from exporter.erasure.everywhere import erase
from exporter.erasure.rows import EraseRefusedError, accept_again, count_rows
from exporter.inbox.history import begin_import, end_import, forget_import
from exporter.inbox.import_file import import_opportunities
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rebuild import RebuildRefused, rebuild
from exporter.projection.replay import replay
from exporter.settings import Settings
from exporter.support.tasks import raise_if_cancelled

_CLOSE_TIMEOUT = 5.0  # seconds


class DatabaseUnusableError(Exception):
    """The database can't be used; the text says why."""


@asynccontextmanager
async def _database(settings: Settings, name: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection. Every error of the database within becomes DatabaseUnusableError."""
    try:
        connection = await connect(settings, name)
    except DATABASE_ERRORS as error:
        raise_if_cancelled(error)
        raise DatabaseUnusableError(f"DATABASE_URL: {reason_of(error)}") from error
    try:
        yield connection
        await connection.close(timeout=_CLOSE_TIMEOUT)
    except DATABASE_ERRORS as error:
        raise_if_cancelled(error)
        raise DatabaseUnusableError(f"PostgreSQL: {reason_of(error)}") from error
    finally:
        connection.terminate()


async def _require_migrations(connection: asyncpg.Connection) -> None:
    missing = await pending(connection)
    if missing:
        raise DatabaseUnusableError("the database lacks migrations: run ghl-exporter migrate")


def run_command(settings: Settings, options: argparse.Namespace, output: Output) -> int:
    """Run a command about the database; return its exit status.

    What can't be done is one line, not a traceback.
    """
    try:
        return asyncio.run(_command(settings, options, output))
    except (DatabaseUnusableError, RebuildRefused, EraseRefusedError, KeyProblem, OSError) as error:
        output.error(str(error))
        return 1


async def _command(settings: Settings, options: argparse.Namespace, output: Output) -> int:
    match options.command:
        case "migrate":
            return await migrate_database(settings, output)
        case "rebuild":
            return await rebuild_facts(
                settings, output, dry_run=options.dry_run, forget_dropped=options.forget_dropped
            )
        case "replay":
            return await replay_quarantined(settings, output, options.location)
        case "erase":
            return await erase_everywhere(settings, output, options)
        case "import":
            if options.forget:
                return await forget_stopped(settings, output, options.file)
            return await import_file(settings, output, options.file, options.location)
        case _:
            return await manage_keys(settings, output, options)


async def migrate_database(settings: Settings, output: Output) -> int:
    """Apply what is missing."""
    async with _database(settings, "migrate") as connection:
        names = await migrate(connection)
    for name in names:
        output.result(f"applied {name}")
    if not names:
        output.result("up to date")
    return 0


def progress_bar(output: Output) -> Progress:
    """Make the progress bar of long work."""
    return output.bar(MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())


async def rebuild_facts(
    settings: Settings, output: Output, *, dry_run: bool, forget_dropped: bool
) -> int:
    """Rebuild with a progress bar, and print what differs."""
    async with (
        _database(settings, "rebuild") as connection,
        _database(settings, "rebuild reader") as reader,
    ):
        await _require_migrations(connection)
        with progress_bar(output) as bar:
            task = bar.add_task("rebuilding", total=None)
            report = await rebuild(
                connection,
                reader,
                FactSettings.from_settings(settings),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                dry_run=dry_run,
                forget_dropped=forget_dropped,
            )
        if not dry_run:
            await audit_command(connection, "rebuild")
    differences = {table: count for table, count in report.differences.items() if count}
    output.result(f"{report.events:,} events; rows that differ: {sum(differences.values()):,}")
    for table, count in differences.items():
        output.result(f"  {table}: {count:,}")
    return 0


async def replay_quarantined(settings: Settings, output: Output, location: str | None) -> int:
    """Queue quarantined events again."""
    async with _database(settings, "replay") as connection:
        await _require_migrations(connection)
        count = await replay(connection, location)
        await audit_command(connection, "replay", location or "")
    output.result(f"{count:,} events wait to be projected again")
    return 0


async def erase_everywhere(settings: Settings, output: Output, options: argparse.Namespace) -> int:
    """Erase a location, count what that would delete, or let it be stored again."""
    location_id = options.location
    if clean_text(location_id) != location_id:
        output.error("LOCATION is no location id")
        return 1
    async with _database(settings, "erase") as connection:
        await _require_migrations(connection)
        if options.accept_again:
            lifted = await accept_again(connection, location_id)
            await audit_command(connection, "erase --accept-again", location_id=location_id)
            output.result(
                f"what is sent for {location_id} is stored again"
                if lifted
                else f"{location_id} was not erased"
            )
            return 0
        found = await count_rows(connection, location_id)
        total = f"{sum(found.rows.values()):,} rows of {location_id}"
        if options.dry_run:
            output.result(f"{total} would be deleted")
            _show_rows(output, found.rows)
            return 0
        if not options.yes and not _confirmed(output, total, location_id):
            output.error("nothing was erased: give --yes, or type the location's id when asked")
            return 1
        # Before it is done: what is noted must not depend on how it ends.
        await audit_command(connection, "erase", location_id=location_id)
        try:
            erased, problem = await erase(settings, location_id)
        except DATABASE_ERRORS as error:
            raise_if_cancelled(error)
            raise DatabaseUnusableError(
                f"PostgreSQL: {reason_of(error)}; erase the location again"
            ) from error
    output.result(f"deleted {sum(erased.rows.values()):,} rows of {location_id}")
    _show_rows(output, erased.rows)
    if problem is not None:
        output.error(f"{problem}; erase the location again to clean it at once")
        return 1
    return 0


def _show_rows(output: Output, rows: Mapping[str, int]) -> None:
    for table, count in rows.items():
        output.result(f"  {table}: {count:,}")


def _confirmed(output: Output, total: str, location_id: str) -> bool:
    if not sys.stdin.isatty():
        return False
    output.say(f"{total} will be deleted for good. Type the location's id to confirm:")
    return sys.stdin.readline().strip() == location_id


def _place(path: Path) -> str:
    """Return what an import of a file is known by."""
    return str(path.resolve())


async def import_file(settings: Settings, output: Output, path: Path, location: str) -> int:
    """Import a file of opportunities with a progress bar, and name the lines that are wrong."""
    if location and clean_text(location) is None:
        output.error("--location: is no usable id")
        return 1
    with path.open("rb") as file:
        async with _database(settings, "import") as connection:
            await _require_migrations(connection)
            place = _place(path)
            await begin_import(connection, place)
            with output.bar(DownloadColumn(), TimeRemainingColumn()) as bar:
                task = bar.add_task("importing", total=os.fstat(file.fileno()).st_size or None)
                report = await import_opportunities(
                    connection, file, lambda size: bar.advance(task, size), location
                )
            await end_import(connection, place)
            await audit_command(connection, "import", path.name)
    output.result(
        f"{report.lines:,} lines: {report.new:,} new, {report.known:,} known,"
        f" {report.wrong:,} wrong"
    )
    if report.without_contact:
        output.result(
            f"{report.without_contact:,} name no contact: their deals count, and are no lead's"
        )
    for text in report.problems:
        output.error(text)
    return 1 if report.wrong else 0


async def forget_stopped(settings: Settings, output: Output, path: Path) -> int:
    """Let figures be final without a file whose import was stopped."""
    async with _database(settings, "import") as connection:
        await _require_migrations(connection)
        known = await forget_import(connection, _place(path))
        await audit_command(connection, "import --forget", path.name)
    if not known:
        output.error(f"no import of {path} is known")
        return 1
    output.result(f"figures are final without {path.name}")
    return 0


async def manage_keys(settings: Settings, output: Output, options: argparse.Namespace) -> int:
    """Create, list or revoke API keys. A new key is the only line on standard output."""
    async with _database(settings, "keys") as connection:
        await _require_migrations(connection)
        match options.action:
            case "create":
                scopes, locations = options.scopes.split(","), options.locations.split(",")
                made = await create_key(connection, options.name, scopes, locations)
                detail = f"{made.split('_')[1]} {options.name}"
                await audit_command(connection, "keys create", detail)
                output.result(made)
            case "list":
                for key in await list_keys(connection):
                    state = "revoked" if key.revoked_at else "good"
                    output.result(
                        f"{key.key_id}  {state:<7}  {','.join(sorted(key.scopes)):<16}"
                        f"  {','.join(sorted(key.locations))}  {key.created_at:%Y-%m-%d}"
                        f"  {key.name}"
                    )
            case _:
                if not await revoke_key(connection, options.key_id):
                    output.error(f"there is no good key {options.key_id}")
                    return 1
                await audit_command(connection, "keys revoke", options.key_id)
                output.result(f"revoked {options.key_id}")
    return 0
