"""`/` says in words how the service is; `/-/healthy` and `/-/ready` say it to machines."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from exporter import __version__
from exporter.database.availability import Availability
from exporter.domain.event import GHL, WORKFLOW
from exporter.inbox.inbox import Inbox
from exporter.kpis.definitions import all_kpis
from exporter.kpis.refresh import KpiRefresher
from exporter.service.sampler import Watch
from exporter.settings import Settings
from exporter.telemetry.metrics import LiveMetrics, gauge_value

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>ghl-exporter</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }} h2 {{ font-size: 1.05rem; margin: 1.6rem 0 .3rem; }}
.summary {{ font-size: 1.15rem; }}
ul {{ list-style: none; padding: 0; margin: 0; }}
li {{ padding: .3rem 0 .3rem 1.8rem; position: relative; }}
li::before {{ position: absolute; left: 0; font-weight: 700; width: 1.3rem; text-align: center; }}
.good::before {{ content: "✓"; color: light-dark(#1a7f37, #3fb950); }}
.warn::before {{ content: "!"; color: light-dark(#bf5b04, #e3a04a); }}
.bad::before {{ content: "✗"; color: light-dark(#cf222e, #ff7b72); }}
code {{ font-size: .92em; }} small, .muted {{ opacity: .72; }}
a {{ color: inherit; }}
.banner {{ padding: .6rem .9rem; border-radius: .3rem; font-weight: 600;
  color: light-dark(#7a3b02, #f0c38e); background: light-dark(#fdf0dc, #3d2a10); }}
</style></head><body>
<h1>ghl-exporter <small>{version}</small></h1>{banner}
<p class="summary">{summary}</p>
<h2>State</h2><ul>{lines}</ul>
<h2>Where to go</h2><ul>{links}</ul>
<p class="muted">{role} · {now} UTC · this page refreshes itself</p>
</body></html>
"""


@dataclass(frozen=True)
class Line:
    """One sentence of the state: good, warn or bad."""

    state: str
    text: str


