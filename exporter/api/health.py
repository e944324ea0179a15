"""`/api/business-metrics/health`: the state of this instance, for the platform's developers."""

from collections.abc import Callable

import orjson
from aiohttp import web

from exporter.api.authentication import Guard
from exporter.api.keys import READ
from exporter.api.responses import Health
from exporter.publishing.status import Status


class HealthReport:
    """The handler. It asks no database, so it answers also without one."""

    def __init__(self, read_status: Callable[[], Status], guard: Guard) -> None:
        self._read_status = read_status
        self._guard = guard

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/api/business-metrics/health", self.health)]

    async def health(self, request: web.Request) -> web.Response:
        """The state of this instance: what it cannot do, what waits, how old the KPIs are."""
        await self._guard.key_of(request, READ)
        status = self._read_status()
        problems = status.problems()
        report = Health(
            status="degraded" if problems else "ok",
            problems=problems,
            leader=status.leader,
            database_up=status.database_up,
            redis_up=status.redis.up if status.redis else None,
            spooled_events=status.spool.events,
            events_waiting=status.waiting_events if status.leader else None,
            kpis_refreshed_at=status.kpis.refreshed_at,
        )
        return web.Response(
            body=orjson.dumps(report.model_dump(), option=orjson.OPT_UTC_Z),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )
