"""Accept connections within bounds: of all, and of one client.

The service accepts by itself, not through the event loop's server, because a bound that is looked
at only after a connection was accepted can't keep descriptors in reserve: one turn of the loop
accepts whatever waits. At the bound the oldest idle connection of the client that has most makes
room; where all are busy, new ones wait in the socket's queue until one is done.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import hdrs, web

from exporter.http.client_address import Clients, key_of
from exporter.http.problem import problem
from exporter.http.refusal_log import RefusalLog
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

# Seconds in which a request's headers must be complete once its first byte has come.
_HEADERS_WITHIN = 10.0
# Seconds that a new connection has for its first bytes before it may have to make room.
_FIRST_BYTES_WITHIN = 0.25
# Seconds without accepting after the system refused a descriptor.
_PAUSE = 0.1
_ACCEPT_AT_ONCE = 64

LIMIT, CLIENT_LIMIT, SLOW_HEADERS = "connection_limit", "client_limit", "slow_headers"
NO_DESCRIPTORS = "no_descriptors"
BAD_REQUEST = "bad_request"


class Connections:
    """The open connections of the process, over all addresses that it listens on."""

    def __init__(
        self,
        limit: int,
        client_share: float,
        clients: Clients,
        metrics: LiveMetrics,
        refusals: RefusalLog,
    ) -> None:
        """`client_share`: the share of `limit` that one client may have; trusted proxies more."""
        self.limit = limit
        self._client_limit = max(int(limit * client_share), 1)
        self._clients = clients
        self._metrics = metrics
        self._refusals = refusals
        self._open: dict[str, int] = Counter()
        self._count = 0
        # By client, in the order in which they became idle; from which time on they may be closed.
        self._idle: dict[str, dict[Connection, float]] = {}
        self._listeners: list[Listener] = []
        metrics.connections.set_function(lambda: self._count)
        metrics.connections_limit.set(limit)

    def listen(self, listener: socket.socket, server: web.Server, **options: Any) -> "Listener":
        """Begin to accept. `options`: of `web.RequestHandler`."""
        handle = server.request_handler

        async def handle_busy(request: web.BaseRequest) -> web.StreamResponse:
            if isinstance(request.protocol, Connection):
                request.protocol.begin()
            return await handle(request)

        server.request_handler = handle_busy
        loop = asyncio.get_running_loop()

        def protocol(client: str) -> Connection:
            return Connection(server, self, client, loop=loop, **options)

        made = Listener(listener, self, protocol)
        self._listeners.append(made)
        made.resume()
        return made

    @property
    def full(self) -> bool:
        """Tell whether no other connection may be accepted."""
        return self._count >= self.limit

    def make_room(self) -> None:
        """Close an idle connection for one that waits; a listener goes on when it is gone."""
        self.note(LIMIT, "")
        by_count = sorted(self._idle, key=self._open.__getitem__, reverse=True)
        if not any(self._close_oldest(client, LIMIT) for client in by_count) and by_count:
            # What is idle is so new that its first bytes may be on their way.
            asyncio.get_running_loop().call_later(_FIRST_BYTES_WITHIN, self._resume)

    def admits(self, address: str) -> bool:
        """Tell whether a client may have another connection; its oldest idle one makes room."""
        client = key_of(address)
        if self._open.get(client, 0) < self._client_limit or self._clients.trusts(address):
            return True
        self.note(CLIENT_LIMIT, client)
        return self._close_oldest(client, CLIENT_LIMIT)

    def _close_oldest(self, client: str, reason: str) -> bool:
        now = time.monotonic()
        for connection, closable_at in self._idle.get(client, {}).items():
            if closable_at <= now and not connection.has_output:
                self.set_busy(connection)
                self._metrics.connections_closed.labels(reason).inc()
                connection.abort()
                return True
        return False

    def add(self, connection: "Connection") -> None:
        """Count a connection that is accepted."""
        self._count += 1
        self._open[connection.client] += 1

    def remove(self, connection: "Connection") -> None:
        """Forget a connection that is closed."""
        self.set_busy(connection)
        self._count -= 1
        self._open[connection.client] -= 1
        if not self._open[connection.client]:
            del self._open[connection.client]
        self._resume()

    def set_busy(self, connection: "Connection") -> None:
        """Take a connection out of those that may be closed."""
        idle = self._idle.get(connection.client)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.client]

    def set_idle(self, connection: "Connection", *, new: bool) -> None:
        """Note that a connection is new, or has answered its request."""
        closable_at = time.monotonic() + _FIRST_BYTES_WITHIN if new else 0.0
        self._idle.setdefault(connection.client, {})[connection] = closable_at
        if self.full:
            self._resume()

    def _resume(self) -> None:
        for listener in self._listeners:
            listener.resume()

    def close_slow(self, connection: "Connection") -> None:
        """Close a connection whose headers do not come to an end."""
        self.note(SLOW_HEADERS, connection.client)
        self._metrics.connections_closed.labels(SLOW_HEADERS).inc()
        self.set_busy(connection)
        connection.abort()

    def refuse(self, reason: str, client: str) -> None:
        """Count a request that is no HTTP."""
        self._metrics.rejected.labels(reason).inc()
        self.note(reason, client)

    def note(self, reason: str, client: str) -> None:
        """Log, once a minute, that a bound was reached."""
        self._refusals.note(reason, client=client, connections=self._count)


class Connection(web.RequestHandler):
    """One connection: knows whether it is busy, and bounds the time that headers take."""

    def __init__(
        self,
        server: web.Server,
        connections: Connections,
        client: str,
        *,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.client = client
        self._connections = connections
        self._busy = False
        self._counted = True
        self._headers_due: asyncio.TimerHandle | None = None
        connections.add(self)

    @property
    def has_output(self) -> bool:
        """Tell whether a part of an answer is not sent yet."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def begin(self) -> None:
        """Note that a request's headers are complete."""
        self._busy = True
        self._stop_timer()
        self._connections.set_busy(self)

    def abort(self) -> None:
        """Close at once, without waiting for what is still to be sent."""
        if self.transport is not None:
            self.transport.abort()

    def forget(self) -> None:
        """Count this connection no more, once."""
        self._stop_timer()
        if self._counted:
            self._counted = False
            self._connections.remove(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a connection is idle until its first request's headers are complete."""
        super().connection_made(transport)
        self._connections.set_idle(self, new=True)

    def data_received(self, data: bytes) -> None:
        """Read bytes; a request's first ones start the time for its headers."""
        if not self._busy and self._headers_due is None:
            self._headers_due = asyncio.get_running_loop().call_later(
                _HEADERS_WITHIN, self._connections.close_slow, self
            )
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self.forget()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; a connection that is kept alive is idle then."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._busy = False
            self._stop_timer()
            if resp.keep_alive and self._counted and self.transport is not None:
                self._connections.set_idle(self, new=False)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP. The application answers its own errors."""
        del message  # it quotes what was sent
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        if status >= 500:
            log.error("request_failed", error=repr(exc))
        else:
            self._connections.refuse(BAD_REQUEST, self.client)
        response = _NoBanner(
            status=status,
            body=problem(status, "the request is not valid HTTP" if status < 500 else "").body,
            content_type="application/problem+json",
        )
        response.force_close()
        return response

    def _stop_timer(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


class _NoBanner(web.Response):
    """A response that the application's signals never see, without the name of the server."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)


class Listener:
    """One listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        protocol: Callable[[str], Connection],
    ) -> None:
        self._socket = listener
        self._connections = connections
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._reading = self._stopped = False
        self._paused_until = 0.0
        self._opening: set[asyncio.Task[None]] = set()
        listener.setblocking(False)

    def resume(self) -> None:
        """Accept what waits, unless stopped or pausing."""
        if not self._reading and not self._stopped and time.monotonic() >= self._paused_until:
            self._reading = True
            self._loop.add_reader(self._socket, self._accept)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)

    def stop(self, *, accept_waiting: bool) -> None:
        """Accept no more. `accept_waiting`: what waits in a socket that nobody else will read."""
        if accept_waiting and self._reading:
            self._accept()
        self._pause()
        self._stopped = True
        self._socket.close()

    def _accept(self) -> None:
        if self._connections.full:
            self._connections.make_room()
            self._pause()
            return
        for _ in range(_ACCEPT_AT_ONCE):
            if self._connections.full:
                return  # where more wait, this is called again
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._connections.note(NO_DESCRIPTORS, str(error))
                self._pause()
                self._paused_until = time.monotonic() + _PAUSE
                self._loop.call_later(2 * _PAUSE, self.resume)
                return
            host = address[0] if isinstance(address, tuple) else ""
            if not self._connections.admits(host):
                accepted.close()
                continue
            accepted.setblocking(False)
            task = self._loop.create_task(self._open(accepted, self._protocol(key_of(host))))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except (OSError, RuntimeError) as error:  # it was closed meanwhile
            log.debug("connection_failed", error=repr(error))
            accepted.close()
            connection.forget()
        except BaseException:
            accepted.close()
            connection.forget()
            raise
