"""Check the URLs of servers before a driver sees them, without showing any part of a secret.

A password with an unescaped `#`, `/`, `?`, `@` or `[` makes its URL mean something else; what
drivers then say quotes a part of the password.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

_ENCODE = (
    "percent-encode the special characters of its user and password"
    " (# is %23, / %2F, ? %3F, @ %40, [ %5B, ] %5D, % %25)"
)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[^\[\]]+)?\]|[^\[\]:]*)(?::(.*))?", re.DOTALL)
# Options whose values may hold an @.
_WITH_AT = frozenset({"user", "username", "password", "options", "sslpassword"})
# What libpq knows and asyncpg would pass on to the server, which refuses it.
_LIBPQ_ONLY = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "fallback_application_name",
        "gssencmode",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "require_auth",
        "requirepeer",
        "ssl_crldir",
        "sslcompression",
        "sslsni",
        "tcp_user_timeout",
    }
)
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_REDIS_OPTIONS = frozenset(
    {
        "client_name",
        "db",
        "health_check_interval",
        "max_connections",
        "password",
        "protocol",
        "retry_on_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_timeout",
        "username",
    }
)
_REDIS_TLS_OPTIONS = frozenset(
    {
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_min_version",
    }
)


class UrlError(ValueError):
    """A URL can't be used; the text says why, and holds no part of it that can be secret."""


@dataclass(frozen=True)
class _Parts:
    scheme: str
    hosts: list[tuple[str, str | None]]
    path: str
    options: dict[str, str]


def check_database_url(url: str) -> None:
    """Check a URL of PostgreSQL. Raises UrlError."""
    parts = _split(url, ("postgresql", "postgres"))
    options = parts.options
    for host, port in parts.hosts:
        if not host and (port is not None or len(parts.hosts) > 1):
            raise UrlError("a host's name is missing before its port or comma")
    if not any(host for host, _ in parts.hosts) and parts.path in ("", "/") and not options:
        raise UrlError("it names no host and no database: postgresql://user@host/database")
    if only := sorted(_LIBPQ_ONLY & options.keys()):
        raise UrlError(f"the driver doesn't know the option {only[0]}: leave it out")
    if options.get("sslmode", "disable") not in _SSL_MODES:
        raise UrlError(f"the option sslmode is not one of {', '.join(sorted(_SSL_MODES))}")
    for port in options.get("port", "5432").split(","):
        _check_port(port)


def check_redis_url(url: str) -> None:
    """Check a URL of Redis, and that the client takes it. Raises UrlError."""
    parts = _split(url, ("redis", "rediss", "unix"))
    if parts.scheme == "unix":
        if parts.path in ("", "/"):
            raise UrlError("it names no socket: unix:///path/to/socket")
    elif len(parts.hosts) != 1 or not parts.hosts[0][0]:
        raise UrlError("it has to name one host: redis://host:6379/0")
    elif not re.fullmatch("/?[0-9]*", parts.path):
        raise UrlError("its path is not the number of a database: redis://host:6379/0")
    for option in parts.options:
        if option in _REDIS_TLS_OPTIONS:
            if parts.scheme != "rediss":
                raise UrlError(f"the option {option} needs a URL that begins with rediss://")
        elif option not in _REDIS_OPTIONS:
            known = sorted(_REDIS_OPTIONS | _REDIS_TLS_OPTIONS)
            raise UrlError(f"it has an option that is none of {', '.join(known)}")
    from redis.asyncio import Redis  # noqa: PLC0415 - slow to import, and often not needed

    try:
        pool: Any = Redis.from_url(url).connection_pool
        pool.make_connection()
    except Exception:
        raise UrlError("the Redis client can't use the value of an option") from None


def _split(url: str, schemes: tuple[str, ...]) -> _Parts:
    """Take a URL apart. Raises UrlError where it is not what its writer must have meant."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        allowed = " or ".join(f"{known}://" for known in schemes)
        raise UrlError(f"is not a URL that starts with {allowed}")
    if re.search(r"[\s\x00-\x1f\x7f]", rest):
        raise UrlError("it holds white space or a control character")
    try:
        urlsplit(url)
    except ValueError:
        raise UrlError(_ENCODE) from None
    authority, tail = re.fullmatch(r"([^/?]*)(.*)", rest).groups()  # type: ignore[union-attr]
    path, _, query = tail.partition("?")
    user, at, hosts = authority.rpartition("@")
    if "#" in rest or "@" in path or re.search(r"[@\[\]]", user):
        raise UrlError(_ENCODE)
    # Without a user before it, an @ may be the end of one that had a `?` in its password.
    if not at and any("@" in o and o.partition("=")[0] not in _WITH_AT for o in query.split("&")):
        raise UrlError(_ENCODE)
    found = [_host_and_port(host) for host in hosts.split(",")]
    return _Parts(scheme, found, path, _options(query))


def _options(query: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        found = parse_qs(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise UrlError(f"its options are not name=value, joined by &; or else {_ENCODE}") from None
    return {name: values[-1] for name, values in found.items()}


def _host_and_port(text: str) -> tuple[str, str | None]:
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise UrlError(_ENCODE)
    host, port = match.groups()
    if port:
        _check_port(port)
    return host, port


def _check_port(port: str) -> None:
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise UrlError(f"its port is not a number from 1 to 65535; or else {_ENCODE}")
