"""The command: against a service that runs, or with one of its own beside embedded servers."""

import argparse
import asyncio
import os
import socket
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg
from nacl.signing import SigningKey

from exporter.api.keys import EVERYWHERE, READ, TRACK, create_key
from exporter.client import AsyncClient
from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS, reason_of
from exporter.database.migrations import migrate
from exporter.demo.agency import Agency
from exporter.demo.traffic import write_history
from exporter.output import Output
from exporter.settings import Settings, SettingsError, load_settings
from exporter.validate.functions import check_api, check_functions, check_webhooks
from exporter.validate.performance import check_performance
from exporter.validate.report import Report

_DAYS = 30


@dataclass(frozen=True)
class Target:
    """What is checked. `signing_key`: of a service of our own; `settings`: of its database."""

    url: str
    api_key: str
    signing_key: SigningKey | None
    settings: Settings | None


def run_validate(options: argparse.Namespace, output: Output) -> int:
    """Run the checks and return the exit status: 1 where one failed."""
    chosen = (options.setup_db, options.demo_data, options.test_api, options.performance)
    if not any(chosen):
        options.setup_db = options.test_api = options.performance = True
        options.demo_data = options.url is None
    report = Report()
    with ExitStack() as stack:
        try:
            if options.url is None:
                target = _embedded(stack, output)
            else:
                target = _running(options, os.environ.get("GHL_EXPORTER_KEY", ""))
            asyncio.run(_check(options, target, report, output))
        except DATABASE_ERRORS as error:
            report.add("", "it ran to its end", False, reason_of(error))
        except (RuntimeError, SettingsError, aiohttp.ClientError) as error:
            report.add("", "it ran to its end", False, f"{type(error).__name__}: {error}")
    report.show(output.results)
    return 1 if report.failed else 0


def _running(options: argparse.Namespace, key: str) -> Target:
    if not key:
        raise RuntimeError("set GHL_EXPORTER_KEY to a key with the scopes read and track")
    settings = load_settings()
    of_database = settings if "database_url" in settings.model_fields_set else None
    return Target(options.url.rstrip("/"), key, None, of_database)


def _embedded(stack: ExitStack, output: Output) -> Target:
    """Start servers and a service in a directory that goes at the end."""
    try:
        from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey  # noqa: PLC0415
        from exporter.demo.service import Service  # noqa: PLC0415
        from exporter.demo.signing import public_pem, signing_key  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeError(
            f"{error}: install ghl-exporter[demo], or name a service that runs with --url"
        ) from error
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ghl-validate-")))
    directory.chmod(0o755)
    with output.progress.status("starting PostgreSQL, Valkey and the service"):
        postgres = stack.enter_context(EmbeddedPostgres(directory))
        valkey = stack.enter_context(EmbeddedValkey(directory))
        key = signing_key(directory)
        settings = {
            "DATABASE_URL": postgres.url(),
            "REDIS_URL": valkey.url(),
            "SPOOL_PATH": str(directory / "spool.sqlite3"),
            "GHL_PUBLIC_KEYS": public_pem(key),
            "DASHBOARD_CACHE_TTL": "2",
            "KPI_INTERVAL": "2",
            "PROJECTION_BATCH_SIZE": "4000",
            "LOG_FORMAT": "json",
        }
        of_database = load_settings(_env_file=None, database_url=postgres.url())
        api_key = asyncio.run(_open_database(of_database))
        service = Service(directory, f"127.0.0.1:{_free_port()}", settings)
        stack.enter_context(service)
    return Target(service.url(), api_key, key, of_database)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _open_database(settings: Settings) -> str:
    connection = await connect(settings, "validate")
    try:
        await migrate(connection)
        return await create_key(connection, "validate", [READ, TRACK], [EVERYWHERE])
    finally:
        await connection.close()


async def _check(
    options: argparse.Namespace, target: Target, report: Report, output: Output
) -> None:
    location_id = options.location_id
    if options.setup_db:
        await _database(report, target)
    if options.demo_data:
        await _history(report, target, output)
    async with (
        aiohttp.ClientSession(
            target.url, timeout=aiohttp.ClientTimeout(total=30), auto_decompress=True
        ) as session,
        AsyncClient(target.url, target.api_key, location_id=location_id) as client,
    ):
        with output.progress.status("telling a story, and looking for it"):
            await check_functions(report, session, client, location_id)
            await check_webhooks(report, session, target.signing_key, location_id)
        if options.test_api:
            with output.progress.status("asking every endpoint"):
                await check_api(report, session, target.api_key, location_id)
        if options.performance:
            with output.progress.status("measuring"):
                await check_performance(
                    report,
                    session,
                    target.api_key,
                    target.signing_key,
                    await _busiest(target, location_id),
                    target.settings,
                )


async def _database(report: Report, target: Target) -> None:
    if target.settings is None:
        report.add("database", "migrations", None, "needs DATABASE_URL")
        return
    connection = await connect(target.settings, "validate")
    try:
        applied = await migrate(connection)
        version = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    said = f"PostgreSQL {version}, {len(applied)} applied now"
    report.add("database", "all migrations are applied", True, said)


async def _history(report: Report, target: Target, output: Output) -> None:
    """Write some weeks of the simulated agency, and wait until all of it is facts."""
    if target.settings is None:
        report.add("demo data", "history", None, "needs DATABASE_URL")
        return
    connection = await connect(target.settings, "validate")
    try:
        now = datetime.now(UTC)
        with output.progress.status("writing an agency's history") as status:
            count = await write_history(
                connection,
                Agency(seed=1),
                now - timedelta(days=_DAYS),
                now,
                lambda done, _: status.update(f"writing an agency's history: {done:,} events"),
            )
            while left := await _waiting(connection):
                status.update(f"its events become facts: {left:,} wait")
                await asyncio.sleep(0.5)
        failed = await connection.fetchval("SELECT count(*) FROM quarantine")
    finally:
        await connection.close()
    seconds = (datetime.now(UTC) - now).total_seconds()
    said = f"{count:,} in {seconds:.0f} s, {failed:,} in quarantine"
    report.add("demo data", "events stored and projected", failed == 0, said)


async def _waiting(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM inbox_pending")
    return count


async def _busiest(target: Target, otherwise: str) -> str:
    """Return the location that has most leads: what is measured should have something to do."""
    if target.settings is None:
        return otherwise
    connection = await connect(target.settings, "validate")
    try:
        found: str | None = await connection.fetchval(
            "SELECT location_id FROM daily_business GROUP BY location_id"
            " ORDER BY sum(leads_created) DESC LIMIT 1"
        )
    finally:
        await connection.close()
    return found or otherwise
