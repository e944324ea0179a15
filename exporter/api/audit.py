"""Who read or changed what: noted while it is answered, written in batches behind it."""

import asyncio
import getpass
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import structlog
from aiohttp import web

from exporter.api.keys import ApiKey
from exporter.database.connect import Connection
from exporter.database.errors import DATABASE_ERRORS
from exporter.support.tasks import ignoring
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

_INTERVAL = 1.0
_MOST_WAITING = 10_000
_FORGET_EVERY = 3600.0
_NOTED = web.RequestKey("audit", tuple[ApiKey, str | None])

Entry = tuple[datetime, str, str, str | None, str, str]

_INSERT = """
INSERT INTO audit (at, actor, action, location_id, outcome, detail)
SELECT * FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
"""


async def write_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries of the audit table."""
    await connection.execute(_INSERT, *map(list, zip(*entries, strict=True)))


async def audit_command(
    connection: Connection, action: str, detail: str = "", *, location_id: str | None = None
) -> None:
    """Note what a command changed, and which user of the machine gave it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = "?"
    await write_entries(
        connection,
        [(datetime.now(UTC), f"command:{user}", action, location_id, "done", detail[:500])],
    )


class Audit:
    """Keeps what requests did until it is written. Without PostgreSQL the oldest goes, counted."""

    def __init__(self, pool: asyncpg.Pool, metrics: LiveMetrics, retention_days: int) -> None:
        self._pool = pool
        self._metrics = metrics
        self._retention_days = retention_days
        self._waiting: deque[Entry] = deque()

    def note(self, request: web.Request, key: ApiKey, location_id: str | None) -> None:
        """Note that a key asks for something; `answered` adds how it ended."""
        request[_NOTED] = (key, location_id)

    def answered(self, request: web.Request, status: int) -> None:
        """Queue what was noted of a request, now that its answer is known."""
        noted = request.get(_NOTED)
        if noted is None:
            return
        key, location_id = noted
        self._queue(request, f"key:{key.key_id}", location_id, status)

    def note_stranger(self, request: web.Request, client: str, status: int) -> None:
        """Queue that a client without a good key was refused. Whoever calls bounds how often."""
        self._queue(request, f"client:{client}", None, status)

    def _queue(
        self, request: web.Request, actor: str, location_id: str | None, status: int
    ) -> None:
        action = f"{request.method} {_printable(request.path)}"
        asked = _printable(request.query_string)
        if location_id is not None:
            location_id = _printable(location_id)
        self._waiting.append(
            (datetime.now(UTC), _printable(actor), action, location_id, str(status), asked)
        )
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self._metrics.audit_dropped.inc()

    async def run(self) -> None:
        """Write what waits, every second; forget what is older than the retention."""
        forget_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_INTERVAL)
            with ignoring(*DATABASE_ERRORS):
                await self.flush()
                if loop.time() >= forget_at:
                    forget_at = loop.time() + _FORGET_EVERY
                    async with self._pool.acquire(timeout=5) as connection:
                        await connection.execute(
                            "DELETE FROM audit WHERE at < now() - $1 * interval '1 day'",
                            self._retention_days,
                        )

    async def flush(self) -> None:
        """Write everything that waits. Raises what asyncpg raises; nothing is lost by that."""
        while self._waiting:
            # Taken out first: what overflows meanwhile is then none of these.
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), 500))]
            try:
                async with self._pool.acquire(timeout=5) as connection:
                    await write_entries(connection, batch)
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise


def _printable(text: str) -> str:
    """Return text that PostgreSQL takes: no NUL, no half characters, not endless."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:500]
