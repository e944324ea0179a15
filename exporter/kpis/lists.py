"""The lists that figures were computed from: SQL of `sql/explain`, each with a header.

    /*
    help = "Deals closed in the window."
    order = "closed_at, deal_id"           # columns; together they tell every row from the others
    filters = { agent = "agent_id" }       # label of a KPI → column that holds its values
    */
    SELECT … FROM deals WHERE location_id = $1 AND closed_day BETWEEN $2 AND $3

A query's parameters: `$1` location, `$2` first day, `$3` last day, `$4` now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.bundle import bundled
from exporter.database.connect import Connection
from exporter.kpis.definitions import KpiFileError, read_header
from exporter.kpis.windows import Window

_PARAMETERS = "WITH parameters AS (SELECT $1::text, $2::date, $3::date, $4::timestamptz)"


class KpiList(BaseModel):
    """One file of `sql/explain`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    help: str
    order: str = Field(pattern=r"^[a-z_]+(, [a-z_]+)*$")
    filters: dict[str, str] = {}
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


async def query_list(
    connection: Connection,
    chosen: KpiList,
    window: Window,
    labels: Mapping[str, str],
    *,
    now: datetime,
    limit: int,
    offset: int,
    timeout: float,
) -> Page:
    """Return rows of a list. `labels` a list has no column for do not narrow it.

    `timeout` is in seconds.
    """
    text, values = chosen.statement(labels)
    given: list[Any] = [window.location_id, window.first_day, window.last_day, now, *values]
    total = await connection.fetchval(text.format("count(*)"), *given, timeout=timeout)
    statement = await connection.prepare(
        f"{text.format('*')} ORDER BY {chosen.order} LIMIT {int(limit)} OFFSET {int(offset)}",
        timeout=timeout,
    )
    columns = [attribute.name for attribute in statement.get_attributes()]
    return Page(total, columns, await statement.fetch(*given, timeout=timeout))
