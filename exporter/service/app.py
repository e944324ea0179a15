"""Put the parts together, in the order that an event goes, and take them down the other way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import asyncpg
import structlog
from aiohttp import hdrs, web
from redis.asyncio import Redis

from exporter import __version__
from exporter.api.audit import Audit
from exporter.api.authentication import Guard
from exporter.api.cors import cors
from exporter.api.database import ApiDatabase
from exporter.api.docs_page import ApiDocs
from exporter.api.erase import Erasing
from exporter.api.health import HealthReport
from exporter.api.keys import KeyRing
from exporter.api.limits import RateLimit
from exporter.api.read import Reading
from exporter.api.response_cache import Answers
from exporter.api.track import Tracking
from exporter.cache.redis import Cache, open_redis
from exporter.cache.seal import Seal
from exporter.database.availability import Availability
from exporter.database.connect import create_pool
from exporter.database.errors import DATABASE_ERRORS
from exporter.http.body import BodyReader
from exporter.http.client_address import Clients
from exporter.http.problem import Problem, problem
from exporter.http.refusal_log import RefusalLog
from exporter.inbox.inbox import Inbox
from exporter.kpis.definitions import OPTIONS
from exporter.kpis.refresh import KpiRefresher
from exporter.projection.fact_settings import FactSettings
from exporter.publishing.day_figures import DayFigures
from exporter.publishing.exposition import Exposition
from exporter.publishing.landing import Landing
from exporter.publishing.runbooks import Runbooks
from exporter.receiver.connections import Connections
from exporter.receiver.handlers import Receiver
from exporter.service.descriptors import connection_limit, raise_descriptor_limit
from exporter.service.leader import Leader
from exporter.service.sampler import Sampler
from exporter.service.status_reader import StatusReader
from exporter.settings import Settings
from exporter.support.tasks import end_tasks, ignoring, raise_if_cancelled
from exporter.telemetry.metrics import LiveMetrics

log = structlog.get_logger()

_RESTART_PAUSE = 2.0
_END_WITHIN = 8.0  # seconds that background tasks get to end
METRICS_APP = web.AppKey("metrics", web.Application)
CONNECTIONS = web.AppKey("connections", Connections)


def create_app(settings: Settings, availabilities: Sequence[Availability] = ()) -> web.Application:
    """Make the service. It starts, takes webhooks and shows metrics without any database.

    `availabilities`: what else the landing page names while it is down. Where /metrics has an
    address of its own, `METRICS_APP` holds what is to be served there.
    """
    metrics = LiveMetrics(
        locations=settings.ghl_location_id,
        location_limit=settings.location_series_limit,
        with_redis=settings.redis_url is not None or settings.fault("redis_url") is not None,
    )
    metrics.spool.limit.set(settings.spool_max_bytes)
    pool = create_pool(settings, "kpis")
    # Apart, so that no question keeps the KPIs waiting for a connection.
    api_pool = create_pool(settings, "api")
    redis = open_redis(settings)
    cache = Cache(redis)
    inbox = Inbox(settings, metrics)
    kpis = KpiRefresher(settings, pool, metrics)
    leader = Leader(settings, pool, kpis, DayFigures(settings, cache), metrics)
    fingerprint = FactSettings.from_settings(settings).fingerprint()
    sampler = Sampler(pool, cache, inbox, metrics, fingerprint)
    audit = Audit(api_pool, metrics, settings.audit_retention_days)
    app = web.Application(middlewares=[cors(settings.cors_origins), _errors(metrics, audit)])

    bodies = BodyReader(settings)
    refusals = RefusalLog()
    clients = Clients(settings.trusted_proxies)
    app[CONNECTIONS] = Connections(
        connection_limit(settings, raise_descriptor_limit()),
        settings.client_share,
        clients,
        metrics,
        refusals,
    )
    receiver = Receiver(settings, inbox, metrics, bodies, refusals)
    database = ApiDatabase(api_pool)
    limit = RateLimit(cache, settings.api_requests_per_minute)
    guard = Guard(KeyRing(database), limit, clients, refusals, audit)
    seal = Seal(api_pool)
    answers = Answers(cache, seal, settings.dashboard_cache_ttl, answers_version(settings))
    exposition = Exposition(settings, metrics, kpis)
    if settings.metrics_address is None:
        app.router.add_routes(exposition.routes())
    else:
        app[METRICS_APP] = web.Application(middlewares=[_errors(metrics, audit)])
        app[METRICS_APP].router.add_routes(exposition.routes())
    dependencies = [*availabilities, leader.availability, leader.kpi_database, sampler.availability]
    status = StatusReader(settings, receiver, inbox, kpis, cache, leader, sampler, dependencies)
    parts = (
        receiver,
        Tracking(settings, inbox, metrics, guard, audit, bodies),
        Reading(settings, database, guard, answers, audit),
        Erasing(settings, guard, audit, metrics),
        HealthReport(status.read, guard),
        Landing(status.read),
        ApiDocs(),
        Runbooks(),
    )
    app.router.add_routes([route for part in parts for route in part.routes()])

    async def resources(_: web.Application) -> AsyncIterator[None]:
        await pool
        await api_pool
        await inbox.start()
        tasks = [
            asyncio.create_task(_keep_running(work))
            for work in (leader.run, sampler.run, audit.run)
        ]
        yield
        if not await end_tasks(tasks, within=_END_WITHIN):
            log.error("tasks_do_not_end")
        with ignoring(*DATABASE_ERRORS):
            async with asyncio.timeout(2):
                await audit.flush()
        await inbox.stop()
        refusals.flush()
        await _close(pool, api_pool, redis)

    app.cleanup_ctx.append(resources)
    _name_no_server(app)
    return app


def _name_no_server(app: web.Application) -> None:
    """Send no Server header: a version only helps whoever looks for one with a known fault."""

    async def remove(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.popall(hdrs.SERVER, None)

    app.on_response_prepare.append(remove)
    if METRICS_APP in app:
        app[METRICS_APP].on_response_prepare.append(remove)


async def _close(pool: asyncpg.Pool, api_pool: asyncpg.Pool, redis: Redis | None) -> None:
    """Close connections, politely for as long as that is quick."""
    with ignoring(*DATABASE_ERRORS):
        async with asyncio.timeout(2):
            await asyncio.gather(pool.close(), api_pool.close())
    pool.terminate()
    api_pool.terminate()
    if redis is not None:
        with ignoring(Exception):
            async with asyncio.timeout(1):
                await redis.aclose()


def answers_version(settings: Settings) -> str:
    """Return what kept answers hang on beside the facts: the database, the code, the settings."""
    options = settings.model_dump(
        mode="json", include={*OPTIONS, "agent_series_limit", "ghl_location_id"}
    )
    parts = (
        settings.database_url.get_secret_value(),
        __version__,
        FactSettings.from_settings(settings).fingerprint(),
        sorted(options.items()),
    )
    return repr(parts)


async def _keep_running(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a task for ever; a fault of ours is logged, and must not stop webhooks from coming in."""
    while True:
        try:
            await work()
        except Exception as error:  # the backlog's age and the KPIs' age tell on-call
            raise_if_cancelled(error)
            log.exception("task_failed", error=error)
        await asyncio.sleep(_RESTART_PAUSE)


def _errors(metrics: LiveMetrics, audit: Audit) -> Any:
    """Make the middleware that answers every error as problem+json, and never with a traceback."""

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except Problem as error:
            metrics.api_rejected.labels(str(error.status)).inc()
            response = problem(
                error.status, error.detail, headers=error.headers, errors=error.errors
            )
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            response = problem(error.status, error.reason, headers=headers)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of ours; the receiver answers its own with 429
            log.exception("request_failed", path=request.path, error=error)
            response = problem(500, "it failed; the log says why")
        audit.answered(request, response.status)
        return response

    return middleware
