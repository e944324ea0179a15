"""What the reading endpoints can be asked, and the days that a question means."""

import difflib
import re
from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Literal, Self, TypeVar

from aiohttp import web
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from exporter.domain.json_fields import MAX_ID_BYTES, clean_text
from exporter.http.problem import Problem
from exporter.kpis.windows import Window, windows
from exporter.settings import Settings

MOST_DAYS = 365
MOST_ROWS = 10_000


# Digits of ASCII alone: int() and fromisoformat() read other forms of numbers and days as well.
_WHOLE = re.compile(r"[0-9]{1,9}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _whole(value: object) -> object:
    """Take a whole number in plain digits."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError("must be a whole number like 30")


def _flag(value: object) -> object:
    """Take `true` or `false`."""
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


def _day(value: object) -> object:
    """Take a calendar day as YYYY-MM-DD."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        with suppress(ValueError):
            return date.fromisoformat(value)
    raise ValueError("must be a day like 2026-01-31")


def _name(value: str) -> str:
    if clean_text(value) != value:
        raise ValueError(f"must be a text of 1 to {MAX_ID_BYTES} bytes")
    return value


Day = Annotated[date, BeforeValidator(_day), Field(ge=date(1980, 1, 1), le=date(2200, 1, 1))]
Name = Annotated[str, BeforeValidator(_name)]
Whole = Annotated[int, BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_flag)]


class Query(BaseModel):
    """What every reading endpoint can be asked."""

    model_config = ConfigDict(extra="forbid")

    days: Whole = Field(30, ge=1, le=MOST_DAYS, description="Reporting days of the window.")
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

    include_trends: Flag = Field(
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
    page: Whole = Field(1, ge=1, le=1_000_000, description="From 1 on; of JSON alone.")
    page_size: Whole = Field(100, ge=1, le=MOST_ROWS, description="Rows on a page; of JSON alone.")
    format: Format = Field(
        "json", description="How the answer is written. CSV and XLSX hold the whole list."
    )

    @model_validator(mode="after")
    def _files_are_whole(self) -> Self:
        if self.format != "json" and {"page", "page_size"} & self.model_fields_set:
            raise ValueError(f"{self.format} holds the whole list: leave page and page_size out")
        return self

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
        errors = []
        for problem in error.errors(include_url=False, include_input=False):
            name = ".".join(map(str, problem["loc"]))
            text = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                text = _no_such_parameter(name, model)
            errors.append({"field": name or "query", "problem": text})
        raise Problem(422, "the query is not valid", errors=errors) from None


def _no_such_parameter(name: str, model: type[BaseModel]) -> str:
    near = difflib.get_close_matches(name, model.model_fields, n=1)
    return "there is no such parameter" + (f"; did you mean {near[0]}?" if near else "")
