"""Say what to do about an error of PostgreSQL: which GRANT is missing, and for which role."""

import re
from dataclasses import dataclass

import asyncpg

from exporter.support.error_text import QUOTING_CLASSES

_LONGEST = 500
_DEFAULT = "public"
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
# "permission denied for schema public": what was refused. Servers may speak other languages; then
# the advice names every right that the service needs.
_REFUSED = re.compile(r"permission denied for (\w+) \"?([^\"]+)\"?")
_REFUSED_TEMPORARY = re.compile(r"temporary tables in database \"([^\"]+)\"")
# What a transaction-mode pooler provokes: statements that another session has, or has not.
POOLER = (
    "DATABASE_URL leads through a connection pooler that changes the session between statements"
    " (PgBouncer in transaction mode, say): set pool_mode=session"
)
_ADVICE = {
    "3D000": "create the database, or correct its name in DATABASE_URL",
    "28P01": "correct the user and password in DATABASE_URL",
    "28000": "correct the user in DATABASE_URL, or pg_hba.conf of the server",
    "42P01": "run ghl-exporter migrate",
    "42703": "run ghl-exporter migrate",
    "53300": "raise max_connections, or lower DATABASE_POOL_SIZE",
    "42P05": POOLER,
    "26000": POOLER,
}


@dataclass
class _Session:
    role: str | None = None
    schema: str | None = None


# The process uses one database by one URL, so the last session that was opened speaks for all.
_session = _Session()


def remember_session(role: str | None, schema: str | None) -> None:
    """Note the role and the schema of the service's sessions, as the server sees them."""
    _session.role, _session.schema = role, schema


def describe_here(error: asyncpg.PostgresError) -> str:
    """Describe an error that this process's sessions have met, in one line."""
    return describe(error, _session.role, _session.schema)


def describe(error: asyncpg.PostgresError, role: str | None, schema: str | None) -> str:
    """Describe a server's error in one line: message, SQLSTATE, and what to do where it is known.

    `role` and `schema`: current_user and current_schema() of the session that met it, where they
    are known. PostgreSQL's DETAIL is left out, and messages about faulty values: they quote a row.
    """
    if (error.sqlstate or "").startswith(QUOTING_CLASSES) or not error.args:
        text = type(error).__name__
    else:
        text = one_line(str(error.args[0]))
    advice = advise(error, role, schema)
    return f"{text} (SQLSTATE {error.sqlstate})" + (f": {advice}" if advice else "")


def one_line(text: str) -> str:
    """Return a text without line ends, and not longer than a log line should be."""
    return re.sub(r"\s+", " ", text).strip()[:_LONGEST]


def advise(error: asyncpg.PostgresError, role: str | None, schema: str | None) -> str | None:
    """Return what to do about an error, or None where nothing more is known than its message."""
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return _missing_right(str(error), role, schema)
    if isinstance(error, asyncpg.InvalidSchemaNameError):
        # None of the search path's schemas is there, or may be used.
        other = "or set the role's search_path to a schema that is there"
        return f"{grant_create(schema, role)}, {other}"
    if isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in str(error):
        return (
            "PgBouncer refuses an option of DATABASE_URL: set it by ALTER ROLE, or name it in"
            " ignore_startup_parameters"
        )
    return _ADVICE.get(error.sqlstate)


def _missing_right(message: str, role: str | None, schema: str | None) -> str:
    if temporary := _REFUSED_TEMPORARY.search(message):
        return _grant("TEMPORARY", "DATABASE", temporary[1], role)
    refused = _REFUSED.search(message)
    kind, name = (refused[1], refused[2]) if refused else ("", "")
    match kind:
        case "schema":
            return grant_create(name, role)
        case "database":
            return _grant("CONNECT", "DATABASE", name, role)
        case "table" | "view" | "sequence" | "relation":
            return grant_all(schema, role)
    if "must be owner" in message:
        return (
            f"run it as the role that owns the tables of schema {_quoted(schema or _DEFAULT)},"
            f" or GRANT that role TO {_quoted(role)}"
        )
    return f"{grant_create(schema, role)}; {grant_all(schema, role)}"


def grant_create(schema: str | None, role: str | None) -> str:
    """Return the statement that lets a role create tables in a schema."""
    return _grant("USAGE, CREATE", "SCHEMA", schema or _DEFAULT, role)


def grant_all(schema: str | None, role: str | None) -> str:
    """Return the statements that let a role use the tables and sequences of a schema."""
    return "; ".join(
        _grant("ALL", what, schema or _DEFAULT, role)
        for what in ("ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA")
    )


def _grant(right: str, what: str, name: str, role: str | None) -> str:
    return f"GRANT {right} ON {what} {_quoted(name)} TO {_quoted(role)}"


def _quoted(name: str | None) -> str:
    if name is None:
        return "the role in DATABASE_URL"
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'
