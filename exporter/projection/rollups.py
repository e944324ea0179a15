"""Roll-ups: a cell (location, day) that a changed fact touches is computed anew, never added to."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import cache

import asyncpg

from exporter.support.bundled_files import bundled

Cells = set[tuple[str, date]]

ROLLUPS = (
    "agent_performance",
    "daily_business",
    "daily_interactions",
    "daily_stages",
    "open_pipeline",
    "webhook_performance",
)


@cache
def _statements(name: str) -> tuple[str, str]:
    sql = (bundled("sql") / "rollups" / f"{name}.sql").read_text(encoding="utf-8")
    forget = (
        f"DELETE FROM {name} t USING unnest($1::text[], $2::date[]) c (location_id, day)"
        " WHERE t.location_id = c.location_id AND t.day = c.day"
    )
    return forget, sql


@dataclass(slots=True)
class TouchedCells:
    """The cells of each roll-up that changed facts belong, or belonged, to."""

    agent_performance: Cells = field(default_factory=set)
    daily_business: Cells = field(default_factory=set)
    daily_interactions: Cells = field(default_factory=set)
    daily_stages: Cells = field(default_factory=set)
    open_pipeline: Cells = field(default_factory=set)
    webhook_performance: Cells = field(default_factory=set)

    async def recompute(self, connection: asyncpg.Connection) -> None:
        """Compute the touched cells from the facts."""
        for name in ROLLUPS:
            cells: Cells = getattr(self, name)
            if not cells:
                continue
            columns = list(zip(*cells, strict=True))
            for statement in _statements(name):
                await connection.execute(statement, *columns)


def touch(cells: Cells, location_id: str, days: Iterable[date | None]) -> None:
    """Mark cells; a fact without a day is in none."""
    cells.update((location_id, day) for day in days if day is not None)
