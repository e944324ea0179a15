"""Drive the projection without the service: store, project, look at what came out."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import orjson
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from exporter.api.responses import files_of
from exporter.domain.envelope import Envelope, read_call, read_opportunity, read_webhook
from exporter.domain.event import BACKFILL, GHL, PLATFORM, InboxEvent
from exporter.inbox.store import insert_events
from exporter.kpis.definitions import answered_kpis
from exporter.kpis.refresh import query_kpi
from exporter.kpis.snapshot import Rendered, render
from exporter.kpis.windows import windows
from exporter.projection.fact_settings import FactSettings
from exporter.projection.projector import Projector
from exporter.projection.rebuild import DERIVED_TABLES
from exporter.settings import Settings
from exporter.telemetry.metrics import LiveMetrics

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def received(raw: bytes, endpoint: str, received_at: datetime) -> InboxEvent:
    """Return a webhook as the receiver stores it. `endpoint`: `ghl` or `ghl/<EventName>`."""
    address = endpoint.partition("/")[2]
    envelope = read_webhook(raw, address)
    return InboxEvent(
        envelope.location_id,
        GHL,
        address,
        envelope.event_type,
        envelope.idempotency_key,
        "test",
        received_at,
        raw,
    )


def tracked(body: dict[str, Any], call: str, received_at: datetime) -> InboxEvent:
    """Return a tracking call as the receiver stores it."""
    raw = orjson.dumps(body)
    return _own(PLATFORM, call, read_call(call, raw, body), raw, received_at)


def found(body: dict[str, Any], received_at: datetime) -> InboxEvent:
    """Return an opportunity that back-filling found, as it is stored."""
    raw = orjson.dumps(body)
    return _own(BACKFILL, "opportunity", read_opportunity(body), raw, received_at)


def _own(
    source: str, endpoint: str, envelope: Envelope, raw: bytes, received_at: datetime
) -> InboxEvent:
    return InboxEvent(
        envelope.location_id,
        source,
        endpoint,
        envelope.event_type,
        envelope.idempotency_key,
        "test",
        received_at,
        raw,
    )


async def store(connection: asyncpg.Connection, events: Sequence[InboxEvent]) -> None:
    """Store the events in one commit."""
    await insert_events(connection, events)


async def project_all(
    connection: asyncpg.Connection, settings: Settings, batch_size: int = 500
) -> None:
    """Project until nothing is pending."""
    projector = Projector(
        connection, FactSettings.from_settings(settings), LiveMetrics(), batch_size
    )
    while await projector.step():
        pass


async def dump(connection: asyncpg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every derived table. Inbox ids hang on arrival and are left out."""
    tables = {}
    for table in DERIVED_TABLES:
        rows = [dict(row) for row in await connection.fetch(f"SELECT * FROM {table}")]
        for row in rows:
            if table == "quarantine":
                del row["id"]
        tables[table] = sorted((tuple(row.values()) for row in rows), key=repr)
    return tables


async def clear(connection: asyncpg.Connection) -> None:
    """Empty the inbox and everything that follows from it."""
    tables = ("inbox", "inbox_keys", "inbox_pending", "projection_state", *DERIVED_TABLES)
    await connection.execute(f"TRUNCATE {', '.join(tables)}")


async def kpis(
    connection: asyncpg.Connection,
    settings: Settings,
    locations: Iterable[str],
    *,
    until: date,
    days: int,
    now: datetime = NOW,
) -> dict[str, dict[str, float]]:
    """Return location → KPI → value, keyed as the cases are: labels by name, no window."""
    values: dict[str, dict[str, float]] = {location: {} for location in locations}
    chosen = windows(settings, values, now=now, until=until, days=(days,))
    for kpi in answered_kpis():
        rows = await query_kpi(connection, kpi, chosen, settings=settings, now=now, timeout=30)
        for family in parse(render(kpi, rows, settings.agent_series_limit)):
            for sample in family.samples:
                location = sample.labels["location"]
                left = sorted(set(sample.labels) - {"location", "window"})
                labels = ",".join(f'{name}="{sample.labels[name]}"' for name in left)
                key = f"{sample.name}{{{labels}}}" if labels else sample.name
                values[location][key] = sample.value
    return values


def parse(rendered: Rendered) -> list[Metric]:
    """Read what a KPI is rendered to, as Prometheus would."""
    assert not rendered.dropped
    text = "".join(samples for _, samples in rendered.families)
    return list(text_string_to_metric_families(text))


def rest_values(endpoint: str, answer: dict[str, Any]) -> dict[str, float | None]:
    """Return an endpoint's figures, keyed as the cases are."""
    values: dict[str, float | None] = {}

    def note(name: str, labels: Sequence[str], figure: Any, told: dict[str, str]) -> None:
        if labels:
            for value, part in figure.items():
                note(name, labels[1:], part, {**told, labels[0]: value})
            return
        text = ",".join(f'{label}="{told[label]}"' for label in sorted(told))
        values[f"{name}{{{text}}}" if text else name] = figure

    for kpi in files_of(endpoint):
        for metric in kpi.metric:
            own = [name for name in kpi.labels if name not in ("location", "window")]
            more = [metric.label] if metric.label else []
            if kpi.ranked:
                for agent in answer["agents"]:
                    note(metric.name, more, agent[metric.name], {"agent": agent["agent"]})
            else:
                note(metric.name, own + more, answer["figures"][metric.name], {})
    return values
