"""Roll-ups: recompute each cell (location, day) that a changed fact touches, never add to it."""

from collections.abc import Iterable
from datetime import date
from functools import cache
from typing import Any

import asyncpg

from exporter.projection.schema import (
    Activity,
    Appointment,
    Contact,
    Deal,
    Interaction,
    Opportunity,
    PipelineStage,
    PlatformWebhook,
    Recommendation,
    WebhookOutcome,
)
from exporter.support.bundled_files import bundled

AGENT_PERFORMANCE = "agent_performance"
DAILY_BUSINESS = "daily_business"
DAILY_INTERACTIONS = "daily_interactions"
DAILY_STAGES = "daily_stages"
OPEN_PIPELINE = "open_pipeline"
WEBHOOK_PERFORMANCE = "webhook_performance"

# For each kind of fact: the roll-ups that count it, and the columns that hold the day it counts on.
_DAYS: dict[type[Any], dict[str, tuple[str, ...]]] = {
    Activity: {AGENT_PERFORMANCE: ("happened_day",)},
    Appointment: {DAILY_BUSINESS: ("start_day",)},
    Contact: {
        DAILY_BUSINESS: ("created_day",),
        AGENT_PERFORMANCE: ("created_day", "first_answer_day"),
    },
    Deal: {DAILY_BUSINESS: ("closed_day",), AGENT_PERFORMANCE: ("closed_day",)},
    Interaction: {DAILY_INTERACTIONS: ("happened_day",)},
    Opportunity: {DAILY_BUSINESS: ("status_since_day",), OPEN_PIPELINE: ("first_seen_day",)},
    PipelineStage: {DAILY_STAGES: ("reached_day",)},
    PlatformWebhook: {WEBHOOK_PERFORMANCE: ("finished_day",)},
    Recommendation: {DAILY_BUSINESS: ("made_day",), AGENT_PERFORMANCE: ("made_day",)},
    WebhookOutcome: {WEBHOOK_PERFORMANCE: ("received_day",)},
}
# The tables of roll-ups. Each has a file of its name in `sql/rollups`.
ROLLUPS = tuple(sorted({rollup for days in _DAYS.values() for rollup in days}))


@cache
def _statements(rollup: str) -> tuple[str, str]:
    """Return the statements that remove and that compute given cells of a roll-up."""
    sql = (bundled("sql") / "rollups" / f"{rollup}.sql").read_text(encoding="utf-8")
    delete = (
        f"DELETE FROM {rollup} t USING unnest($1::text[], $2::date[]) c (location_id, day)"
        " WHERE t.location_id = c.location_id AND t.day = c.day"
    )
    return delete, sql


class TouchedCells:
    """The cells that changed facts belong, or belonged, to."""

    def __init__(self, cells: Iterable[tuple[str, date]] = ()) -> None:
        """`cells`: location and day of cells that are touched in every roll-up."""
        everywhere = set(cells)
        self._cells = {rollup: set(everywhere) for rollup in ROLLUPS}

    def touch(self, facts: Iterable[Any]) -> None:
        """Mark the cells of facts, which are rows with a `location_id`.

        A fact without a day is in no cell.
        """
        for fact in facts:
            for rollup, columns in _DAYS[type(fact)].items():
                for column in columns:
                    day = getattr(fact, column)
                    if day is not None:
                        self._cells[rollup].add((fact.location_id, day))

    async def recompute(self, connection: asyncpg.Connection) -> None:
        """Compute the marked cells from the facts."""
        for rollup, cells in self._cells.items():
            if not cells:
                continue
            columns = list(zip(*cells, strict=True))
            for statement in _statements(rollup):
                await connection.execute(statement, *columns)
