"""Open connections and pools with limits on every wait."""

import asyncpg
import orjson
from asyncpg.connect_utils import SessionAttribute

from exporter.settings import Settings

_JSON_TYPES = ("json", "jsonb")
# What has the methods of a connection: one of its own, or one out of a pool.
Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

# What PostgreSQL, or the way to it, raises when it can't serve right now.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.LockNotAvailableError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.InternalClientError,
    asyncpg.PostgresIOError,
    asyncpg.InternalServerError,
    asyncpg.UndefinedTableError,
)

_CONNECT_TIMEOUT = 3.0


async def _use_orjson(connection: asyncpg.Connection) -> None:
    for name in _JSON_TYPES:
        await connection.set_type_codec(
            name,
            encoder=lambda value: orjson.dumps(value).decode(),
            decoder=orjson.loads,
            schema="pg_catalog",
        )


def _server_settings(application: str) -> dict[str, str]:
    return {
        "application_name": f"ghl-exporter {application}",
        # An answer promises that the commit is on disk, whatever the server's default is.
        "synchronous_commit": "on",
        "timezone": "UTC",
        # Batches look up a few hundred keys by index; compiling such a query costs more.
        "jit": "off",
    }


async def connect(
    settings: Settings, application: str, *, command_timeout: float | None = None
) -> asyncpg.Connection:
    """Open one connection to the writable host.

    `command_timeout`: seconds that a statement may take by default. Raises one of `UNAVAILABLE`.
    """
    connection: asyncpg.Connection = await asyncpg.connect(
        settings.database_url.get_secret_value(),
        timeout=_CONNECT_TIMEOUT,
        command_timeout=command_timeout,
        server_settings=_server_settings(application),
        target_session_attrs=SessionAttribute.read_write,
    )
    await _use_orjson(connection)
    return connection


def create_pool(settings: Settings, application: str) -> asyncpg.Pool:
    """Make a pool that connects when it is first used: the service starts without a database."""
    return asyncpg.create_pool(
        settings.database_url.get_secret_value(),
        min_size=0,
        max_size=settings.database_pool_size,
        timeout=_CONNECT_TIMEOUT,
        command_timeout=settings.kpi_timeout,
        server_settings=_server_settings(application),
        target_session_attrs=SessionAttribute.read_write,
        init=_use_orjson,
    )
