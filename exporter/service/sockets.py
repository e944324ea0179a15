"""Get the sockets that the service listens on: inherited from systemd, or bound to an address."""

import os
import socket

from exporter.settings.values import host_and_port

# Connections that wait to be accepted: a burst, or everything that comes during a restart.
BACKLOG = 2048
_FIRST_INHERITED_FD = 3


class ListenError(OSError):
    """An address can't be listened on; the text names its setting and says why."""


def inherited_socket() -> socket.socket | None:
    """Return the listening socket that systemd (or who speaks its protocol) has passed, if any.

    Such a socket outlives the process, so that a restart refuses no connection.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if os.environ.get("LISTEN_FDS", "") in ("", "0"):
        return None
    os.set_inheritable(_FIRST_INHERITED_FD, False)
    return socket.socket(fileno=_FIRST_INHERITED_FD)


def own_socket(setting: str, address: str) -> socket.socket:
    """Bind an address, host:port, that a setting names. Raises ListenError, with its errno."""
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "no name of a host"
        refusal = ListenError(f"{setting} {address}: {reason or error}")
        refusal.errno = getattr(error, "errno", None)
        raise refusal from error
    return listener
