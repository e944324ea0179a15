"""Record which settings the facts were computed with."""

import asyncpg

from exporter.projection.fact_settings import FactSettings


async def rebuild_is_due(connection: asyncpg.Connection, fact_settings: FactSettings) -> bool:
    """Return whether the facts were computed with other settings.

    The first instance that asks records its own.
    """
    recorded = await connection.fetchval(
        "INSERT INTO projection_state (fingerprint) VALUES ($1)"
        " ON CONFLICT (singleton) DO UPDATE SET fingerprint = projection_state.fingerprint"
        " RETURNING fingerprint",
        fact_settings.fingerprint(),
    )
    return bool(recorded != fact_settings.fingerprint())


async def record_fact_settings(connection: asyncpg.Connection, fact_settings: FactSettings) -> None:
    """Record that the facts are computed with these settings."""
    await connection.execute(
        "INSERT INTO projection_state (fingerprint) VALUES ($1)"
        " ON CONFLICT (singleton) DO UPDATE SET fingerprint = excluded.fingerprint",
        fact_settings.fingerprint(),
    )
