"""/metrics: the live metrics, rendered now, and the KPI snapshot, copied."""

import gzip
import hmac

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import (
    CONTENT_TYPE_LATEST as OPENMETRICS_TYPE,
)
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from exporter.kpis.refresh import KpiRefresher
from exporter.live.metrics import LiveMetrics
from exporter.publish.problem import Problem
from exporter.settings import Settings

_OPENMETRICS = "application/openmetrics-text"
PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_END = b"# EOF\n"


def _quality(header: str, name: str) -> float:
    """Return how much an Accept header wants something, 0 to 1; 0 where it does not name it."""
    best = 0.0
    for item in header.split(","):
        value, *parameters = (part.strip().lower() for part in item.split(";"))
        if value == name:
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            try:
                best = max(best, float(weights[0]) if weights else 1.0)
            except ValueError:  # a weight that is no number says nothing
                best = max(best, 1.0)
    return best


class Exposition:
    """The handler of /metrics."""

    def __init__(self, settings: Settings, metrics: LiveMetrics, kpis: KpiRefresher) -> None:
        self._token = settings.metrics_token
        self._metrics = metrics
        self._kpis = kpis

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/metrics", self.metrics)]

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer in OpenMetrics where that is asked for, compressed where that is accepted.

        With `METRICS_TOKEN` set, 401 to whoever does not send it as a bearer token.
        """
        if self._token is not None:
            expected = f"Bearer {self._token.get_secret_value()}".encode()
            given = request.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, expected):
                raise Problem(
                    401,
                    "send METRICS_TOKEN as a bearer token",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        accept = request.headers.get("Accept", "")
        wanted = _quality(accept, _OPENMETRICS)
        openmetrics = wanted > 0 and wanted >= _quality(accept, "text/plain")
        compressed = _quality(request.headers.get("Accept-Encoding", ""), "gzip") > 0
        snapshot = self._kpis.snapshot
        if openmetrics:
            live: bytes = generate_openmetrics(self._metrics.registry)  # type: ignore[no-untyped-call]
            live = live.removesuffix(_END)
            kpis = snapshot.openmetrics_gzip if compressed else snapshot.openmetrics
            end = _END
        else:
            live = generate_latest(self._metrics.registry)
            kpis = snapshot.plain_gzip if compressed else snapshot.plain
            end = b""
        headers = {
            "Content-Type": OPENMETRICS_TYPE if openmetrics else PLAIN_TYPE,
            "Vary": "Accept, Accept-Encoding",
        }
        if not compressed:
            return web.Response(body=live + kpis + end, headers=headers)
        # Gzip members may follow one another: what was compressed at the refresh is only copied.
        body = gzip.compress(live, 1) + kpis + (gzip.compress(end, 1) if end else b"")
        return web.Response(body=body, headers={**headers, "Content-Encoding": "gzip"})
