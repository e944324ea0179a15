"""Random streams: any order, duplicates, batches and crashes give the same facts and KPIs."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as hypothesis_settings

from exporter.database.connect import connect
from exporter.demo.servers import EmbeddedPostgres
from exporter.domain.event import InboxEvent
from exporter.projection import projector
from exporter.projection.batch import project_batch
from exporter.projection.fact_settings import FactSettings
from exporter.projection.rebuild import rebuild
from exporter.settings import Settings, load_settings
from exporter.telemetry.metrics import LiveMetrics
from tests import oracle
from tests.conftest import TEMPLATE, make_template
from tests.projecting import NOW, clear, dump, kpis, project_all, received, store, tracked
from tests.projecting import found as found_by_backfill
from tests.streams import Delivery, Stream, streams

# Each example is one of a kind: more of them cost time, not code.
EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "60"))
RANDOM = hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Bench:
    """One loop and one connection for all the examples of a test."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._server = server
        self._name = name
        self.connection, self.reader = self.run(self._open())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def _open(self) -> tuple[asyncpg.Connection, asyncpg.Connection]:
        admin = await asyncpg.connect(self._server.url())
        await admin.execute(f"CREATE DATABASE {self._name} TEMPLATE {TEMPLATE}")
        await admin.close()
        chosen = load_settings(database_url=self._server.url(self._name))
        first, second = await connect(chosen, "test"), await connect(chosen, "reader")
        return first, second

    def close(self) -> None:
        self.run(self.connection.close())
        self.run(self.reader.close())
        self.loop.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that does not wait for the disk: thousands of commits, and no crash of it."""
    made = EmbeddedPostgres(tmp_path_factory.mktemp("random"), settings={"fsync": "off"})
    with made:
        asyncio.run(make_template(made))
        yield made


@pytest.fixture
def bench(server: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(server, f"random_{abs(hash(request.node.name)) % 10**8}_{os.getpid()}")
    yield made
    made.close()


def _settings(stream: Stream) -> Settings:
    names = {name.lower(): value for name, value in stream.settings.items()}
    return load_settings(time_zones=stream.zones, **names)


def _events(stream: Stream) -> list[Any]:
    return [_event(delivery) for delivery in stream.events]


def _event(delivery: Delivery) -> InboxEvent:
    if delivery.kind == "ghl":
        return received(delivery.raw, delivery.endpoint, delivery.received_at)
    body = delivery.body
    assert body is not None
    if delivery.kind == "backfill":
        return found_by_backfill(body, delivery.received_at)
    return tracked(body, delivery.endpoint, delivery.received_at)


@RANDOM
@given(stream=streams(), days=strategies.integers(1, 10), until=strategies.integers(-1, 4))
def test_kpis_equal_those_of_the_naive_computation(
    bench: Bench, stream: Stream, days: int, until: int
) -> None:
    last = stream.day + timedelta(until)
    chosen = _settings(stream)

    async def compute() -> dict[str, dict[str, float]]:
        await clear(bench.connection)
        for event in _events(stream):
            await store(bench.connection, [event])
        await project_all(bench.connection, chosen, batch_size=7)
        return await kpis(bench.connection, chosen, stream.zones, until=last, days=days)

    found = bench.run(compute())
    given_names = {name.lower(): value for name, value in stream.settings.items()}
    for location in stream.zones:
        expected = oracle.kpis(
            stream.readable(),
            location=location,
            zone=chosen.zone(location),
            until=last,
            days=days,
            now=NOW,
            **given_names,
        )
        different = {
            kpi: (got, wanted)
            for kpi in found[location].keys() | expected.keys()
            if not _same(got := found[location].get(kpi), wanted := expected.get(kpi))
        }
        assert not different, different


SCORES = strategies.lists(
    strategies.tuples(
        strategies.sampled_from((None, 0, 0.1, 0.1, 50, 80.5, 1e15, -3)), strategies.booleans()
    ),
    min_size=25,
    max_size=45,
)


@RANDOM
@given(scores=SCORES)
def test_correlations_equal_those_of_the_definition(
    bench: Bench, scores: list[tuple[float | None, bool]]
) -> None:
    """Of leads' scores with deals, and of recommendations' with acceptance."""
    at = datetime(2026, 2, 1, 12, tzinfo=UTC)
    calls: list[tuple[str, dict[str, Any]]] = []
    for n, (score, good) in enumerate(scores):
        lead = {"contact_id": f"lead-{n}", "stage": "lead_created", "ai_score": score}
        calls.append(("conversion", lead))
        told = {"recommendation_id": f"rec-{n}", "recommendation_score": score}
        calls.append(("property-recommendation", told))
        if good:
            closed = {"contact_id": f"lead-{n}", "stage": "deal_closed"}
            calls.append(("conversion", closed))
            liked = {"recommendation_id": f"rec-{n}", "interaction_type": "liked"}
            calls.append(("property-interaction", liked))
    events = [
        oracle.Event(
            "track",
            call,
            {
                **body,
                "location_id": "loc",
                "occurred_at": (at + timedelta(seconds=n)).isoformat(),
                "idempotency_key": str(n),
            },
            at,
        )
        for n, (call, body) in enumerate(calls)
    ]
    chosen = load_settings()

    async def compute() -> dict[str, dict[str, float]]:
        await clear(bench.connection)
        await store(bench.connection, [tracked(e.body, e.endpoint, e.received_at) for e in events])
        await project_all(bench.connection, chosen)
        return await kpis(bench.connection, chosen, ["loc"], until=at.date(), days=1)

    found = bench.run(compute())["loc"]
    expected = oracle.kpis(
        events, location="loc", zone=chosen.zone("loc"), until=at.date(), days=1, now=NOW
    )
    for kpi in (
        "ghl_ai_score_correlation",
        "ghl_ai_score_auc",
        "ghl_recommendation_confidence_correlation",
    ):
        assert _same(found.get(kpi), expected.get(kpi)), (kpi, found.get(kpi), expected.get(kpi))


def _same(got: float | None, wanted: float | None) -> bool:
    if got is None or wanted is None:
        return got is wanted
    return got == pytest.approx(wanted, rel=1e-9)


@RANDOM
@given(stream=streams(), seed=strategies.integers(0, 2**32))
def test_order_duplicates_batches_and_crashes_change_nothing(
    bench: Bench, stream: Stream, seed: int
) -> None:
    chosen = _settings(stream)
    random = Random(seed)
    unique = {event.key: event for event in reversed(_events(stream))}
    events = list(unique.values())

    async def plain() -> dict[str, Any]:
        await clear(bench.connection)
        await store(bench.connection, events)
        await project_all(bench.connection, chosen)
        return await dump(bench.connection)

    async def troubled() -> dict[str, Any]:
        await clear(bench.connection)
        order = events + random.choices(events, k=len(events) // 2) if events else []
        random.shuffle(order)
        while order:
            size = random.randint(1, 9)
            batch, order = order[:size], order[size:]
            await store(bench.connection, batch)
            if random.random() < 0.3:
                await _crash(bench.connection, chosen, random)
            if random.random() < 0.5:
                await project_all(bench.connection, chosen, random.randint(1, 8))
        await project_all(bench.connection, chosen, random.randint(1, 8))
        return await dump(bench.connection)

    expected = bench.run(plain())
    found = bench.run(troubled())
    assert {table: rows for table, rows in found.items() if rows != expected[table]} == {}
    report = bench.run(rebuild(bench.connection, bench.reader, FactSettings.from_settings(chosen)))
    assert not any(report.differences.values()), report.differences
    assert bench.run(dump(bench.connection)) == expected


class _Crash(OSError):
    """The connection is lost in the middle of a projection transaction."""


async def _crash(connection: asyncpg.Connection, chosen: Settings, random: Random) -> None:
    """Lose the transaction after a random part of its statements."""
    left = random.randint(1, 12)
    real = project_batch

    async def dying(*arguments: Any) -> Any:
        result = await real(*arguments)
        raise _Crash(result)

    class Dying:
        def __getattr__(self, name: str) -> Any:
            nonlocal left
            if name in ("execute", "fetch", "fetchval"):
                left -= 1
                if left == 0:
                    raise _Crash
            return getattr(connection, name)

    opened: Any = Dying()
    crashing = projector.Projector(
        opened, FactSettings.from_settings(chosen), LiveMetrics(), random.randint(1, 8)
    )
    with suppress(_Crash), patch.object(projector, "project_batch", dying):
        await crashing.step()
