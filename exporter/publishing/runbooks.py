"""`/runbooks/`: what each alert means and what to do, where the alerts link to."""

import html
import re
from functools import cache
from pathlib import Path

from aiohttp import web
from markdown_it import MarkdownIt

from exporter.support.bundled_files import bundled

_INDEX = "README"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · ghl-exporter</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin: .6rem 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.05rem; margin: 1.6rem 0 .3rem; }}
p {{ margin: .5rem 0; }} li {{ margin: .25rem 0; }} ul, ol {{ padding-left: 1.5rem; }}
code {{ font-size: .92em; overflow-wrap: anywhere; }}
pre {{ padding: .6rem .8rem; border-radius: 6px; white-space: pre-wrap;
  background: light-dark(#f3f4f6, #22272e); }}
table {{ border-collapse: collapse; width: 100%; margin: .4rem 0; }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid light-dark(#eaeef2, #2a3038); }}
a {{ color: inherit; }} .muted {{ opacity: .72; }}
</style></head><body>
<p class="muted"><a href="/">ghl-exporter</a>{index}</p>
{body}
</body></html>
"""


@cache
def _render(path: Path) -> str:
    """Return a page as HTML; no line of HTML in it becomes one of the page."""
    text = path.read_text("utf-8")
    title = re.match(r"# (.+)", text)
    return _PAGE.format(
        title=html.escape(title[1] if title else path.stem),
        index="" if path.stem == _INDEX else ' · <a href="./">runbooks</a>',
        body=MarkdownIt("commonmark", {"html": False}).enable("table").render(text),
    )


class Runbooks:
    """The handlers of the pages. They are read when they are first asked for."""

    def __init__(self) -> None:
        """Find the pages. Raises FileNotFoundError where this installation lacks the alerts."""
        self._paths = {path.stem: path for path in (bundled("alerts") / "runbooks").glob("*.md")}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/runbooks", self.index_beside),
            web.get("/runbooks/", self.index),
            web.get("/runbooks/{name}", self.page),
        ]

    async def index_beside(self, request: web.Request) -> web.Response:
        """Lead to the list of runbooks, whose links are relative."""
        del request
        return web.Response(status=308, headers={"Location": "/runbooks/"})

    async def index(self, request: web.Request) -> web.Response:
        """Show the list of runbooks: what each alert means."""
        del request
        return self._answer(_INDEX)

    async def page(self, request: web.Request) -> web.Response:
        """Show an alert's runbook; the name may end in `.md`. 404 without such an alert."""
        return self._answer(request.match_info["name"].removesuffix(".md"))

    def _answer(self, name: str) -> web.Response:
        path = self._paths.get(name)
        if path is None:
            raise web.HTTPNotFound(reason="no alert has this name")
        return web.Response(
            text=_render(path),
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )
