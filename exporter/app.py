"""Put the parts together, in the order that an event goes, and take them down the other way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import structlog
from aiohttp import web
from redis.asyncio import Redis

from exporter.api.guard import Guard
from exporter.api.keys import KeyRing
from exporter.api.limits import RateLimit
from exporter.api.track import Tracking
from exporter.database.connect import create_pool
from exporter.inbox.inbox import Inbox
from exporter.kpis.refresh import KpiRefresher
from exporter.leader import Leader
from exporter.live.metrics import LiveMetrics
from exporter.live.watch import Watch
from exporter.publish.exposition import Exposition
from exporter.publish.landing import Landing
from exporter.publish.problem import Problem, problem
from exporter.receiver.handlers import Receiver
from exporter.settings import Settings

log = structlog.get_logger()

_RESTART_PAUSE = 2.0


def create_app(settings: Settings) -> web.Application:
    """Make the service. It starts, takes webhooks and shows metrics without any database."""
    metrics = LiveMetrics(
        locations=settings.ghl_location_id, location_limit=settings.location_series_limit
    )
    app = web.Application(middlewares=[_errors(metrics)])
    pool = create_pool(settings, "kpis")
    redis = _redis(settings)
    inbox = Inbox(settings, metrics)
    kpis = KpiRefresher(settings, pool, metrics)
    leader = Leader(settings, kpis, metrics)
    watch = Watch(pool, redis, inbox, metrics)

    app.router.add_routes(Receiver(settings, inbox, metrics).routes())
    guard = Guard(KeyRing(pool), RateLimit(redis, settings.api_requests_per_minute))
    app.router.add_routes(Tracking(settings, inbox, metrics, guard).routes())
    app.router.add_get("/metrics", Exposition(metrics, kpis).metrics)
    app.router.add_routes(Landing(settings, inbox, kpis, metrics).routes())

    async def resources(_: web.Application) -> AsyncIterator[None]:
        await pool
        await inbox.start()
        tasks = [asyncio.create_task(_keep_running(work)) for work in (leader.run, watch.run)]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await inbox.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await pool.close()
        pool.terminate()
        if redis is not None:
            await redis.aclose()

    app.cleanup_ctx.append(resources)
    return app


def _redis(settings: Settings) -> Redis | None:
    if settings.redis_url is None:
        return None
    return Redis.from_url(
        settings.redis_url.get_secret_value(), socket_timeout=2, socket_connect_timeout=2
    )


async def _keep_running(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a task for ever; a fault of ours is logged, and must not stop webhooks from coming in."""
    while True:
        try:
            await work()
        except Exception as error:  # the backlog's age and the KPIs' age tell on-call
            log.exception("task_failed", error=repr(error))
        await asyncio.sleep(_RESTART_PAUSE)


def _errors(metrics: LiveMetrics) -> Any:
    """Make the middleware that answers every error as problem+json, and never with a traceback."""

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except Problem as error:
            metrics.api_rejected.labels(str(error.status)).inc()
            return problem(error.status, error.detail, headers=error.headers, errors=error.errors)
        except web.HTTPException as error:
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return problem(error.status, error.reason, headers=headers)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of ours: the sender shall come again
            log.exception("request_failed", path=request.path, error=repr(error))
            if request.path.startswith("/webhooks/"):
                return problem(
                    429, "it failed: send it again later", headers={"Retry-After": "10"}, close=True
                )
            return problem(500, "it failed; the log says why")
        return response

    return middleware
