"""Hold the right to lead: one session's advisory lock, which PostgreSQL itself takes back.

The session that holds the lock also writes the facts. It has an idle limit on the server: an
instance that is stopped or cut off sends nothing, so PostgreSQL ends its session, and with it the
lock and any open transaction. Nothing that it wakes up with can write any more. Publishing needs
no session, so the instance believes in its lock only for a shorter time after PostgreSQL last
confirmed it: an old leader has stopped publishing before a new one can start.
"""

import asyncio
import time
from uuid import uuid4

import asyncpg

from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS, TransactionPoolingError
from exporter.database.locks import LEADER_LOCK
from exporter.settings import Settings
from exporter.support.tasks import ignoring

# Seconds after which PostgreSQL ends a session of the leader that says nothing.
SESSION_IDLE_LIMIT = 10
# Seconds that the lock is believed in after PostgreSQL confirmed it: less than the idle limit,
# by more than the leader ever leaves its session idle.
BELIEF = 8.0
_CONFIRM_EVERY = 2.0
_CONFIRM_TIMEOUT = 3.0

# Network failures that no packet reports: the server gives up a peer that acknowledges nothing.
_LIMITS = """
SELECT set_config('idle_session_timeout', $1, false),
       set_config('idle_in_transaction_session_timeout', $1, false),
       set_config('tcp_keepalives_idle', '5', false),
       set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false),
       set_config('tcp_user_timeout', $2, false),
       set_config('ghl_exporter.session', $3, false),
       pg_backend_pid() AS pid
"""
_HOLDERS = """
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = $1::bigint
  AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_database
                                       WHERE datname = current_database())
"""
_CONFIRM = f"""
SELECT EXISTS (SELECT {_HOLDERS} AND l.pid = $2) AS held,
       (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = $3 AND pid <> $2) AS others
"""
# The idle limit ends a session that waits for its client, but not one that is stuck while it sends
# a result to a client that reads nothing.
_END_STUCK = f"""
SELECT pg_terminate_backend(l.pid) {_HOLDERS}
  AND (a.state <> 'active' OR a.wait_event = 'ClientWrite')
  AND a.state_change < clock_timestamp() - make_interval(secs => $2)
"""
APPLICATION = "leader"


class LeaseLostError(ConnectionError):
    """PostgreSQL no longer knows this session's lock, or could not be asked for too long."""


class LeaderSession:
    """A session with the leader's limits, which can hold the lock."""

    def __init__(self, connection: asyncpg.Connection, pid: int, token: str) -> None:
        self.connection = connection
        self.pid = pid
        """The server's process: a pooler tells the driver another number."""
        self._token = token

    @classmethod
    async def open(cls, settings: Settings, command_timeout: float) -> "LeaderSession":
        """Open a session. `command_timeout` is in seconds. Raises one of `UNAVAILABLE`."""
        connection = await connect(settings, APPLICATION, command_timeout=command_timeout)
        token = uuid4().hex
        try:
            limit = str(SESSION_IDLE_LIMIT * 1000)
            row = await connection.fetchrow(_LIMITS, limit, limit, token)
            return cls(connection, row["pid"], token)  # type: ignore[index]
        except BaseException:
            connection.terminate()
            raise

    async def check(self) -> None:
        """Raise TransactionPoolingError where a pooler has put another session in its place."""
        if not await self.connection.fetchval(
            "SELECT current_setting('ghl_exporter.session', true) = $1 AND pg_backend_pid() = $2",
            self._token,
            self.pid,
        ):
            raise TransactionPoolingError

    async def try_to_lock(self) -> bool:
        """Take the leader's lock, or return False where another instance has it.

        Ends the session of a holder that has been stuck for longer than the idle limit.
        """
        await self.check()
        if await self.connection.fetchval("SELECT pg_try_advisory_lock($1)", LEADER_LOCK):
            return True
        with ignoring(asyncpg.InsufficientPrivilegeError):
            await self.connection.fetch(_END_STUCK, LEADER_LOCK, float(SESSION_IDLE_LIMIT + 2))
        return False

    def end(self) -> None:
        """End the session, and with it the lock, also where the server does not answer."""
        self.connection.terminate()


class Lease:
    """One term of leading: made by the instance that got the lock, never renewed once lost."""

    def __init__(self, settings: Settings, session: LeaderSession) -> None:
        self._settings = settings
        self._session = session
        self._believed_until = time.monotonic() + BELIEF
        self.alone = False
        """Whether no other instance was there to take over when PostgreSQL was last asked."""

    @property
    def held(self) -> bool:
        """Tell whether this instance leads, as far as PostgreSQL has confirmed it."""
        return time.monotonic() < self._believed_until and not self._session.connection.is_closed()

    def end(self) -> None:
        """Give the lock up."""
        self._believed_until = float("-inf")
        self._session.end()

    async def confirm(self) -> None:
        """Ask PostgreSQL for the lock, again and again. Raises LeaseLostError."""
        asking: asyncpg.Connection | None = None
        try:
            while True:
                asked_at = time.monotonic()
                row = None
                with ignoring(*DATABASE_ERRORS):
                    async with asyncio.timeout(_CONFIRM_TIMEOUT):
                        if asking is None or asking.is_closed():
                            asking = await connect(self._settings, "lease")
                        row = await asking.fetchrow(
                            _CONFIRM,
                            LEADER_LOCK,
                            self._session.pid,
                            f"ghl-exporter {APPLICATION}",
                        )
                if row is not None:
                    if not row["held"]:
                        raise LeaseLostError("PostgreSQL has ended the leader's session")
                    self._believed_until = asked_at + BELIEF
                    self.alone = row["others"] == 0
                if not self.held:
                    raise LeaseLostError("PostgreSQL has not confirmed the leader's lock in time")
                await asyncio.sleep(_CONFIRM_EVERY)
        finally:
            if asking is not None:
                asking.terminate()
