"""`/api/business-metrics/health`: how the copy that answers is, for the platform's developers."""

import orjson
from aiohttp import web

from exporter.api.authentication import Guard
from exporter.api.keys import READ
from exporter.api.responses import Health
from exporter.inbox.inbox import Inbox
from exporter.kpis.refresh import KpiRefresher
from exporter.publishing.landing import Landing
from exporter.settings import Settings
from exporter.telemetry.metrics import LiveMetrics, gauge_value


class HealthReport:
    """The handler. It asks no database, so it answers also without one."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        kpis: KpiRefresher,
        metrics: LiveMetrics,
        landing: Landing,
        guard: Guard,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._kpis = kpis
        self._metrics = metrics
        self._landing = landing
        self._guard = guard

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/api/business-metrics/health", self.health)]

    async def health(self, request: web.Request) -> web.Response:
        """How the copy that answers is: what it can't do, what waits, how old the KPIs are."""
        await self._guard.key_of(request, READ)
        problems = [line.text for line in self._landing.state() if line.state != "good"]
        leads = bool(gauge_value(self._metrics.leader))
        redis_up = bool(gauge_value(redis)) if (redis := self._metrics.redis_up) else None
        report = Health(
            status="degraded" if problems else "ok",
            problems=problems,
            leader=leads,
            database_up=bool(gauge_value(self._metrics.database_up)),
            redis_up=redis_up,
            spooled_events=self._inbox.spool.events,
            events_waiting=int(gauge_value(self._metrics.backlog)) if leads else None,
            kpis_refreshed_at=self._kpis.refreshed_at,
        )
        return web.Response(
            body=orjson.dumps(report.model_dump(), option=orjson.OPT_UTC_Z),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )
