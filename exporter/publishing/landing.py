"""Show the state of this instance: `/` to people, `/-/healthy` and `/-/ready` to machines."""

import html
from collections.abc import Callable

from aiohttp import web

from exporter import __version__
from exporter.publishing.status import Level, Status

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


class Landing:
    """The pages that cost nothing: they ask no database."""

    def __init__(self, read_status: Callable[[], Status]) -> None:
        self._read_status = read_status

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
        status = self._read_status()
        if status.commits:
            return web.Response(text="ready\n")
        if status.accepts_webhooks:
            return web.Response(text="ready: PostgreSQL is down, webhooks go to the spool\n")
        return web.Response(status=503, text="not ready: neither PostgreSQL nor the spool\n")

    async def page(self, request: web.Request) -> web.Response:
        """Show the state and links."""
        del request
        status = self._read_status()
        links = [
            ("/docs", "docs", "the API, for people and (/openapi.json) for programs"),
            ("/metrics", "metrics", "live metrics and KPIs, for Prometheus"),
            ("/runbooks/", "runbooks", "what each alert means, and what to do"),
            ("/-/ready", "ready", "can webhooks be stored?"),
            ("/-/healthy", "healthy", "does the process answer?"),
        ]
        body = _PAGE.format(
            version=html.escape(__version__),
            summary=_summary(status),
            banner=""
            if status.not_final is None
            else f'<p class="banner" role="status">{html.escape(status.not_final)}</p>',
            lines="".join(
                f'<li class="{one.level}">{html.escape(one.text)}</li>'
                for one in status.sentences()
                if one.text != status.not_final
            ),
            links="".join(
                f'<li><a href="{url}"><code>{url}</code></a> — {html.escape(text)}</li>'
                for url, _, text in links
            )
            + "<li><code>POST /webhooks/ghl</code> — where GHL sends its webhooks</li>"
            + "<li><code>POST /webhooks/workflow</code> — where workflows send theirs</li>"
            + "<li><code>POST /api/business-metrics/track/…</code> — the AI platform's calls</li>",
            role="This instance projects events and publishes KPIs"
            if status.leader
            else "This instance only receives",
            now=f"{status.now:%Y-%m-%d %H:%M:%S}",
        )
        return web.Response(
            text=body,
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )


def _summary(status: Status) -> str:
    """Return the state in one sentence."""
    if not status.accepts_webhooks:
        return "Webhooks are refused: neither PostgreSQL nor the spool can store them."
    levels = {one.level for one in status.sentences()}
    if Level.BAD in levels:
        return "Something is wrong, and webhooks are still taken."
    if Level.WARNING in levels:
        return "Working, with something to look at."
    return "Everything works."