class Landing:
    """The pages that cost nothing: no database is asked for them."""

    def __init__(
        self,
        settings: Settings,
        inbox: Inbox,
        kpis: KpiRefresher,
        metrics: LiveMetrics,
        watch: Watch,
        availabilities: Sequence[Availability] = (),
        redis: Availability | None = None,
    ) -> None:
        """`availabilities`, `redis`: what the page shows, with its reason, while it is down."""
        self._settings = settings
        self._inbox = inbox
        self._kpis = kpis
        self._metrics = metrics
        self._watch = watch
        self._availabilities = availabilities
        self._redis = redis

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the page and of the probes."""
        return [
            web.get("/", self.page),
            web.get("/-/healthy", self.healthy),
            web.get("/-/ready", self.ready),
        ]

    async def healthy(self, request: web.Request) -> web.Response:
        """Answer 200 while the process answers at all."""
        del request
        return web.Response(text="healthy\n")

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 200 while webhooks can be stored, in PostgreSQL or in the spool, else 503."""
        del request
        if self._inbox.database_up:
            return web.Response(text="ready\n")
        if self._inbox.spool.usable:
            return web.Response(text="ready: PostgreSQL is away, webhooks go to the spool\n")
        return web.Response(status=503, text="not ready: neither PostgreSQL nor the spool\n")

    def state(self) -> list[Line]:
        """Return the state in sentences."""
        spool = self._inbox.spool
        database_up = bool(gauge_value(self._metrics.database_up))
        lines = [
            Line("good", "PostgreSQL takes commits.")
            if database_up
            else Line("bad", "PostgreSQL is away; webhooks go to the local spool.")
        ]
        lines += [Line("bad", f"{one} (ghl-exporter check)") for one in self._settings.faults]
        shown = [self._inbox.availability, *self._availabilities]
        lines += [Line("bad", f"{one.problem}: {one.reason}") for one in shown if one.down]
        if self._inbox.fsync_off:
            lines.append(
                Line("bad", "PostgreSQL has fsync off: what it commits could be lost in a crash.")
            )
        if spool.events:
            lines.append(Line("warn", f"Webhooks that wait in the local spool: {spool.events:,}."))
        if not spool.usable:
            lines.append(Line("bad", f"The local spool can't be used: {spool.problem}"))
        if spool.set_aside:
            lines.append(
                Line("warn", f"Spooled webhooks that were set aside: {spool.set_aside:,}.")
            )
        lines.append(self._last_webhook())
        if database_up:
            lines += self._projection_lines()
        else:
            lines.append(Line("warn", "Facts and KPIs stand still until PostgreSQL is back."))
        lines.append(self._redis_line())
        return lines

    def _redis_line(self) -> Line:
        if self._metrics.redis_up is None:
            return Line("good", "Redis is not set up; nothing depends on it.")
        if self._redis is not None and self._redis.reason is not None:
            return Line("warn", f"{self._redis.problem}: {self._redis.reason}")
        if gauge_value(self._metrics.redis_up):
            return Line("good", "Redis answers.")
        return Line("warn", "Redis is away: slower.")

    def _last_webhook(self) -> Line:
        sources = (GHL, WORKFLOW)
        at = max(gauge_value(self._metrics.last_webhook.labels(source)) for source in sources)
        if not at:
            return Line("good", "No webhook has come since this copy was started.")
        ago = max(0.0, datetime.now(UTC).timestamp() - at)
        return Line("good", f"The last webhook came {_duration(ago)} ago.")

    def _projection_lines(self) -> list[Line]:
        backlog = int(gauge_value(self._metrics.backlog))
        oldest = gauge_value(self._metrics.oldest_age)
        quarantined = int(gauge_value(self._metrics.quarantine))
        lines = []
        if oldest > 60:
            lines.append(
                Line("warn", f"Events that wait: {backlog:,}, the oldest for {_duration(oldest)}.")
            )
        else:
            lines.append(Line("good", f"Stored events become facts at once ({backlog:,} waiting)."))
        if quarantined:
            lines.append(
                Line("warn", f"Events in quarantine: {quarantined:,} (ghl-exporter replay).")
            )
        lines += [Line("warn", text) for text in self._history()]
        if self._kpis.refreshed_at is None:
            text = "KPIs are published by another copy, or not computed yet."
            lines.append(Line("warn" if gauge_value(self._metrics.leader) else "good", text))
        else:
            age = (datetime.now(UTC) - self._kpis.refreshed_at).total_seconds()
            late = age > 3 * self._settings.kpi_interval + 5
            failed = len(all_kpis()) - len(self._kpis.snapshot.kpis)
            lines.append(Line("warn" if late else "good", f"KPIs are {_duration(age)} old."))
            if failed:
                lines.append(Line("bad", f"{failed} KPI queries have never succeeded."))
        return lines

    def _history(self) -> list[str]:
        """Return a sentence where figures are not of the whole history."""
        if not self._watch.lacks:
            return []
        return [f"Figures are not final, and there is no grade: {'; '.join(self._watch.lacks)}."]

    async def page(self, request: web.Request) -> web.Response:
        """Show the state and links."""
        del request
        lines = self.state()
        worst = {line.state for line in lines}
        summary = (
            "Something is wrong, and webhooks are still taken."
            if "bad" in worst
            else "Working, with something to look at."
            if "warn" in worst
            else "Everything works."
        )
        if not self._inbox.database_up and not self._inbox.spool.usable:
            summary = "Webhooks are refused: they can be stored nowhere."
        links = [
            ("/docs", "docs", "the API, for people and (/openapi.json) for programs"),
            ("/metrics", "metrics", "live metrics and KPIs, for Prometheus"),
            ("/runbooks/", "runbooks", "what each alert means, and what to do"),
            ("/-/ready", "ready", "can webhooks be stored?"),
            ("/-/healthy", "healthy", "does the process answer?"),
        ]
        body = _PAGE.format(
            version=html.escape(__version__),
            summary=summary,
            banner="".join(
                f'<p class="banner" role="status">{html.escape(text)}</p>'
                for text in self._history()
            ),
            lines="".join(
                f'<li class="{line.state}">{html.escape(line.text)}</li>'
                for line in lines
                if line.text not in self._history()
            ),
            links="".join(
                f'<li><a href="{url}"><code>{url}</code></a> — {html.escape(text)}</li>'
                for url, _, text in links
            )
            + "<li><code>POST /webhooks/ghl</code> — where GHL sends its webhooks</li>"
            + "<li><code>POST /webhooks/workflow</code> — where workflows send theirs</li>"
            + "<li><code>POST /api/business-metrics/track/…</code> — the AI platform's calls</li>",
            role="This copy projects events and publishes KPIs"
            if gauge_value(self._metrics.leader)
            else "This copy only receives",
            now=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        )
        return web.Response(
            text=body,
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )


def _duration(seconds: float) -> str:
    """Say a duration in the largest unit that it has two of."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
