"""Find out whether a connection pooler hands each transaction another session of the server.

The service needs one session for all statements of a connection: for the leader's lock, for
settings such as synchronous_commit, for prepared statements. PgBouncer gives it that with
pool_mode=session. With pool_mode=transaction most statements work, and what breaks does so later.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg

from exporter.database.errors import POOLER_ERRORS, UNAVAILABLE, TransactionPoolingError
from exporter.support.tasks import raise_if_cancelled

# Seconds: of a statement, and for which the sessions of one address are taken for what they were.
_TIMEOUT = 2.0
_KNOWN_FOR = 60.0
# A pooler that takes its sessions in turn shows another one by the second or third statement.
_STATEMENTS = 3
_PID = "SELECT pg_backend_pid()"

OpenOther = Callable[[], Awaitable[asyncpg.Connection]]

_known_until: dict[str, float] = {}


async def refuse_transaction_pooling(
    connection: asyncpg.Connection,
    url: str,
    open_other: Callable[[], Awaitable[asyncpg.Connection]],
) -> None:
    """Raise TransactionPoolingError where statements of one connection reach several sessions.

    A second connection, by `open_other`, holds a session while the first one is asked again. That
    is needed only where a pooler is in between: it tells the driver a process of its own.
    """
    try:
        pid = await connection.fetchval(_PID, timeout=_TIMEOUT)
        if pid == connection.get_server_pid() or time.monotonic() < _known_until.get(url, 0.0):
            return
        try:
            other = await open_other()
        except UNAVAILABLE as error:
            raise_if_cancelled(error)
            return  # no session is left for it: nothing is known, and the leader looks again
        try:
            await other.execute("BEGIN", timeout=_TIMEOUT)
            for _ in range(_STATEMENTS):
                if await connection.fetchval(_PID, timeout=_TIMEOUT) != pid:
                    raise TransactionPoolingError
                await asyncio.sleep(0)
        finally:
            other.terminate()
    except POOLER_ERRORS as error:
        raise_if_cancelled(error)
        raise TransactionPoolingError from error
    _known_until[url] = time.monotonic() + _KNOWN_FOR
