"""Read the KPI files: SQL with a header that says what each of its columns means.

A file is one KPI or a family. Its header is TOML in the comment it starts with:

    /*
    endpoint = "revenue-metrics"           # the REST address that answers it
    labels = ["location", "window"]        # the first columns of every row
    [[metric]]                             # the further columns, in any order
    name = "ghl_leads_created"
    explain = ["leads"]                    # lists of `sql/explain` that it was computed from
    unit = "leads"
    help = "Leads created in the window."
    */
    SELECT … AS location, … AS "window", … AS ghl_leads_created …

A metric whose values stand in several columns says which label tells them apart, and by which
column each of its values comes: `label = "statistic"`, `columns = { median = "…", mean = "…" }`.
A file without `endpoint` and `explain` is on /metrics alone: what things are called, say.
`current = true`: the figures are of now alone, so a window that ended before today has none.
`ranked = "agent"` keeps the rows whose column `rank` is not above that label's limit. `uses` names
queries of `shared/` that the file can read from like tables.

The query's parameters, which a file may use or not: `$1` locations, `$2` window names, `$3` first
days, `$4` last days (four arrays of one length: a row for each location and window), `$5` now,
`$6` settings that figures hang on, as a JSON object (see `OPTIONS`).
"""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exporter.support.bundled_files import bundled

_HEADER = re.compile(r"\s*/\*(.*?)\*/(.*)", re.DOTALL)
# Every query gets the same parameters; this names them where a file leaves one out.
_PARAMETERS = (
    "WITH kpi_parameters AS (SELECT $1::text[], $2::text[], $3::date[], $4::date[],"
    " $5::timestamptz, $6::jsonb)"
)

# Settings that a query can read from `$6`, by their names.
OPTIONS = (
    "target_conversion",
    "target_deal_size",
    "target_response_seconds",
    "grade_parts",
    "grade_coverage",
    "location_names",
    "currencies",
    "time_zones",
    "agent_series_limit",
)


class KpiFileError(ValueError):
    """A KPI file can't be used; the text names the file and says why."""


class Metric(BaseModel):
    """One metric: a column of the query."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^ghl_[a-z][a-z0-9_]*$")
    unit: str
    help: str
    explain: tuple[str, ...] = ()
    label: str | None = None
    columns: dict[str, str] = {}

    @model_validator(mode="after")
    def _label_and_columns(self) -> "Metric":
        if (self.label is None) == bool(self.columns):
            raise ValueError("label and columns go together")
        return self

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """The columns that hold the metric, each with the text of the label it stands for."""
        if self.label is None:
            return (("", self.name),)
        return tuple((f',{self.label}="{value}"', name) for value, name in self.columns.items())


class KpiFile(BaseModel):
    """One file of `sql/kpis`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    endpoint: str | None = None
    labels: tuple[str, ...] = Field(min_length=1)
    metric: tuple[Metric, ...] = Field(min_length=1)
    timeout: float | None = Field(None, gt=0, description="seconds")
    ranked: Literal["agent"] | None = None
    current: bool = False
    uses: tuple[str, ...] = ()
    sql: str

    @model_validator(mode="after")
    def _explained(self) -> "KpiFile":
        if self.endpoint and not all(metric.explain for metric in self.metric):
            raise ValueError("a metric that has an endpoint needs explain")
        return self

    @property
    def is_grade(self) -> bool:
        """Tell whether it is the performance grade, or what that is made of."""
        return self.endpoint == "performance-grade"

    @property
    def columns(self) -> int:
        """How many series a row has at most."""
        return sum(len(metric.sources) for metric in self.metric)

    @property
    def query(self) -> str:
        """The SQL as it is sent."""
        parts = [f", {name} AS (\n{shared_query(name)})" for name in self.uses]
        return f"{_PARAMETERS}{''.join(parts)}\nSELECT * FROM (\n{self.sql}\n) AS kpi"

    def best_rows(self, highest_rank: int, most_rows: int) -> str:
        """Return the SQL for the best rows of a ranked file, over all locations and windows.

        Every location's first comes before any location's second. `all_rows`: how many rows there
        are without the limits.
        """
        return (
            f"SELECT * FROM (SELECT best.*, count(*) OVER () AS all_rows FROM ({self.query}) best)"
            f" AS counted WHERE rank <= {int(highest_rank)}"
            f' ORDER BY rank, location, "window" LIMIT {int(most_rows)}'
        )


@cache
def shared_query(name: str) -> str:
    """Return a query that several files use. Raises KpiFileError."""
    path = bundled("sql") / "kpis" / "shared" / f"{name}.sql"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KpiFileError(f"there is no shared/{name}.sql") from None


def read_header(path: Path) -> tuple[dict[str, Any], str]:
    """Return a file's header and its SQL. Raises KpiFileError."""
    match = _HEADER.fullmatch(path.read_text(encoding="utf-8"))
    if match is None:
        raise KpiFileError(f"{path.name}: does not start with a header in /* … */")
    try:
        return tomllib.loads(match[1]), match[2].strip().removesuffix(";")
    except tomllib.TOMLDecodeError as error:
        raise KpiFileError(f"{path.name}: {error}") from None


def read_kpi_file(path: Path) -> KpiFile:
    """Read one file. Raises KpiFileError."""
    header, sql = read_header(path)
    try:
        return KpiFile(name=path.stem, sql=sql, **header)
    except (ValidationError, TypeError) as error:
        raise KpiFileError(f"{path.name}: {error}") from None


@cache
def all_kpis() -> tuple[KpiFile, ...]:
    """Read every KPI file, by name. Raises KpiFileError, also where two files name one metric."""
    files = tuple(read_kpi_file(path) for path in sorted((bundled("sql") / "kpis").glob("*.sql")))
    owners: dict[str, str] = {}
    for file in files:
        for metric in file.metric:
            if metric.name in owners:
                raise KpiFileError(
                    f"{file.name}.sql: {metric.name} is {owners[metric.name]}.sql's already"
                )
            owners[metric.name] = file.name
    return files


@cache
def answered_kpis() -> tuple[KpiFile, ...]:
    """Return the KPI files that the API answers: all but what things are called."""
    return tuple(kpi for kpi in all_kpis() if kpi.endpoint is not None)
