"""The lists that figures were computed from: SQL of `sql/explain`, each with a header.

    /*
    help = "Deals closed in the window."
    order = "closed_at, deal_id"           # columns; together they tell every row from the others
    filters = { agent = "agent_id" }       # label of a KPI → column that holds its values
    current = true                         # of now: a window that ended before today has no rows
    */
    SELECT … FROM deals WHERE location_id = $1 AND closed_day BETWEEN $2 AND $3

A query's parameters: `$1` location, `$2` first day, `$3` last day, `$4` now.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.database.connect import Connection
from exporter.kpis.definitions import KpiFileError, read_header
from exporter.kpis.windows import Window, today
from exporter.settings import Settings
from exporter.support.bundled_files import bundled

_PARAMETERS = "WITH parameters AS (SELECT $1::text, $2::date, $3::date, $4::timestamptz)"


class KpiList(BaseModel):
    """One file of `sql/explain`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    help: str
    order: str = Field(pattern=r"^[a-z_]+(, [a-z_]+)*$")
    filters: dict[str, str] = {}
    current: bool = False
    sql: str

    def statement(self, labels: Mapping[str, str]) -> tuple[str, list[str]]:
        """Return the SQL, with `{}` for what is selected, and the values of its filters."""
        chosen = [(column, labels[name]) for name, column in self.filters.items() if name in labels]
        where = " AND ".join(f"{column} = ${n}" for n, (column, _) in enumerate(chosen, 5))
        text = f"{_PARAMETERS} SELECT {{}} FROM (\n{self.sql}\n) AS list"
        return text + (f" WHERE {where}" if where else ""), [value for _, value in chosen]


@dataclass(frozen=True)
class Page:
    """A part of a list. `total`: rows of the whole list."""

    total: int
    columns: list[str]
    rows: list[asyncpg.Record]


@cache
def all_lists() -> dict[str, KpiList]:
    """Read every list, by name. Raises KpiFileError."""
    lists = {}
    for path in sorted((bundled("sql") / "explain").glob("*.sql")):
        header, sql = read_header(path)
        try:
            lists[path.stem] = KpiList(name=path.stem, sql=sql, **header)
        except (ValidationError, TypeError) as error:
            raise KpiFileError(f"{path.name}: {error}") from None
    return lists


@dataclass(frozen=True)
class ListQuery:
    """A list narrowed to a window and to label values, ready to be read.

    Labels that the list has no column for do not narrow it.
    """

    chosen: KpiList
    window: Window
    labels: Mapping[str, str]
    settings: Settings
    now: datetime

    @property
    def _empty(self) -> bool:
        """Whether the list is of now alone, and the window ended before today."""
        last = self.window.last_day
        return self.chosen.current and last < today(
            self.settings, self.window.location_id, self.now
        )

    def _statement(self, selected: str, more: str = "") -> tuple[str, list[Any]]:
        text, values = self.chosen.statement(self.labels)
        window = self.window
        given = [window.location_id, window.first_day, window.last_day, self.now, *values]
        return text.format(selected) + more, given

    async def count(self, connection: Connection) -> int:
        """Return how many rows the list has. Raises what asyncpg raises."""
        if self._empty:
            return 0
        text, given = self._statement("count(*)")
        return int(await connection.fetchval(text, *given, timeout=self.settings.kpi_timeout))

    async def page(self, connection: Connection, limit: int, offset: int) -> Page:
        """Return some rows of the list. Raises what asyncpg raises."""
        timeout = self.settings.kpi_timeout
        limit = 0 if self._empty else limit
        text, given = self._statement(
            "*", f" ORDER BY {self.chosen.order} LIMIT {int(limit)} OFFSET {int(offset)}"
        )
        statement = await connection.prepare(text, timeout=timeout)
        columns = [attribute.name for attribute in statement.get_attributes()]
        rows = await statement.fetch(*given, timeout=timeout)
        return Page(await self.count(connection), columns, rows)

    async def batches(
        self, connection: Connection, size: int
    ) -> AsyncIterator[tuple[list[str], list[asyncpg.Record]]]:
        """Yield the columns and up to `size` rows at a time; once without rows for an empty list.

        The connection is in a transaction. Raises what asyncpg raises.
        """
        timeout = self.settings.kpi_timeout
        none = " LIMIT 0" if self._empty else ""
        text, given = self._statement("*", f" ORDER BY {self.chosen.order}{none}")
        statement = await connection.prepare(text, timeout=timeout)
        columns = [attribute.name for attribute in statement.get_attributes()]
        cursor = await statement.cursor(*given, timeout=timeout)
        rows = await cursor.fetch(size, timeout=timeout)
        yield columns, rows
        while len(rows) == size:
            rows = await cursor.fetch(size, timeout=timeout)
            yield columns, rows
