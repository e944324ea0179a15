"""Tell the errors of PostgreSQL apart, and put them into one line without a secret."""

import asyncpg

from exporter.database.advice import POOLER, describe_here, one_line
from exporter.support.error_text import describe_error

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
    # What the role may not do, and what is not there yet: neither is the fault of a statement.
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.TransactionRollbackError,
    asyncpg.ConfigFileError,
    asyncpg.FDWError,
)

# Every error that a statement or a connection can raise.
DATABASE_ERRORS = (*UNAVAILABLE, asyncpg.PostgresError)

# Classes of SQLSTATE, their first two characters, that one row can provoke: values, constraints,
# a program's limits, and what functions and triggers raise.
_ROW_CLASSES = ("09", "20", "21", "22", "23", "27", "2F", "38", "39", "44", "54", "P0")

# What a pooler that changes the session provokes: statements that another one has, or has not.
POOLER_ERRORS = (
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidSQLStatementNameError,
)


class DatabaseUnavailableError(ConnectionError):
    """No usable session could be opened; the text says why, without a secret."""


class TransactionPoolingError(DatabaseUnavailableError):
    """Statements of one connection reach different sessions of the server."""

    def __init__(self) -> None:
        super().__init__(f"another session answers: {POOLER}")


def blames_a_row(error: BaseException) -> bool:
    """Tell whether an error can come from a row that is written, so that other rows may pass.

    No other error of PostgreSQL is a row's fault: rights, limits of the server, transactions,
    statements that don't fit the tables. A fault of our own, in Python, is taken for a row's.
    """
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_ROW_CLASSES)
    return not isinstance(error, DATABASE_ERRORS)


def reason_of(error: BaseException) -> str:
    """Describe a database error in one line, with what to do about it where that is known."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(reason_of(one) for one in error.exceptions)
    if isinstance(error, asyncpg.PostgresError):
        return describe_here(error)
    if isinstance(error, TimeoutError) and not str(error):
        return "PostgreSQL did not answer in time"
    text = one_line(str(error))
    if isinstance(error, OSError | asyncpg.InterfaceError) and text:
        return text
    return describe_error(error)
