"""`/openapi.json` for programs, and `/docs`: the same as a page for people."""

import html
from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from aiohttp import web

from exporter.api.openapi import document

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
details { border: 1px solid light-dark(#d0d7de, #3d444d); border-radius: 6px; margin: .5rem 0;
  padding: .4rem .8rem; }
summary { cursor: pointer; } summary b { display: inline-block; width: 3.2rem; }
code { font-size: .92em; overflow-wrap: anywhere; } .muted { opacity: .75; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0; font-size: .95rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0;
  border-bottom: 1px solid light-dark(#eaeef2, #2a3038); }
td:first-child { white-space: nowrap; }
a { color: inherit; }
"""


def _rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _kind(schema: dict[str, Any]) -> str:
    """Say in words what a schema takes; a model is a link to its table."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"<code>{html.escape(str(value))}</code>" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {_kind(schema['items'])}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    bounds = [
        f"{sign} {schema[name]}"
        for name, sign in (("minimum", "≥"), ("maximum", "≤"))
        if name in schema
    ]
    return " ".join([str(schema.get("format", kind)), *bounds])


def _text(text: str) -> str:
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def _operation_part(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = [
        (
            f"<code>{parameter['name']}</code>" + ("" if not parameter["required"] else " *"),
            _kind(parameter["schema"]),
            _text(parameter.get("description", "")),
        )
        for parameter in operation.get("parameters", ())
        if parameter["name"] != "kpi"
    ]
    responses = [
        (
            status,
            ", ".join(_kind(kind["schema"]) for kind in list(said.get("content", {}).values())[:1]),
            _text(said["description"]),
        )
        for status, said in operation["responses"].items()
    ]
    body = operation.get("requestBody")
    taken = _kind(body["content"]["application/json"]["schema"]) if body else ""
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code>"
        f' <span class="muted">{_text(operation["summary"])}</span></summary>'
        f"<p>{_text(operation['description'])}</p>"
        + (f"<p>Body: {taken}</p>" if taken else "")
        + (_rows(("Parameter", "Kind", "Meaning"), parameters) if parameters else "")
        + _rows(("Status", "Body", "Meaning"), responses)
        + "</details>"
    )


@cache
def docs_page() -> str:
    """Return the page: every endpoint, then every model."""
    described = document()
    parts: dict[str, str] = {"read": "", "track": "", "admin": ""}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts[operation["tags"][0]] += _operation_part(path, method, operation)
    models = ""
    for name, schema in sorted(described["components"]["schemas"].items()):
        rows = [
            (
                f"<code>{html.escape(field)}</code>",
                _kind(kind),
                _text(kind.get("description", "")),
            )
            for field, kind in schema.get("properties", {}).items()
        ]
        models += (
            f'<details id="{name}" open><summary><code>{name}</code> <span class="muted">'
            f"{_text(schema.get('description', ''))}</span></summary>"
            f"{_rows(('Field', 'Kind', 'Meaning'), rows)}</details>"
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>ghl-exporter API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>ghl-exporter API</h1>"
        "<p>Send <code>Authorization: Bearer &lt;key&gt;</code>. Whoever runs the service makes"
        " keys with <code>ghl-exporter keys create</code>. For programs:"
        ' <a href="/openapi.json"><code>/openapi.json</code></a>.</p>'
        f"<h2>Read</h2>{parts['read']}<h2>Track</h2>{parts['track']}"
        f"<h2>Administer</h2>{parts['admin']}"
        f"<h2>Models</h2>{models}</body></html>"
    )


class ApiDocs:
    """The handlers of the description."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/openapi.json", self.openapi), web.get("/docs", self.page)]

    async def openapi(self, request: web.Request) -> web.Response:
        """The API as OpenAPI 3.1, for programs. Needs no key."""
        del request
        return web.Response(body=orjson.dumps(document()), content_type="application/json")

    async def page(self, request: web.Request) -> web.Response:
        """The API for people. Needs no key."""
        del request
        return web.Response(
            text=docs_page(),
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )
