"""By which rules the facts were made, kept beside them."""

import asyncpg

from exporter.projection.fact_settings import Rules


async def rebuild_is_due(connection: asyncpg.Connection, rules: Rules) -> bool:
    """Tell whether the facts were made by other rules; the first copy to ask notes its own."""
    noted = await connection.fetchval(
        "INSERT INTO projection_state (fingerprint) VALUES ($1)"
        " ON CONFLICT (singleton) DO UPDATE SET fingerprint = projection_state.fingerprint"
        " RETURNING fingerprint",
        rules.fingerprint(),
    )
    return bool(noted != rules.fingerprint())


async def note_rules(connection: asyncpg.Connection, rules: Rules) -> None:
    """Note that the facts are made by these rules."""
    await connection.execute(
        "INSERT INTO projection_state (fingerprint) VALUES ($1)"
        " ON CONFLICT (singleton) DO UPDATE SET fingerprint = excluded.fingerprint",
        rules.fingerprint(),
    )
