"""Open connections and pools with limits on every wait."""

from typing import Any

import asyncpg
import orjson
from asyncpg.connect_utils import SessionAttribute

from exporter.database.advice import remember_session
from exporter.database.errors import (
    POOLER_ERRORS,
    UNAVAILABLE,
    DatabaseUnavailableError,
    TransactionPoolingError,
    reason_of,
)
from exporter.database.migrations import refuse_newer
from exporter.database.pooling import refuse_transaction_pooling
from exporter.settings import Settings
from exporter.support.tasks import raise_if_cancelled

_JSON_TYPES = ("json", "jsonb")
# What has the methods of a connection: one of its own, or one out of a pool.
Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

_CONNECT_TIMEOUT = 3.0

# Set by statements: a connection pooler refuses what it doesn't know among startup parameters.
# An answer promises that the commit is on disk, so only a server that would not wait for its own
# disk is overruled; `remote_apply`, say, stays. Queries that look up a few hundred keys by index
# lose more by compiling than they gain.
_PREPARE = """
SELECT set_config('jit', 'off', false),
       CASE WHEN current_setting('synchronous_commit') = 'off'
            THEN set_config('synchronous_commit', 'on', false)
            ELSE current_setting('synchronous_commit') END AS synchronous_commit,
       current_user::text AS role, current_schema()::text AS schema
"""


async def _prepare(connection: asyncpg.Connection) -> None:
    row = await connection.fetchrow(_PREPARE)
    if row is not None:
        remember_session(row["role"], row["schema"])
    # Read back: what the server says counts, not what it was asked for.
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        raise DatabaseUnavailableError(
            "synchronous_commit stays off: what is answered could be lost"
        )
    for name in _JSON_TYPES:
        await connection.set_type_codec(
            name,
            encoder=lambda value: orjson.dumps(value).decode(),
            decoder=orjson.loads,
            schema="pg_catalog",
        )


async def _open(settings: Settings, application: str, **options: Any) -> asyncpg.Connection:
    connection: asyncpg.Connection = await asyncpg.connect(
        settings.database_url.get_secret_value(),
        timeout=_CONNECT_TIMEOUT,
        server_settings={"application_name": f"ghl-exporter {application}", "timezone": "UTC"},
        target_session_attrs=SessionAttribute.read_write,
        **options,
    )
    url = settings.database_url.get_secret_value()

    async def open_other() -> asyncpg.Connection:
        name = {"application_name": "ghl-exporter pooling"}
        return await asyncpg.connect(url, timeout=_CONNECT_TIMEOUT, server_settings=name)

    try:
        await refuse_transaction_pooling(connection, url, open_other)
        await _prepare(connection)
        await refuse_newer(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def connect(
    settings: Settings, application: str, *, command_timeout: float | None = None, **options: Any
) -> asyncpg.Connection:
    """Open one connection to the writable host.

    `command_timeout`: seconds that a statement may take by default. Raises one of `UNAVAILABLE`,
    whatever is wrong: PostgreSQL that refuses, a URL that the driver refuses, a pooler in between.
    """
    if settings.fault("database_url") is not None:
        raise DatabaseUnavailableError("DATABASE_URL can't be used")
    try:
        return await _open(settings, application, command_timeout=command_timeout, **options)
    except POOLER_ERRORS as error:
        raise_if_cancelled(error)
        raise TransactionPoolingError from error
    except UNAVAILABLE as error:
        raise_if_cancelled(error)
        raise
    except asyncpg.PostgresError as error:
        raise_if_cancelled(error)
        raise DatabaseUnavailableError(reason_of(error)) from error
    except Exception as error:  # the driver's own, whose text can hold a part of the password
        raise_if_cancelled(error)
        raise DatabaseUnavailableError(
            f"the driver can't use DATABASE_URL ({type(error).__name__}): percent-encode special"
            " characters in its user and password"
        ) from None


async def _keep_settings(_: asyncpg.Connection) -> None:
    """Return a session to its pool with its settings: the pool's own reset would undo them."""


def create_pool(settings: Settings, application: str) -> asyncpg.Pool:
    """Make a pool that connects when it is first used: the service starts without a database."""

    async def open_one(*_: Any, **options: Any) -> asyncpg.Connection:
        return await connect(
            settings,
            application,
            command_timeout=settings.kpi_timeout,
            connection_class=options["connection_class"],
            record_class=options["record_class"],
        )

    return asyncpg.create_pool(
        min_size=0, max_size=settings.database_pool_size, connect=open_one, reset=_keep_settings
    )
