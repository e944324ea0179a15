"""The page at `/` and the probes, in the states that people meet."""

import html
import re
from html.parser import HTMLParser

import asyncpg

from exporter.demo.servers import EmbeddedValkey
from tests.conftest import MakeService, Service, Signer, wait_until
from tests.sender import Sender, contact
from tests.test_commands import command


class Balanced(HTMLParser):
    """Fails on a tag that is closed without being open, or stays open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def lines(service: Service) -> dict[str, str]:
    """Return the sentences of the page's state, with good, warn or bad, and the summary."""
    status, body = service.get("/")
    assert status == 200
    parser = Balanced()
    parser.feed(body.decode())
    assert parser.open == []
    found = re.findall(r'<li class="(good|warn|bad)">(.*?)</li>', body.decode())
    summary = re.search(r'<p class="summary">(.*?)</p>', body.decode())
    assert summary is not None
    banners = re.findall(r'<p class="banner" role="status">(.*?)</p>', body.decode())
    return {
        **{html.unescape(text): state for state, text in found},
        **{html.unescape(text): "banner" for text in banners},
        summary[1]: "summary",
    }


async def test_says_that_everything_works(
    make_service: MakeService, database_url: str, valkey: EmbeddedValkey, signer: Signer
) -> None:
    service = make_service(database_url=database_url, redis_url=valkey.url())
    service.start()
    assert (await Sender(service.port, signer).send(contact())).taken

    # An instance that does not lead yet has nothing to complain about either.
    def leads() -> bool:
        return service.metrics()["ghl_exporter_leader"] == 1

    await wait_until(leads)
    await wait_until(lambda: "Everything works." in lines(service))
    said = lines(service)
    assert any(text.startswith("The last webhook arrived ") for text in said)
    assert said["PostgreSQL takes commits."] == "good"
    assert said["Redis answers."] == "good"
    assert set(said.values()) == {"good", "summary"}, said
    assert service.get("/-/healthy") == (200, b"healthy\n")
    assert service.get("/-/ready") == (200, b"ready\n")


async def test_says_that_webhooks_wait_in_the_spool(
    make_service: MakeService, signer: Signer
) -> None:
    service = make_service(database_url="postgresql://127.0.0.1:1/none")
    service.start()
    for _ in range(3):
        assert (await Sender(service.port, signer).send(contact())).taken
    said = lines(service)
    assert said["Something is wrong, and webhooks are still taken."] == "summary"
    assert said["PostgreSQL is down; webhooks go to the local spool."] == "bad"
    assert said["Facts and KPIs are not updated until PostgreSQL is back."] == "warn"
    assert not any("become facts at once" in text for text in said)
    assert said["Webhooks that wait in the local spool: 3."] == "warn"
    status, text = service.get("/-/ready")
    assert (status, text) == (200, b"ready: PostgreSQL is down, webhooks go to the spool\n")


def test_says_that_webhooks_are_refused(make_service: MakeService) -> None:
    service = make_service(
        database_url="postgresql://127.0.0.1:1/none", spool_path="/proc/none/spool.sqlite3"
    )
    service.start()
    said = lines(service)
    refused = "Webhooks are refused: neither PostgreSQL nor the spool can store them."
    assert said[refused] == "summary"
    assert any(text.startswith("The local spool cannot be used: ") for text in said)
    status, text = service.get("/-/ready")
    assert (status, text) == (503, b"not ready: neither PostgreSQL nor the spool\n")
    assert service.get("/-/healthy")[0] == 200
    assert service.get("/metrics")[0] == 200


async def test_says_that_events_are_in_quarantine(
    make_service: MakeService, database_url: str, signer: Signer, connection: asyncpg.Connection
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    # Of a family that the KPIs read, and without its id.
    assert (await Sender(service.port, signer).send(contact(id=None))).taken
    sentence = "Events in quarantine: 1 (ghl-exporter replay)."
    await wait_until(lambda: sentence in lines(service))
    said = lines(service)
    assert said[sentence] == "warn"
    assert said["Working, with something to look at."] == "summary"
    assert await connection.fetchval("SELECT error FROM quarantine")


async def test_says_that_a_rebuild_is_due(
    make_service: MakeService, database_url: str, signer: Signer
) -> None:
    before = make_service(database_url=database_url)
    before.start()
    # The leader notes its rules before it computes anything.
    name = 'ghl_exporter_kpi_last_success_timestamp_seconds{kpi="win_ratio"}'
    await wait_until(lambda: before.metrics()[name])
    before.stop()
    after = make_service(database_url=database_url, time_zones='{"*": "Europe/Berlin"}')
    after.start()
    sentence = (
        "Figures are not final, and there is no grade:"
        " they are by other settings, or an older version, until ghl-exporter rebuild."
    )
    await wait_until(lambda: lines(after).get(sentence) == "banner")
    assert after.metrics()["ghl_exporter_rebuild_due"] == 1
    done = command("rebuild", database_url=database_url, time_zones='{"*": "Europe/Berlin"}')
    assert done.returncode == 0, done.stderr
    await wait_until(lambda: sentence not in lines(after), 15)


def test_the_page_runs_nothing_of_anybody_elses(make_service: MakeService) -> None:
    service = make_service(database_url="postgresql://127.0.0.1:1/none")
    service.start()
    _, body = service.get("/")
    assert b"<script" not in body
    assert b"http://" not in body
    assert b"https://" not in body
