"""/metrics: the KPI snapshot, copied, and the live metrics, rendered now."""

import hmac

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import (
    CONTENT_TYPE_LATEST as OPENMETRICS_TYPE,
)
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from exporter.http.gzip_member import gzip_member
from exporter.http.problem import Problem
from exporter.kpis.refresh import KpiRefresher
from exporter.settings import Settings
from exporter.telemetry.metrics import LiveMetrics

_OPENMETRICS = "application/openmetrics-text"
PLAIN_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _quality(header: str, *names: str) -> float:
    """Return how much a header wants something, 0 to 1, by the first of its names that is there.

    0 where it has none of the names. A name that is there more than once counts by the highest.
    """
    weights: dict[str, float] = {}
    for item in header.split(","):
        value, *parameters = (part.strip().lower() for part in item.split(";"))
        given = [part[2:] for part in parameters if part.startswith("q=")]
        try:
            weight = float(given[0]) if given else 1.0
        except ValueError:  # a weight that is no number says nothing
            weight = 1.0
        weights[value] = max(weights.get(value, 0.0), weight)
    return next((weights[name] for name in names if name in weights), 0.0)


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
        accept = ",".join(request.headers.getall("Accept", ()))
        coding = ",".join(request.headers.getall("Accept-Encoding", ()))
        wanted = _quality(accept, _OPENMETRICS)
        openmetrics = wanted > 0 and wanted >= _quality(accept, "text/plain")
        # A coding that is not named counts by `*`, where that is there (RFC 9110).
        compressed = _quality(coding, "gzip", "x-gzip", "*") > 0
        snapshot = self._kpis.snapshot
        if openmetrics:
            live: bytes = generate_openmetrics(self._metrics.registry)  # type: ignore[no-untyped-call]
        else:
            live = generate_latest(self._metrics.registry)
        headers = {
            "Content-Type": OPENMETRICS_TYPE if openmetrics else PLAIN_TYPE,
            "Vary": "Accept, Accept-Encoding",
        }
        # The KPIs were rendered, and compressed, at their refresh; the end mark comes with the live
        # metrics, so they are last.
        if not compressed:
            kpis = snapshot.openmetrics if openmetrics else snapshot.plain
            return web.Response(body=kpis + live, headers=headers)
        first = snapshot.openmetrics_compressed if openmetrics else snapshot.plain_compressed
        return web.Response(
            body=gzip_member(first, live), headers={**headers, "Content-Encoding": "gzip"}
        )
