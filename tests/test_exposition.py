"""/metrics as Prometheus and people ask for it."""

import gzip
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from exporter.demo.servers import Prometheus
from exporter.domain.ghl_events import KNOWN_EVENTS
from exporter.http.gzip_member import compress_first, gzip_member
from exporter.inbox.inbox import Inbox
from exporter.service.app import create_app
from exporter.settings import load_settings
from tests.conftest import MakeService, Service, Signer, wait_until
from tests.sender import Sender, contact

# What Prometheus sends.
SCRAPE = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def ask(service: Service, **headers: str) -> tuple[str, str, bytes]:
    """Return content type, content encoding and body."""
    request = urllib.request.Request(
        f"{service.url}/metrics", headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.headers["Content-Encoding"], answer.read()


@pytest.fixture
async def service(
    make_service: MakeService, database_url: str, signer: Signer, connection: asyncpg.Connection
) -> Service:
    """A service with a contact's KPIs on its page."""
    made = make_service(database_url=database_url, kpi_interval="0.3")
    made.start()
    added = datetime.now(UTC).isoformat()
    assert (await Sender(made.port, signer).send(contact(dateAdded=added))).taken

    def leads() -> float:
        return sum(v for k, v in made.metrics().items() if k.startswith("ghl_leads_created{"))

    await wait_until(leads, 15)
    return made


async def test_is_clean_for_promtool(service: Service) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool")
    _, _, body = ask(service)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_both_formats_say_the_same(service: Service) -> None:
    kind, _, plain = ask(service, Accept="text/plain")
    assert kind.startswith("text/plain; version=0.0.4")
    kind, _, openmetrics = ask(service, Accept=SCRAPE)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.count(b"# EOF") == 1
    assert openmetrics.endswith(b"# EOF\n")
    names = {sample.name for family in parse_plain(plain.decode()) for sample in family.samples}
    assert names == {
        sample.name
        for family in parse_openmetrics(openmetrics.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    assert {"ghl_leads_created", "ghl_webhooks_processed", "ghl_stage_contacts"} <= names


def test_openmetrics_only_where_it_is_wanted(make_service: MakeService) -> None:
    service = make_service(database_url="postgresql://127.0.0.1:1/none")
    service.start()
    for accept, openmetrics in (
        (SCRAPE, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0, text/plain", False),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.5", False),
        ("text/plain;q=0.3, application/openmetrics-text;version=1.0.0;q=0.5", True),
        ("application/openmetrics-text;q=nonsense", True),
        ("application/openmetrics-text-of-somebody-else", False),
        ("*/*", False),
        ("", False),
    ):
        kind, _, body = ask(service, Accept=accept)
        assert kind.startswith("application/openmetrics-text") == openmetrics, accept
        assert body.endswith(b"# EOF\n") == openmetrics, accept


@pytest.mark.parametrize("accept", ["text/plain", SCRAPE])
async def test_compressed_it_is_the_same_text(service: Service, accept: str) -> None:
    _, encoding, body = ask(service, Accept=accept, Accept_Encoding="br, gzip")
    assert encoding == "gzip"
    _, none, plain = ask(service, Accept=accept, Accept_Encoding="gzip;q=0")
    assert none is None

    def kpis(text: bytes) -> list[bytes]:
        return [
            line
            for line in text.splitlines()
            if line.startswith(b"ghl_") and not line.startswith(b"ghl_exporter_")
        ]

    # One member, for browsers and other clients read no more than the first.
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    text = inflate.decompress(body)
    assert inflate.eof
    assert not inflate.unused_data
    assert text == gzip.decompress(body)
    assert kpis(text) == kpis(plain)
    assert text.endswith(b"# EOF\n") == (accept == SCRAPE)
    assert len(body) < len(text) / 3


ACCEPT_ENCODING = {
    "gzip": True,
    "GZIP": True,
    "x-gzip": True,
    "gzip, deflate, br, zstd": True,
    "br;q=1.0, gzip;q=0.2": True,
    "gzip ; q=0.001": True,
    "*": True,
    "identity, *;q=0.5": True,
    "gzip;q=0": False,
    "gzip;q=0.000, *": False,
    "*;q=0": False,
    "identity": False,
    "br": False,
    "deflate;q=0.5, gzip;q=0": False,
    "": False,
}


async def test_it_is_compressed_for_those_who_accept_it(service: Service) -> None:
    for accepted, compressed in ACCEPT_ENCODING.items():
        _, encoding, body = ask(service, Accept_Encoding=accepted)
        assert encoding == ("gzip" if compressed else None), accepted
        assert body.startswith(b"\x1f\x8b") == compressed
        text = gzip.decompress(body) if compressed else body
        assert b"ghl_exporter_build_info" in text


@given(st.binary(max_size=2_000), st.binary(max_size=2_000))
def test_two_parts_make_one_gzip_member(first: bytes, rest: bytes) -> None:
    member = gzip_member(compress_first(first), rest)
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert inflate.decompress(member) == first + rest
    assert inflate.eof
    assert not inflate.unused_data


def test_every_child_is_there_at_0_and_no_database_is_needed(make_service: MakeService) -> None:
    service = make_service(
        database_url="postgresql://127.0.0.1:1/none", ghl_location_id="loc-a,loc-b"
    )
    service.start()
    metrics = service.metrics()
    assert metrics["ghl_exporter_database_up"] == 0
    assert "ghl_exporter_redis_up" not in metrics
    for event in (*KNOWN_EVENTS, "other"):
        assert metrics[f'ghl_exporter_webhooks_received_total{{event="{event}"}}'] == 0
    for location in ("loc-a", "loc-b", "other", "none"):
        assert metrics[f'ghl_exporter_webhooks_by_location_total{{location="{location}"}}'] == 0
        for outcome in ("success", "quarantined", "refused"):
            finished = f'{{location="{location}",outcome="{outcome}"}}'
            assert metrics[f"ghl_exporter_webhooks_finished_total{finished}"] == 0
    for source in ("ghl", "workflow"):
        for outcome in ("stored", "duplicate", "spooled", "refused"):
            name = f'ghl_exporter_webhooks_total{{outcome="{outcome}",source="{source}"}}'
            assert metrics[name] == 0
    for reason in ("signature_missing", "signature_invalid", "secret_invalid", "too_large"):
        assert metrics[f'ghl_exporter_webhooks_rejected_total{{reason="{reason}"}}'] == 0
    for label in ("event", "location"):
        assert metrics[f'ghl_exporter_label_values_cut_total{{label="{label}"}}'] == 0
    assert metrics['ghl_exporter_kpi_last_success_timestamp_seconds{kpi="leads_and_revenue"}'] == 0
    assert metrics['ghl_exporter_kpi_refresh_failures_total{kpi="leads_and_revenue"}'] == 0
    # The objective is counted from this bucket.
    assert metrics['ghl_exporter_webhook_request_duration_seconds_bucket{le="1.0"}'] == 0


async def test_made_up_events_and_locations_do_not_become_labels(
    make_service: MakeService, database_url: str, signer: Signer
) -> None:
    service = make_service(database_url=database_url, location_series_limit=3)
    service.start()
    sender = Sender(service.port, signer)
    for number in range(20):
        body = contact(type=f"MadeUp{number}", locationId=f"made-up-{number}")
        assert (await sender.send(body)).taken
    metrics = service.metrics()
    events = [name for name in metrics if name.startswith("ghl_exporter_webhooks_received_total{")]
    assert len(events) == len(KNOWN_EVENTS) + 1
    assert metrics['ghl_exporter_webhooks_received_total{event="other"}'] == 20
    locations = [name for name in metrics if name.startswith("ghl_exporter_webhooks_by_location")]
    assert len(locations) == 3 + 2
    assert metrics['ghl_exporter_webhooks_by_location_total{location="other"}'] == 17
    assert metrics['ghl_exporter_label_values_cut_total{label="event"}'] == 20
    assert metrics['ghl_exporter_label_values_cut_total{label="location"}'] >= 17


async def test_what_became_of_a_webhook_is_told_by_location_and_event(
    make_service: MakeService, database_url: str, signer: Signer
) -> None:
    service = make_service(
        database_url=database_url, location_names='{"loc": "Home"}', currencies='{"*": "EUR"}'
    )
    service.start()
    sender = Sender(service.port, signer)
    assert (await sender.send(contact(locationId="loc"))).taken
    without_id = b'{"type":"ContactCreate","locationId":"loc","webhookId":"w-2"}'
    assert (await sender.send(without_id)).taken
    assert (await sender.send(without_id)).taken

    def finished(**labels: str) -> float | None:
        name = "finished_by_event" if "event" in labels else "finished"
        told = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return service.metrics().get(f"ghl_exporter_webhooks_{name}_total{{{told}}}")

    await wait_until(lambda: finished(location="loc", outcome="quarantined") == 1)
    assert finished(location="loc", outcome="success") == 1
    assert finished(event="ContactCreate", outcome="success") == 1
    assert finished(event="ContactCreate", outcome="quarantined") == 1
    named = 'ghl_location_info{location="loc",name="Home",currency="EUR",time_zone="UTC"}'
    await wait_until(lambda: service.metrics().get(named) == 1)
    # Known from before, they are there at 0: an increase from nothing would not be seen.
    service.stop()
    service.start()
    await wait_until(lambda: finished(location="loc", outcome="refused") == 0)


async def test_prometheus_scrapes_it(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not Prometheus.available():
        pytest.skip("needs prometheus")
    target = service.url.removeprefix("http://")
    config = (
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: ghl-exporter\n"
        f"    static_configs: [{{targets: ['{target}']}}]\n"
    )
    with Prometheus(tmp_path_factory.mktemp("prometheus"), config=config) as prometheus:
        value = _query(prometheus.url())
        deadline = time.monotonic() + 20
        while value('sum(ghl_leads_created{window="30d"})') != 1:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert value('up{job="ghl-exporter"}') == 1
        assert value("sum(ghl_exporter_webhooks_total)") == 1
        assert value('ghl_exporter_webhook_request_duration_seconds_bucket{le="1.0"}') == 1
        assert value("count(ghl_exporter_build_info)") == 1


def _query(url: str) -> Callable[[str], float | None]:
    def value(expression: str) -> float | None:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    return value


async def test_a_fault_of_our_own_is_a_refusal_that_counts(
    database_url: str,
    signer: Signer,
    tmp_path: Path,
    aiohttp_client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings(
        database_url=database_url,
        spool_path=tmp_path / "spool.sqlite3",
        ghl_public_keys=signer.pem,
        ghl_location_id="loc",
    )
    client = await aiohttp_client(create_app(settings))

    async def break_off(*_: object, **__: object) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(Inbox, "accept", break_off)
    body = contact(locationId="loc")
    async with client.post("/webhooks/ghl", data=body, headers=signer.headers(body)) as response:
        assert response.status == 429
        assert response.headers["Retry-After"]
    async with client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    assert 'ghl_exporter_webhooks_total{outcome="refused",source="ghl"} 1.0' in lines
    finished = 'ghl_exporter_webhooks_finished_total{location="loc",outcome="refused"} 1.0'
    assert finished in lines
