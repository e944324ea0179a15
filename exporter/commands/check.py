"""`ghl-exporter check`: try what `serve` needs, and report all that is right and wrong at once.

Every check goes on whatever the others find. A setting with a fault has its default meanwhile.
"""

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import NamedTuple

import asyncpg
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from exporter.cache.redis import open_redis, probe, redis_reason
from exporter.commands.output import Mark, Output
from exporter.database.advice import grant_all, grant_create
from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS, reason_of
from exporter.database.migrations import pending
from exporter.inbox.spool_file import check_header
from exporter.kpis.definitions import KpiFileError, all_kpis
from exporter.projection.fact_settings import FactSettings
from exporter.service.sockets import ListenError, own_socket
from exporter.settings import Loaded, Settings
from exporter.settings.public_keys import split_pem
from exporter.support.tasks import ignoring, raise_if_cancelled

_OLDEST_POSTGRES = 140_000
# Seconds: a server that hangs is a finding too.
_STATEMENT_TIMEOUT = 10.0
_REDIS_TIMEOUT = 5.0

_SESSION = """
SELECT current_setting('server_version_num')::int AS number,
       current_setting('server_version') AS version,
       current_setting('server_encoding') AS encoding,
       current_setting('fsync') AS fsync,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS of_role,
       current_user::text AS role, current_schema()::text AS schema,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create
"""
_CLOSED = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class
                        WHERE oid = to_regclass('schema_migrations'))
  AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'USAGE')
           WHEN c.relkind IN ('r', 'p')
           THEN NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                     AND has_table_privilege(c.oid, 'UPDATE')
                     AND has_table_privilege(c.oid, 'DELETE'))
           ELSE false END
ORDER BY c.relname
"""
_OWNS_INBOX = """
SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('inbox')
"""


class Finding(NamedTuple):
    """One line of the report."""

    mark: Mark
    text: str


def run_check(loaded: Loaded, output: Output) -> int:
    """Print the findings, what is wrong last; return 1 where something is wrong."""
    findings = asyncio.run(_all_findings(loaded))
    for mark in Mark:
        for finding in findings:
            if finding.mark is mark:
                output.finding(mark, finding.text)
    return 1 if any(finding.mark is Mark.WRONG for finding in findings) else 0


async def _all_findings(loaded: Loaded) -> list[Finding]:
    settings = loaded.settings
    findings = [
        *_of_settings(loaded),
        *_of_kpi_files(),
        *_of_spool(settings),
        *_of_addresses(loaded),
    ]
    for checks in (_of_database(settings), _of_redis(settings)):
        async with aclosing(checks):
            findings += [finding async for finding in checks]
    return findings


def _of_settings(loaded: Loaded) -> Iterator[Finding]:
    if not loaded.faults:
        yield Finding(Mark.RIGHT, "settings can be read")
    for fault in loaded.faults:
        yield Finding(Mark.WRONG, str(fault))
    for note in loaded.notes:
        yield Finding(Mark.NOTE, note)
    settings = loaded.settings
    if settings.accept_rsa_signatures and not _has_rsa_key(settings):
        text = "ACCEPT_RSA_SIGNATURES accepts nothing: no key of GHL_PUBLIC_KEYS is an RSA key"
        yield Finding(Mark.NOTE, text)
    if settings.ghl_webhook_secret is None and settings.fault("ghl_webhook_secret") is None:
        text = "GHL_WEBHOOK_SECRET is not set: /webhooks/workflow is closed"
        yield Finding(Mark.NOTE, text)


def _has_rsa_key(settings: Settings) -> bool:
    return any(isinstance(key, RSAPublicKey) for key in split_pem(settings.ghl_public_keys))


def _of_kpi_files() -> Iterator[Finding]:
    try:
        yield Finding(Mark.RIGHT, f"{len(all_kpis())} KPI files can be read")
    except KpiFileError as error:
        yield Finding(Mark.WRONG, str(error))


def _of_spool(settings: Settings) -> Iterator[Finding]:
    """Try the spool's directory, and its file where there is one, without a change to either."""
    if settings.fault("spool_path") is not None:
        return
    try:
        path = settings.spool_path.resolve()
        existing = path.parent
        while not existing.exists():
            existing = existing.parent
        # Tried, for root may write anywhere by its rights and yet not on every file system.
        with tempfile.TemporaryFile(dir=existing):
            pass
        if path.exists():
            os.close(os.open(path, os.O_RDWR))
            check_header(path)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(settings.spool_path)
        yield Finding(Mark.WRONG, f"SPOOL_PATH: {where} can't be written: {error.strerror}")
    except (ValueError, RuntimeError) as error:  # a path of other bytes, a loop of links
        yield Finding(Mark.WRONG, f"SPOOL_PATH: can't be used: {error}")
    else:
        yield Finding(Mark.RIGHT, f"SPOOL_PATH can be written ({path})")


