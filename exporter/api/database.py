"""The API's connections to PostgreSQL. What goes wrong with them is logged with its reason."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from exporter.database.availability import Availability
from exporter.database.connect import Connection
from exporter.database.errors import DATABASE_ERRORS
from exporter.support.tasks import raise_if_cancelled


class ApiDatabase:
    """Lends connections of the API's pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._availability = Availability("api_database", "The API can't ask PostgreSQL")

    @asynccontextmanager
    async def connection(self, timeout: float) -> AsyncIterator[Connection]:
        """Lend a connection, within `timeout` seconds. Raises one of `DATABASE_ERRORS`."""
        try:
            async with self._pool.acquire(timeout=timeout) as connection:
                yield connection
        except DATABASE_ERRORS as error:
            raise_if_cancelled(error)
            self._availability.failed(error)
            raise
        self._availability.found()
