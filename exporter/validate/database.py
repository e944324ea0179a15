"""What `validate` does with the database: its migrations, demo data, the busiest location."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from exporter.database.connect import connect
from exporter.database.migrations import applied, pending
from exporter.demo.agency import Agency
from exporter.demo.traffic import write_history
from exporter.validate.progress import Progress
from exporter.validate.report import Report
from exporter.validate.target import Target

# Seconds in which at least one event has to become a fact.
_STANDSTILL = 120.0


async def check_database(report: Report, target: Target) -> None:
    """Check that the database has all migrations; apply none."""
    if target.settings is None:
        report.add("database", "migrations", None, "needs DATABASE_URL")
        return
    connection = await connect(target.settings, "validate")
    try:
        missing = await pending(connection)
        count = len(await applied(connection))
        version = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    said = f"PostgreSQL {version}, {count} applied"
    if missing:
        said += ", missing: " + ", ".join(one.name for one in missing)
    report.add("database", "all migrations are applied", not missing, said)


async def write_demo_data(report: Report, target: Target, progress: Progress, days: int) -> None:
    """Write days of the simulated agency, and wait until all of it is facts."""
    if target.settings is None or not target.own:
        report.add("demo data", "history", None, "needs a service of its own")
        return
    connection = await connect(target.settings, "validate")
    now = datetime.now(UTC)
    try:
        with progress.phase("writing an agency's history"):
            count = await write_history(
                connection,
                Agency(seed=1),
                now - timedelta(days=days),
                now,
                lambda done, _: progress.update(f"{done:,} events"),
            )
        with progress.phase("waiting until its events are facts"):
            left, changed_at = -1, time.monotonic()
            while waiting := await connection.fetchval("SELECT count(*) FROM inbox_pending"):
                if waiting != left:
                    left, changed_at = waiting, time.monotonic()
                elif time.monotonic() - changed_at > _STANDSTILL:
                    break
                progress.update(f"{waiting:,} wait")
                await asyncio.sleep(0.5)
        failed = await connection.fetchval("SELECT count(*) FROM quarantine")
    finally:
        await connection.close()
    seconds = (datetime.now(UTC) - now).total_seconds()
    said = f"{count:,} in {seconds:.0f} s, {failed:,} in quarantine, {waiting:,} left over"
    report.add("demo data", "events stored and projected", failed == waiting == 0, said)


async def busiest_location(target: Target, otherwise: str) -> str:
    """Return the location that has most leads: what is measured should have something to do."""
    if target.settings is None:
        return otherwise
    connection = await connect(target.settings, "validate")
    try:
        found: str | None = await connection.fetchval(
            "SELECT location_id FROM daily_business GROUP BY location_id"
            " ORDER BY sum(leads_created) DESC LIMIT 1"
        )
    finally:
        await connection.close()
    return found or otherwise
