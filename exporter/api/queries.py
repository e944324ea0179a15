"""What the reading endpoints can be asked, and the days that a question means."""

from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from exporter.fields import MAX_ID_BYTES, clean_text
from exporter.kpis.windows import Window, windows
from exporter.publish.problem import Problem
from exporter.settings import Settings

MOST_DAYS = 365
MOST_ROWS = 10_000


def _day(value: object) -> object:
    """Take a calendar day as it is written; pydantic would take a count of seconds too."""
    if isinstance(value, str) and len(value) == len("2026-01-31"):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise ValueError("must be a day like 2026-01-31")


def _name(value: str) -> str:
    if clean_text(value) != value:
        raise ValueError(f"must be a text of 1 to {MAX_ID_BYTES} bytes")
    return value


Day = Annotated[date, BeforeValidator(_day), Field(ge=date(1980, 1, 1), le=date(2200, 1, 1))]
Name = Annotated[str, BeforeValidator(_name)]


class Query(BaseModel):
    """What every reading endpoint can be asked."""

    model_config = ConfigDict(extra="forbid")

    days: int = Field(30, ge=1, le=MOST_DAYS, description="Reporting days of the window.")
    until: Day | None = Field(
        None, description="Last day of the window. Default: the location's today."
    )

    def windows(
        self, settings: Settings, location_id: str, now: datetime, *days: int
    ) -> list[Window]:
        """Return the window, or those of other lengths that end on the same day."""
        return windows(
            settings, [location_id], now=now, until=self.until, days=days or (self.days,)
        )


Format = Literal["json", "csv", "xlsx"]


class DashboardQuery(Query):
    """What the dashboard can be asked."""

    include_trends: bool = Field(
        False, description="Add each figure's daily series, and its change against the days before."
    )
    format: Format = Field("json", description="How the answer is written.")


class AgentsQuery(Query):
    """What agent-performance can be asked."""

    agent_id: Name | None = Field(None, description="Only this agent (a GHL user id).")


class ExplainQuery(Query):
    """What explain can be asked. The labels narrow the list where it has them."""

    location_id: Name = Field(description="GHL location.")
    list: Name | None = Field(
        None, description="Which of the KPI's lists. Default: its first; the answer names them."
    )
    agent: Name | None = Field(None, description="Only of this agent, or of `unassigned`.")
    attribution: Literal["ai_assisted", "manual"] | None = None
    stage: Name | None = Field(None, description="Only contacts that reached this stage.")
    interaction: Name | None = Field(None, description="Only this interaction.")
    source: Literal["receiver", "platform"] | None = None
    outcome: Literal["success", "failure"] | None = None
    page: int = Field(1, ge=1, le=1_000_000, description="From 1 on.")
    page_size: int = Field(100, ge=1, le=MOST_ROWS, description="Rows on a page.")
    format: Format = Field("json", description="How the answer is written.")

    @property
    def labels(self) -> dict[str, str]:
        """The labels that were given."""
        names = ("agent", "attribution", "stage", "interaction", "source", "outcome")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


Q = TypeVar("Q", bound=BaseModel)


def read_query(request: web.Request, model: type[Q]) -> Q:
    """Read a request's query. Raises Problem (422), with the parameters that are wrong."""
    twice = sorted({name for name in request.query if len(request.query.getall(name)) > 1})
    if twice:
        errors = [{"field": name, "problem": "is given twice"} for name in twice]
        raise Problem(422, "the query is not valid", errors=errors)
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        errors = [
            {
                "field": ".".join(map(str, problem["loc"])) or "query",
                "problem": problem["msg"].removeprefix("Value error, "),
            }
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise Problem(422, "the query is not valid", errors=errors) from None
