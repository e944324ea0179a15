"""Tell the errors of PostgreSQL apart, and put them into one line without a secret."""

import re

import asyncpg

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

# Every error that a statement or a connection can raise.
DATABASE_ERRORS = (*UNAVAILABLE, asyncpg.PostgresError)

_POOLER_HINT = (
    "; DATABASE_URL leads through a connection pooler that changes the session between"
    " statements (PgBouncer in transaction mode, say): let it use session mode"
)
# What a transaction-mode pooler provokes: statements that another session has, or has not.
_POOLER_ERRORS = (
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidSQLStatementNameError,
)


class DatabaseUnavailableError(ConnectionError):
    """No usable session could be opened; the text says why, without a secret."""


class TransactionPoolingError(DatabaseUnavailableError):
    """Statements of one connection reach different sessions of the server."""

    def __init__(self) -> None:
        super().__init__("another session answers" + _POOLER_HINT)


def reason_of(error: BaseException) -> str:
    """Describe a database error in one line: message and SQLSTATE.

    PostgreSQL's DETAIL is left out: it can quote the values of a row.
    """
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(reason_of(one) for one in error.exceptions)
    if isinstance(error, asyncpg.PostgresError):
        text = str(error.args[0]) if error.args else type(error).__name__
        hint = _POOLER_HINT if isinstance(error, _POOLER_ERRORS) else ""
        return f"{_one_line(text)} (SQLSTATE {error.sqlstate}){hint}"
    if isinstance(error, TimeoutError) and not str(error):
        return "PostgreSQL did not answer in time"
    text = _one_line(str(error))
    if isinstance(error, OSError | asyncpg.InterfaceError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()[:500]
