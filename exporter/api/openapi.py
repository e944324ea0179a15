"""The API's description (OpenAPI 3.1), from the models that it checks and answers by."""

import inspect
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from exporter import __version__
from exporter.api.dashboard import Dashboard
from exporter.api.erase import ErasedLocation, EraseQuery, Erasing
from exporter.api.export import CSV_TYPE, XLSX_TYPE
from exporter.api.health import HealthReport
from exporter.api.parameters import AgentsQuery, DashboardQuery, ExplainQuery, Query
from exporter.api.read import BASE, Reading
from exporter.api.responses import ENDPOINTS, Explanation, Health, files_of, kpi_model
from exporter.api.track import MOST_CALLS, Tracking
from exporter.domain.call_models import MODELS
from exporter.kpis.definitions import answered_kpis

_REF = "#/components/schemas/{model}"
_PROBLEMS = {
    "400": "The request can't be read.",
    "401": "The key is missing, unknown or revoked; or no key was ever created.",
    "403": "The key lacks the scope, or may not see the location.",
    "404": "Nothing was ever told of this location, or there is no such KPI.",
    "409": "A rebuild runs: ask again when it has ended.",
    "413": "The body is larger than it may be.",
    "422": "A parameter or a field is wrong; `errors` names each.",
    "429": "The key, or an address without a good key, calls too often, or a call could not be"
    " stored in time: wait `Retry-After`.",
    "503": "PostgreSQL is away: wait `Retry-After`.",
}
_READ_PROBLEMS = ("400", "401", "403", "404", "422", "429", "503")
_TRACK_PROBLEMS = ("400", "401", "403", "413", "422", "429", "503")


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 has it."""

    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


class Tracked(BaseModel):
    """How many calls were stored, and how."""

    stored: int
    duplicate: int
    spooled: int
    tracking_id: str | None = None
    tracking_ids: list[str] | None = None


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _problems(statuses: tuple[str, ...]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _ref(ProblemDetails)}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in statuses}


def _parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema()
    required = set(schema.get("required", ()))
    found: list[dict[str, Any]] = []
    for name, field in schema["properties"].items():
        description = field.pop("description", "")
        field.pop("title", None)
        # A parameter that is not given is left out; there is no null in a query.
        kinds = [kind for kind in field.pop("anyOf", ()) if kind.get("type") != "null"]
        if field.get("default", ...) is None:
            del field["default"]
        one = {"name": name, "in": "query", "required": name in required}
        found.append({**one, "description": description, "schema": {**field, **dict(*kinds)}})
    return found


def _operation(handler: Any, tag: str, **more: Any) -> dict[str, Any]:
    summary, _, text = (inspect.getdoc(handler) or "").partition("\n")
    return {"tags": [tag], "summary": summary.rstrip("."), "description": text.strip(), **more}


def _reading(
    handler: Any, name: str, query: type[Query], model: type[BaseModel], **more: Any
) -> dict[str, Any]:
    kinds: dict[str, Any] = {"application/json": {"schema": _ref(model)}}
    if "format" in query.model_fields:
        kinds[CSV_TYPE.partition(";")[0]] = {"schema": {"type": "string"}}
        kinds[XLSX_TYPE] = {"schema": {"type": "string", "format": "binary"}}
    place = "kpi" if query is ExplainQuery else "location_id"
    at: dict[str, Any] = {"type": "string", "minLength": 1}
    if place == "kpi":
        at["enum"] = sorted(metric.name for kpi in answered_kpis() for metric in kpi.metric)
    responses = {
        "200": {"description": "The answer.", "content": kinds},
        "304": {"description": "What the asker has (`If-None-Match`) is current."},
        **_problems(_READ_PROBLEMS),
    }
    path = {"name": place, "in": "path", "required": True, "schema": at}
    return _operation(
        handler,
        "read",
        operationId=name,
        parameters=[path, *_parameters(query)],
        responses=responses,
        **more,
    )


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    paths: dict[str, Any] = {}
    at = "{location_id}"
    for name, handler in (("dashboard", Reading.dashboard), ("summary", Reading.summary)):
        paths[f"{BASE}/{name}/{at}"] = {"get": _reading(handler, name, DashboardQuery, Dashboard)}
    answers: list[type[BaseModel]] = [
        *(Dashboard, Explanation, Health, ErasedLocation, ProblemDetails, Tracked)
    ]
    for name, about in ENDPOINTS.items():
        query = AgentsQuery if any(kpi.ranked for kpi in files_of(name)) else Query
        model = kpi_model(name)
        answers.append(model)
        operation = {**_reading(Reading.kpis, name, query, model), "summary": about.rstrip(".")}
        paths[f"{BASE}/{name}/{at}"] = {"get": operation}
    paths[f"{BASE}/explain/{{kpi}}"] = {
        "get": _reading(Reading.explain, "explain", ExplainQuery, Explanation)
    }
    health = {"200": {"description": "How it is.", "content": _json(_ref(Health))}}
    paths[f"{BASE}/health"] = {
        "get": _operation(
            HealthReport.health,
            "read",
            operationId="health",
            responses={**health, **_problems(("400", "401", "403", "429", "503"))},
        )
    }
    at_location = {"type": "string", "minLength": 1}
    place = {"name": "location_id", "in": "path", "required": True, "schema": at_location}
    erased = {"description": "What was deleted.", "content": _json(_ref(ErasedLocation))}
    paths[f"{BASE}/locations/{at}"] = {
        "delete": _operation(
            Erasing.erase,
            "admin",
            operationId="erase",
            parameters=[place, *_parameters(EraseQuery)],
            responses={
                "200": erased,
                **_problems(("400", "401", "403", "404", "409", "422", "429", "503")),
            },
        )
    }
    for name, call in MODELS.items():
        several = {"type": "array", "items": _ref(call), "minItems": 1, "maxItems": MOST_CALLS}
        body = {"required": True, "content": _json({"anyOf": [_ref(call), several]})}
        stored = {"content": _json(_ref(Tracked))}
        responses = {
            "200": {"description": "All of it is in PostgreSQL.", **stored},
            "202": {"description": "Some of it waits on the local disk for PostgreSQL.", **stored},
            **_problems(_TRACK_PROBLEMS),
        }
        operation = _operation(
            Tracking.track, "track", operationId=name, requestBody=body, responses=responses
        )
        about = (inspect.getdoc(call) or "").partition("\n")[0].rstrip(".")
        paths[f"{BASE}/track/{name}"] = {"post": {**operation, "summary": about}}
    _, calls = models_json_schema([(c, "validation") for c in MODELS.values()], ref_template=_REF)
    _, said = models_json_schema([(a, "serialization") for a in answers], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ghl-exporter",
            "version": __version__,
            "description": "What the AI platform tells, and what it can ask. Keys: `ghl-exporter "
            "keys create --name NAME --scopes read,track --locations '*'`.",
        },
        "paths": paths,
        "components": {
            "schemas": {**calls["$defs"], **said["$defs"]},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
