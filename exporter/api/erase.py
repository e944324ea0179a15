"""`DELETE /api/business-metrics/locations/…`: erase a location, with a key of the scope `admin`."""

import asyncio

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from exporter.api.audit import Audit
from exporter.api.authentication import RETRY_AFTER, Guard, require_location
from exporter.api.keys import ADMIN
from exporter.api.parameters import Flag, read_query
from exporter.api.read import BASE
from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS
from exporter.domain.json_fields import clean_text
from exporter.erasure.everywhere import erase
from exporter.erasure.rows import Erased, EraseRefusedError, count_rows
from exporter.http.problem import Problem
from exporter.settings import Settings
from exporter.support.tasks import raise_if_cancelled
from exporter.telemetry.metrics import LiveMetrics


class EraseQuery(BaseModel):
    """What erasing can be asked."""

    model_config = ConfigDict(extra="forbid")

    dry_run: Flag = Field(False, description="Count the rows only, and change nothing.")


class ErasedLocation(BaseModel):
    """What was erased of a location, or would be."""

    location_id: str
    dry_run: bool
    rows: dict[str, int] = Field(description="Rows by table.")
    problem: str | None = Field(
        None, description="Why Redis could not be cleaned; its keys expire by themselves."
    )


class Erasing:
    """The handler."""

    def __init__(
        self, settings: Settings, guard: Guard, audit: Audit, metrics: LiveMetrics
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._audit = audit
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.delete(f"{BASE}/locations/{{location_id}}", self.erase)]

    async def erase(self, request: web.Request) -> web.Response:
        """Erase a location: its stored events, facts, figures and series.

        Needs a key with the scope `admin`. What is sent for the location later is acknowledged and
        not stored; `ghl-exporter erase LOCATION --accept-again` ends that. Erasing twice does no
        harm. Answers: 200 with the rows that were deleted; 409 while a rebuild runs.
        """
        location_id = request.match_info["location_id"]
        key = await self._guard.key_of(request, ADMIN)
        self._audit.note(request, key, location_id)
        require_location(key, location_id)
        if clean_text(location_id) != location_id:
            raise Problem(404, "there is no such location")
        query = read_query(request, EraseQuery)
        problem = None
        try:
            if query.dry_run:
                erased = await self._count(location_id)
            else:
                async with self._one_at_a_time:
                    erased, problem = await erase(self._settings, location_id)
                self._metrics.forget_location(location_id)
        except EraseRefusedError as error:
            raise Problem(409, str(error)) from None
        except DATABASE_ERRORS as error:
            raise_if_cancelled(error)
            raise Problem(503, "PostgreSQL is away", headers=RETRY_AFTER) from None
        answer = ErasedLocation(
            location_id=location_id, dry_run=query.dry_run, rows=erased.rows, problem=problem
        )
        return web.Response(
            body=orjson.dumps(answer.model_dump()),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def _count(self, location_id: str) -> Erased:
        connection = await connect(
            self._settings, "erase", command_timeout=self._settings.kpi_timeout
        )
        try:
            return await count_rows(connection, location_id)
        finally:
            connection.terminate()
