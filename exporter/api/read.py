"""`/api/business-metrics/…`: what the service knows, for who holds a key with the scope `read`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from exporter.api.audit import Audit
from exporter.api.authentication import RETRY_AFTER, Guard, require_location
from exporter.api.dashboard import sections, top_agents, trends
from exporter.api.database import ApiDatabase
from exporter.api.download import Kind, send_file, write_list
from exporter.api.explain import explanation
from exporter.api.export import DASHBOARD_FILES
from exporter.api.keys import READ
from exporter.api.parameters import (
    AgentsQuery,
    DashboardQuery,
    ExplainQuery,
    Query,
    read_query,
)
from exporter.api.response_cache import Answer, Answers
from exporter.api.responses import ENDPOINTS, files_of, metric_of
from exporter.database.connect import Connection
from exporter.database.errors import DATABASE_ERRORS
from exporter.domain.json_fields import clean_text
from exporter.http.problem import Problem
from exporter.inbox.history import read_missing_history
from exporter.kpis.definitions import answered_kpis
from exporter.kpis.figures import Figures, compute_figures
from exporter.kpis.lists import ListQuery, all_lists
from exporter.kpis.windows import Window
from exporter.projection.fact_settings import FactSettings
from exporter.settings import Settings

BASE = "/api/business-metrics"
_AGENTS_OF_DASHBOARD, _AGENTS_OF_SUMMARY = 10, 3


class Reading:
    """Handlers of the reading endpoints."""

    def __init__(
        self,
        settings: Settings,
        database: ApiDatabase,
        guard: Guard,
        answers: Answers,
        audit: Audit,
    ) -> None:
        self._settings = settings
        self._api_database = database
        self._guard = guard
        self._answers = answers
        self._audit = audit
        self._fingerprint = FactSettings.from_settings(settings).fingerprint()

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(f"{BASE}/dashboard/{{location_id}}", self.dashboard),
            web.get(f"{BASE}/summary/{{location_id}}", self.summary),
            *(web.get(f"{BASE}/{name}/{{location_id}}", self.kpis) for name in ENDPOINTS),
            web.get(f"{BASE}/explain/{{kpi}}", self.explain),
        ]

    async def dashboard(self, request: web.Request) -> web.Response:
        """Everything that executives look at, rates in percent.

        `include_trends=true` adds each figure's daily series and its change against the period
        before. `format=csv` or `xlsx` makes a file of it.
        """
        return await self._dashboard(request, _AGENTS_OF_DASHBOARD)

    async def summary(self, request: web.Request) -> web.Response:
        """The same as the dashboard, with the three best agents."""
        return await self._dashboard(request, _AGENTS_OF_SUMMARY)

    async def _dashboard(self, request: web.Request, most_agents: int) -> web.Response:
        location_id = await self._permit(request, request.match_info["location_id"])
        query = read_query(request, DashboardQuery)
        now = datetime.now(UTC)
        window = query.windows(self._settings, location_id, now)[0]

        async def compute() -> Answer:
            async with self._database() as connection:
                await self._require_known(connection, location_id)
                complete = await self._is_complete(connection)
                found = await compute_figures(
                    connection,
                    answered_kpis(),
                    [window],
                    settings=self._settings,
                    now=now,
                    complete=complete,
                )
                current = found[window.name]
                names = await _names(connection, location_id)
                answer = {
                    **self._period(window, now, complete),
                    **sections(current),
                    "top_agents": top_agents(current, names, most_agents),
                }
                if query.include_trends:
                    answer["trends"] = await self._trends(
                        connection, window, current, now, complete
                    )
                return answer

        question = f"dashboard {window!r} {most_agents} {query.include_trends}"
        content = await self._answers.find(question, compute)
        return await self._answers.respond(request, content, query.format, DASHBOARD_FILES)

    async def _trends(
        self,
        connection: Connection,
        window: Window,
        current: Figures,
        now: datetime,
        complete: bool,
    ) -> dict[str, Any]:
        length = (window.last_day - window.first_day).days + 1
        before = Window(
            window.location_id,
            "before",
            window.first_day - timedelta(length),
            window.first_day - timedelta(1),
        )
        days = [window.first_day + timedelta(n) for n in range(length)]
        each = [Window(window.location_id, day.isoformat(), day, day) for day in days]
        kpis = [kpi for kpi in answered_kpis() if not kpi.ranked]
        found = await compute_figures(
            connection,
            kpis,
            [before, *each],
            settings=self._settings,
            now=now,
            complete=complete,
        )
        return trends(current, found["before"], {day: found[day.isoformat()] for day in days})

    async def kpis(self, request: web.Request) -> web.Response:
        """One family of KPIs, exactly as on /metrics, for any window.

        A figure is a number, null where there is none, or an object by the values of its labels.
        Ratios are ratios here: 0.25, not 25.
        """
        location_id = await self._permit(request, request.match_info["location_id"])
        endpoint = request.path.split("/")[3]
        agents = any(kpi.ranked for kpi in files_of(endpoint))
        query = read_query(request, AgentsQuery if agents else Query)
        agent_id = query.agent_id if isinstance(query, AgentsQuery) else None
        now = datetime.now(UTC)
        window = query.windows(self._settings, location_id, now)[0]

        async def compute() -> Answer:
            async with self._database() as connection:
                await self._require_known(connection, location_id)
                complete = await self._is_complete(connection)
                found = await compute_figures(
                    connection,
                    files_of(endpoint),
                    [window],
                    settings=self._settings,
                    now=now,
                    complete=complete,
                )
                figures = found[window.name]
                answer = {**self._period(window, now, complete), "figures": figures.values}
                if agents:
                    names = await _names(connection, location_id)
                    answer["agents"] = [
                        {**row, "name": names.get(row["agent"])}
                        for row in figures.agents
                        if (
                            row["rank"] <= self._settings.agent_series_limit
                            if agent_id is None
                            else row["agent"] == agent_id
                        )
                    ]
                return answer

        content = await self._answers.find(f"{endpoint} {window!r} {agent_id!r}", compute)
        return await self._answers.respond(request, content)

    async def explain(self, request: web.Request) -> web.StreamResponse:
        """The deals, leads or recommendations that a KPI was computed from, page by page.

        `list` chooses among a KPI's lists, and labels (`agent`, `stage`, `source` …) narrow one.
        `format=csv` or `xlsx` makes a file of the whole list.
        """
        key = await self._guard.key_of(request, READ)
        query = read_query(request, ExplainQuery)
        location_id = query.location_id
        self._audit.note(request, key, location_id)
        require_location(key, location_id)
        found = metric_of(request.match_info["kpi"])
        if found is None:
            raise Problem(404, "there is no such KPI; docs/reference/kpis.md lists them")
        kpi, metric = found
        name = query.list or metric.explain[0]
        if name not in metric.explain:
            raise Problem(
                422,
                "the query is not valid",
                errors=[{"field": "list", "problem": f"is one of {', '.join(metric.explain)}"}],
            )
        now = datetime.now(UTC)
        window = query.windows(self._settings, location_id, now)[0]
        if query.format != "json":
            wanted = ListQuery(all_lists()[name], window, query.labels, self._settings, now)
            return await self._download(request, wanted, query.format)

        async def compute() -> Answer:
            async with self._database() as connection:
                await self._require_known(connection, location_id)
                complete = await self._is_complete(connection)
                return {
                    **self._period(window, now, complete),
                    **await explanation(
                        connection, kpi, metric, name, query, window, self._settings, now, complete
                    ),
                }

        labels = sorted(query.labels.items())
        question = (
            f"explain {metric.name} {window!r} {name} {labels} {query.page} {query.page_size}"
        )
        content = await self._answers.find(question, compute)
        return await self._answers.respond(request, content)

    async def _download(
        self, request: web.Request, wanted: ListQuery, kind: Kind
    ) -> web.StreamResponse:
        async with self._database() as connection:
            await self._require_known(connection, wanted.window.location_id)
            complete = await self._is_complete(connection)
            file = await write_list(connection, wanted, kind)
        # The connection is free while a slow reader takes the file.
        with file:
            return await send_file(request, file, kind, complete=complete)

    async def _permit(self, request: web.Request, location_id: str) -> str:
        """Return the location, which the request's key may see. Raises Problem."""
        key = await self._guard.key_of(request, READ)
        self._audit.note(request, key, location_id)
        require_location(key, location_id)
        if clean_text(location_id) != location_id:
            raise Problem(404, "there is no such location")
        return location_id

    async def _require_known(self, connection: Connection, location_id: str) -> None:
        """Raise Problem for a location that nothing was ever told of: zeros would say too much."""
        if location_id in self._settings.ghl_location_id:
            return
        if not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM locations WHERE location_id = $1)", location_id
        ):
            raise Problem(404, f"nothing has been told of the location {location_id}")

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[Connection]:
        try:
            async with self._api_database.connection(self._settings.kpi_timeout) as connection:
                yield connection
        except DATABASE_ERRORS:
            raise Problem(
                503, "PostgreSQL is away, or took too long", headers=RETRY_AFTER
            ) from None

    async def _is_complete(self, connection: Connection) -> bool:
        timeout = self._settings.kpi_timeout
        return not await read_missing_history(connection, self._fingerprint, timeout)

    def _period(self, window: Window, now: datetime, complete: bool) -> Answer:
        return {
            "location_id": window.location_id,
            "period_days": (window.last_day - window.first_day).days + 1,
            "first_day": window.first_day,
            "last_day": window.last_day,
            "time_zone": self._settings.zone(window.location_id).key,
            "generated_at": now,
            "history_complete": complete,
        }


async def _names(connection: Connection, location_id: str) -> dict[str, str]:
    """Return the names of a location's users, by their ids."""
    rows = await connection.fetch(
        "SELECT user_id, name FROM users WHERE location_id = $1 AND name IS NOT NULL", location_id
    )
    return {row["user_id"]: row["name"] for row in rows}
