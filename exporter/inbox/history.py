"""Tell whether the facts are of the whole history: what keeps figures from being final."""

import asyncpg

from exporter.database.connect import Connection

# Events become facts within a second. What waits for longer than this is missing from figures.
WAITED_SECONDS = 60

_LACKS = f"""
SELECT (SELECT extract(epoch FROM clock_timestamp() - min(received_at)) > {WAITED_SECONDS}
        FROM inbox_pending) AS waited,
       EXISTS (SELECT FROM inbox_pending
               WHERE id <= (SELECT max(last_id) FROM imports)) AS imported,
       (SELECT count(*) FROM inbox_pending) AS waiting,
       ARRAY(SELECT file FROM imports WHERE last_id IS NULL ORDER BY file) AS unfinished,
       EXISTS (SELECT FROM projection_state WHERE fingerprint <> $1) AS rebuild_due
"""


async def read_missing_history(
    connection: Connection, fingerprint: str, timeout: float
) -> tuple[str, ...]:
    """Return, in words, what figures lack; nothing where they are of the whole history.

    `fingerprint`: of the rules that facts should be made by. `timeout` is in seconds. Raises what
    asyncpg raises.
    """
    row = await connection.fetchrow(_LACKS, fingerprint, timeout=timeout)
    assert row is not None
    lacks = []
    if row["waited"] or row["imported"]:
        lacks.append(f"stored events that are not in them yet: {row['waiting']:,}")
    names = [file.rpartition("/")[2] for file in row["unfinished"]]
    lacks += [f"the import of {name} has not come to its end" for name in names]
    if row["rebuild_due"]:
        lacks.append("they are by other settings, or an older version, until ghl-exporter rebuild")
    return tuple(lacks)


async def begin_import(connection: asyncpg.Connection, file: str) -> None:
    """Note that a file is being imported: figures are not final from here on."""
    await connection.execute(
        "INSERT INTO imports (file, started_at) VALUES ($1, now()) ON CONFLICT (file)"
        " DO UPDATE SET started_at = excluded.started_at, last_id = NULL",
        file,
    )


async def end_import(connection: asyncpg.Connection, file: str) -> None:
    """Note that a file is imported: figures are final once what it stored has become facts."""
    await connection.execute(
        "UPDATE imports SET last_id = (SELECT last_value FROM inbox_id) WHERE file = $1", file
    )


async def forget_import(connection: asyncpg.Connection, file: str) -> bool:
    """Note that an import that was stopped is not wanted any more; tell whether there was one."""
    status = await connection.execute("DELETE FROM imports WHERE file = $1", file)
    return bool(status != "DELETE 0")