def _of_addresses(loaded: Loaded) -> Iterator[Finding]:
    """Bind the addresses, as `serve` does. The service that runs has them already."""
    for name in ("listen_address", "metrics_address"):
        address = getattr(loaded.settings, name)
        if address is None or loaded.settings.fault(name) is not None:
            continue
        try:
            own_socket(name.upper(), address).close()
        except ListenError as error:
            if error.errno == errno.EADDRINUSE:
                text = f"{name.upper()} {address} is in use, by the service itself or by another"
                yield Finding(Mark.NOTE, text)
            else:
                yield Finding(Mark.WRONG, str(error))
        else:
            yield Finding(Mark.RIGHT, f"{name.upper()} {address} is free")


async def _of_database(settings: Settings) -> AsyncGenerator[Finding, None]:
    if settings.fault("database_url") is not None:
        return
    try:
        connection = await connect(settings, "check", command_timeout=_STATEMENT_TIMEOUT)
    except DATABASE_ERRORS as error:
        raise_if_cancelled(error)
        yield Finding(Mark.WRONG, f"DATABASE_URL: {reason_of(error)}")
        return
    try:
        async with aclosing(_of_connection(settings, connection)) as findings:
            async for finding in findings:
                yield finding
    except DATABASE_ERRORS as error:
        raise_if_cancelled(error)
        yield Finding(Mark.WRONG, f"PostgreSQL: {reason_of(error)}")
    finally:
        connection.terminate()


async def _of_connection(
    settings: Settings, connection: asyncpg.Connection
) -> AsyncGenerator[Finding, None]:
    session = await connection.fetchrow(_SESSION)
    assert session is not None
    for finding in _of_session(session):
        yield finding
    missing = await pending(connection)
    if missing:
        names = ", ".join(migration.name for migration in missing)
        yield Finding(Mark.WRONG, f"migrations are missing: {names} (ghl-exporter migrate)")
        if not session["may_create"]:
            text = f"the role {session['role']} may not create tables in {_schema(session)}"
            advice = grant_create(session["schema"], session["role"])
            yield Finding(Mark.WRONG, f"{text}: {advice}")
        return
    yield Finding(Mark.RIGHT, "all migrations are applied")
    closed = [row["relname"] for row in await connection.fetch(_CLOSED)]
    if closed:
        text = f"the role {session['role']} may not read and write {', '.join(closed)}"
        advice = grant_all(session["schema"], session["role"])
        yield Finding(Mark.WRONG, f"{text}: {advice}")
        return
    if not await connection.fetchval(_OWNS_INBOX):
        yield Finding(
            Mark.NOTE,
            f"the role {session['role']} does not own the table inbox, so it can't create next"
            " month's partition; the default partition takes its events",
        )
    noted = await connection.fetchval("SELECT fingerprint FROM projection_state")
    if noted is not None and noted != FactSettings.from_settings(settings).fingerprint():
        text = "the facts are of other settings or an older version: run ghl-exporter rebuild"
        yield Finding(Mark.NOTE, text)
    quarantined = await connection.fetchval("SELECT count(*) FROM quarantine")
    if quarantined:
        text = f"{quarantined:,} events are in quarantine (ghl-exporter replay)"
        yield Finding(Mark.NOTE, text)


def _of_session(session: asyncpg.Record) -> Iterator[Finding]:
    """Judge what the server says about the session, which is like those that commit."""
    version = session["version"]
    if session["number"] < _OLDEST_POSTGRES:
        yield Finding(Mark.WRONG, f"PostgreSQL is {version}; 14 is the oldest that works")
    else:
        yield Finding(Mark.RIGHT, f"PostgreSQL {version} answers and can be written")
    for name in ("fsync", "full_page_writes"):
        if session[name] != "on":
            text = f"PostgreSQL has {name} off: what was answered could be lost"
            yield Finding(Mark.WRONG, text)
    if session["of_role"] == "off":
        text = "synchronous_commit is off by default; the service's sessions turn it on"
        yield Finding(Mark.NOTE, f"{text} (now {session['synchronous_commit']})")
    if session["encoding"] != "UTF8":
        yield Finding(Mark.WRONG, "the database's encoding is not UTF8")


def _schema(session: asyncpg.Record) -> str:
    if session["schema"] is None:
        return "any schema of its search_path"
    return f"the schema {session['schema']}"


async def _of_redis(settings: Settings) -> AsyncGenerator[Finding, None]:
    redis = open_redis(settings)
    if redis is None:
        return
    try:
        async with asyncio.timeout(_REDIS_TIMEOUT):
            await probe(redis)
    except Exception as error:  # the client raises its own, the network's, and Python's
        raise_if_cancelled(error)
        text = f"REDIS_URL: {redis_reason(error)} (it is a cache: slower, never wrong)"
        yield Finding(Mark.NOTE, text)
    else:
        yield Finding(Mark.RIGHT, "Redis sets, reads and deletes keys")
    finally:
        with ignoring(Exception):
            await redis.aclose()
