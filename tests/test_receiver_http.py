"""The way in over HTTP: the service as a process, spoken to over plain sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest

from exporter.demo.servers import EmbeddedPostgres

from .conftest import SHARED, MakeService, Service, Signer, needs_shared, wait_until
from .sender import (
    GHL_PATH,
    Answer,
    Sender,
    connected,
    contact,
    exchange,
    head,
    new_database,
    parse,
    running_service,
)

SECRET = "s3cret-of-the-workflows"
WORKFLOW_PATH = "/webhooks/workflow"


@pytest.fixture(scope="module")
def url(postgres: EmbeddedPostgres) -> str:
    return asyncio.run(new_database(postgres))


@pytest.fixture(scope="module")
def service(
    url: str, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    with running_service(directory, signer, database_url=url, ghl_webhook_secret=SECRET) as running:
        yield running


@pytest.fixture
async def db(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def sender(service: Service, signer: Signer, db: asyncpg.Connection) -> AsyncIterator[Sender]:
    """Whatever a test sends: what was answered 2xx is in the inbox, once."""
    made = Sender(service.port, signer)
    yield made
    assert not await made.missing(db)


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json()["title"]


async def times_stored(db: asyncpg.Connection, body: bytes) -> int:
    return int(await db.fetchval("SELECT count(*) FROM inbox WHERE body = $1", body))


PATHS = {
    "": "",
    "/": "",
    "?source=marketplace": "",
    "/ContactCreate": "ContactCreate",
    "/ContactCreate/": "ContactCreate",
    "/my-own-name": "my-own-name",
    "/%C3%A9": "é",
    "/a%00b": "",
    "/%FF": "%FF",
    "/" + "x" * 300: "",
}


@pytest.mark.parametrize(("path", "endpoint"), PATHS.items(), ids=[path[:16] for path in PATHS])
async def test_every_address_takes_a_signed_webhook_without_a_redirect(
    sender: Sender, db: asyncpg.Connection, path: str, endpoint: str
) -> None:
    body = contact()
    answer = await sender.send(body, GHL_PATH + path)
    assert (answer.status, answer.json()) == (200, {"status": "stored"})
    assert answer.headers["content-type"] == "application/json"
    row = await db.fetchrow("SELECT * FROM inbox WHERE body = $1", body)
    assert row is not None
    assert (row["endpoint"], row["source"], row["location_id"]) == (endpoint, "ghl", "loc")


# Names of GHL's own pages that its prose and its samples write differently, or leave out.
PAGES = (
    "AppInstall AppPaymentStatus AppUninstall AppUpdate AssociationCreate AssociationDelete"
    " AssociationUpdate ConversationUpdate KnowledgeBaseCreate KnowledgeBaseFileChange PlanChange"
    " ProviderOutboundMessage SaaSPlanCreate SaasPlanCreate SupportTicketCreate"
)


@pytest.mark.parametrize("event", PAGES.split())
async def test_an_event_that_ghl_documents_is_counted_under_its_name(
    service: Service, sender: Sender, event: str
) -> None:
    counted = f'ghl_exporter_webhooks_received_total{{event="{event}"}}'
    cut = 'ghl_exporter_label_values_cut_total{label="event"}'
    before = service.metrics()
    body = orjson.dumps({"id": str(uuid4()), "locationId": "loc"})
    assert (await sender.send(body, f"{GHL_PATH}/{event}")).taken
    assert (await sender.send(contact(type=event))).taken
    after = service.metrics()
    assert after[counted] == before[counted] + 2
    assert after[cut] == before[cut]


@pytest.mark.parametrize("lines", [[], ["X-Location-Id: other"], ["X-Timestamp: 0"]], ids=str)
@pytest.mark.parametrize("path", ["/ContactDelete", "?type=ContactDelete&locationId=other", "/x"])
async def test_a_signed_body_sent_again_elsewhere_is_a_duplicate_and_nothing_else(
    sender: Sender, db: asyncpg.Connection, path: str, lines: list[str]
) -> None:
    body = orjson.dumps({"type": "ContactUpdate", "locationId": "loc", "id": str(uuid4())})
    assert (await sender.send(body)).json() == {"status": "stored"}
    more = [*lines, "X-Event-Type: ContactDelete", f"X-Webhook-Id: {uuid4()}"]
    opening = head(GHL_PATH + path, sender.signer.headers(body), *more, length=len(body))
    answer = await exchange(sender.port, opening + body)
    assert answer.json() == {"status": "duplicate"}
    rows = await db.fetch("SELECT location_id, event_type FROM inbox WHERE body = $1", body)
    assert [tuple(row) for row in rows] == [("loc", "ContactUpdate")]


NOT_SIGNED = {
    "no header": [],
    "N/A": ["X-GHL-Signature: N/A"],
    "empty": ["X-GHL-Signature:"],
    "only RSA": ["X-WH-Signature: AAAA"],
}
BADLY_SIGNED = {
    "zeros": ["X-GHL-Signature: " + "A" * 86 + "=="],
    "cut": ["X-GHL-Signature: AAAA"],
    "bytes": ["X-GHL-Signature: \udcff\udcfe"],
    "not ASCII": ["X-GHL-Signature: é"],
    "twice": ["X-GHL-Signature: AAAA", "X-GHL-Signature: BBBB"],
}


@pytest.mark.parametrize("lines", [*NOT_SIGNED.values(), *BADLY_SIGNED.values()], ids=str)
async def test_what_is_not_signed_is_answered_401_and_not_stored(
    service: Service, db: asyncpg.Connection, lines: list[str]
) -> None:
    body = contact()
    reason = "missing" if lines in NOT_SIGNED.values() else "invalid"
    series = f'ghl_exporter_webhooks_rejected_total{{reason="signature_{reason}"}}'
    before = service.metrics()[series]
    assert_problem(
        await exchange(service.port, head(GHL_PATH, {}, *lines, length=len(body)), body), 401
    )
    assert await times_stored(db, body) == 0
    assert service.metrics()[series] == before + 1


async def test_a_strangers_signature_and_one_of_another_body_are_answered_401(
    service: Service, sender: Sender
) -> None:
    stranger = Sender(service.port, Signer())
    assert_problem(await stranger.send(contact()), 401)
    other = sender.signer.headers(contact())
    assert_problem(await sender.send(contact(), headers=other), 401)


async def test_a_signature_header_given_twice_is_taken_only_where_both_agree(
    service: Service, sender: Sender
) -> None:
    body = contact()
    line = f"X-GHL-Signature: {sender.signer.headers(body)['X-GHL-Signature']}"
    disagreeing = head(GHL_PATH, {}, line, "X-GHL-Signature: N/A", length=len(body))
    assert_problem(await exchange(service.port, disagreeing, body), 401)
    agreeing = head(GHL_PATH, {}, line, line.lower().split(":")[0] + line[15:], length=len(body))
    answer = await exchange(service.port, agreeing, body)
    assert answer.taken
    sender.note(answer, body)


async def workflow(service: Service, body: bytes, *lines: str) -> Answer:
    return await exchange(service.port, head(WORKFLOW_PATH, {}, *lines, length=len(body)), body)


async def test_a_workflow_with_the_secret_is_taken_once(
    service: Service, db: asyncpg.Connection
) -> None:
    body = orjson.dumps({"contact_id": str(uuid4()), "location": {"id": "loc-w"}})
    line = f"X-Webhook-Secret: {SECRET}"
    first, again = [await workflow(service, body, line) for _ in range(2)]
    assert (first.json(), again.json()) == ({"status": "stored"}, {"status": "duplicate"})
    row = await db.fetchrow("SELECT * FROM inbox WHERE body = $1", body)
    assert row is not None
    assert (row["source"], row["location_id"]) == ("workflow", "loc-w")
    slash = await exchange(
        service.port, head(f"{WORKFLOW_PATH}/", {}, line, length=len(body)), body
    )
    assert slash.json() == {"status": "duplicate"}


# What the action "Webhook" sends by default, shortened, with the fields of several triggers.
WORKFLOW_BODY = {
    "contact_id": "c-w",
    "first_name": "Ada",
    "full_name": "Ada Example",
    "email": "ada@example.com",
    "tags": "buyer,hot",
    "country": "US",
    "date_created": "2026-02-03T09:43:55.000Z",
    "contact_source": "portal",
    "contact_type": "lead",
    "id": "opp-w",
    "opportunity_name": "Ada Example",
    "status": "open",
    "lead_value": 250000,
    "pipleline_stage": "New",
    "pipeline_id": "p-w",
    "pipeline_name": "Buyers",
    "location": {"name": "North", "city": "Springfield", "id": "loc-w"},
    "user": {"firstName": "Ann", "email": "ann@example.com"},
    "workflow": {"id": "w-1", "name": "New lead"},
    "triggerData": {},
    "contact": {"attributionSource": {"sessionSource": "Direct"}, "lastAttributionSource": {}},
    "attributionSource": {},
    "customData": {"campaign": "spring"},
}


async def test_the_default_body_of_a_workflow_makes_a_lead(
    service: Service, db: asyncpg.Connection
) -> None:
    line = f"X-Webhook-Secret: {SECRET}"
    for body in (
        WORKFLOW_BODY,
        {"location": {"id": "loc-w"}, "workflow": {"id": "w-1"}},  # of no contact: counted
    ):
        answer = await workflow(service, orjson.dumps({**body, "seen": str(uuid4())}), line)
        assert (answer.status, answer.json()) == (200, {"status": "stored"})

    async def settled() -> bool:
        return not await db.fetchval("SELECT count(*) FROM inbox_pending")

    await wait_until(settled)
    sql = "SELECT contact_id, created_day::text FROM contacts WHERE location_id = 'loc-w'"
    assert ("c-w", "2026-02-03") in [tuple(row) for row in await db.fetch(sql)]
    assert not await db.fetchval("SELECT count(*) FROM quarantine WHERE location_id = 'loc-w'")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"contact_id": "c", "location": {"name": "North"}}', "location.id"),
        (b"contact_id=c&location=x", "JSON object"),
    ],
)
async def test_a_workflow_that_lacks_something_is_told_what(
    service: Service, db: asyncpg.Connection, body: bytes, field: str
) -> None:
    answer = await workflow(service, body, f"X-Webhook-Secret: {SECRET}")
    assert_problem(answer, 422)
    assert field in answer.json()["detail"]
    assert await times_stored(db, body) == 0
    # Whoever does not know the secret learns nothing.
    assert_problem(await workflow(service, body, "X-Webhook-Secret: wrong"), 401)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["X-Webhook-Secret:"],
        ["X-Webhook-Secret: wrong"],
        [f"X-Webhook-Secret: {SECRET[:-1]}"],
        [f"X-Webhook-Secret: {SECRET}x"],
        [f"X-Webhook-Secret: {SECRET.upper()}"],
        ["X-Webhook-Secret: é\udcff"],
        [f"X-Webhook-Secret: {SECRET}", "X-Webhook-Secret: wrong"],
    ],
    ids=str,
)
async def test_a_workflow_without_the_secret_is_answered_401(
    service: Service, signer: Signer, db: asyncpg.Connection, lines: list[str]
) -> None:
    body = orjson.dumps({"contact_id": str(uuid4())})
    # A signature of GHL's opens nothing here.
    signature = f"X-GHL-Signature: {signer.headers(body)['X-GHL-Signature']}"
    assert_problem(await workflow(service, body, signature, *lines), 401)
    assert await times_stored(db, body) == 0


async def test_without_a_secret_in_the_settings_the_workflows_address_is_closed(
    make_service: MakeService, database_url: str
) -> None:
    service = make_service(database_url=database_url, ghl_webhook_secret="")
    service.start()
    for line in ("X-Webhook-Secret: x", "X-Webhook-Secret:", "X-Other: x"):
        assert_problem(await workflow(service, b"{}", line), 401)


@pytest.mark.parametrize("path", ["/nothing", "/webhooks", "/webhooks/ghl/a/b", "/webhooks/ghl//"])
async def test_an_unknown_path_is_a_problem_404(sender: Sender, path: str) -> None:
    assert_problem(await sender.send(contact(), path), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
async def test_another_method_is_a_problem_405_that_names_the_allowed_one(
    service: Service, method: str
) -> None:
    request = f"{method} {GHL_PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await exchange(service.port, request.encode())
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    if method != "HEAD":
        assert_problem(answer, 405)


async def test_the_same_webhook_twenty_times_at_one_moment_is_stored_once(
    sender: Sender, db: asyncpg.Connection
) -> None:
    body = contact()
    answers = await asyncio.gather(*(sender.send(body) for _ in range(20)))
    assert all(answer.taken for answer in answers)
    statuses = sorted(answer.json()["status"] for answer in answers)
    assert statuses == ["duplicate"] * 19 + ["stored"]
    assert await times_stored(db, body) == 1


async def test_the_same_webhook_id_with_another_body_is_a_duplicate(
    sender: Sender, db: asyncpg.Connection
) -> None:
    key = str(uuid4())
    bodies = [contact(webhookId=key, attempt=number) for number in range(3)]
    answers = [await sender.send(body) for body in bodies]
    assert [answer.json()["status"] for answer in answers] == ["stored", "duplicate", "duplicate"]
    rows = await db.fetch("SELECT body FROM inbox WHERE idempotency_key = $1", key)
    assert [row["body"] for row in rows] == bodies[:1]


@pytest.mark.parametrize("name", ["X-Correlation-ID", "X-Request-ID"])
async def test_a_correlation_id_is_echoed_stored_and_logged(
    service: Service, sender: Sender, db: asyncpg.Connection, name: str
) -> None:
    body, given = contact(), f"trace/{uuid4()}"
    answer = await sender.send(body, headers={name: given})
    assert answer.headers["x-correlation-id"] == given
    sql = "SELECT correlation_id FROM inbox WHERE body = $1"
    assert await db.fetchval(sql, body) == given
    await wait_until(lambda: [x for x in service.log_lines() if x.get("correlation_id") == given])


@pytest.mark.parametrize("given", ["", "a b", "<script>", "é", "x" * 129, 'a"b'])
async def test_an_unusable_correlation_id_is_replaced_by_one_of_ours(
    sender: Sender, db: asyncpg.Connection, given: str
) -> None:
    body = contact()
    answer = await sender.send(body, headers={"X-Correlation-ID": given})
    made = answer.headers["x-correlation-id"]
    assert made != given
    assert len(made) == 32
    sql = "SELECT correlation_id FROM inbox WHERE body = $1"
    assert await db.fetchval(sql, body) == made


async def test_each_webhook_is_one_log_line_without_personal_data(
    make_service: MakeService, database_url: str, signer: Signer
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    sender = Sender(service.port, signer)
    mark = uuid4().hex
    personal = {
        "firstName": f"name-{mark}",
        "email": f"{mark}@example.com",
        "phone": f"+49{int(mark[:9], 16)}",
        "message": {"body": f"text-{mark}"},
    }
    trace = f"log-{uuid4()}"
    correlation = {"X-Correlation-ID": trace}
    body = contact(**personal)
    await sender.send(body, f"{GHL_PATH}/ContactCreate?email={mark}@example.com", correlation)
    await sender.send(body, headers={**correlation, "X-GHL-Signature": "AAAA"})
    await sender.send(b'{"' + mark.encode(), headers=correlation)
    await sender.send(body, f"/webhooks/{mark}", correlation)

    def lines() -> list[dict[str, Any]]:
        return [line for line in service.log_lines() if line.get("correlation_id") == trace]

    await wait_until(lambda: len(lines()) == 3)
    taken, rejected, unreadable = lines()
    assert taken["event"] == "webhook"
    assert taken["outcome"] in {"stored", "spooled"}
    assert (taken["type"], taken["location"]) == ("ContactCreate", "loc")
    assert taken["key"] == json.loads(body)["webhookId"]
    assert taken["bytes"] == len(body)
    assert 0 < taken["seconds"] < 5
    assert (rejected["event"], rejected["counts"]) == ("requests_refused", {"signature_invalid": 1})
    assert rejected["client"] == "127.0.0.1"
    assert unreadable["type"] == "unreadable"
    log = service.log.read_text()
    assert mark not in log
    assert str(personal["phone"]) not in log


async def test_what_strangers_send_is_one_line_a_minute_with_counts(
    make_service: MakeService, database_url: str
) -> None:
    service = make_service(database_url=database_url)
    service.start()
    stranger = Sender(service.port, Signer())
    for _ in range(20):
        assert_problem(await stranger.send(contact()), 401)
        assert_problem(await exchange(service.port, head(GHL_PATH, {}, length=2) + b"{}"), 401)
    service.stop()
    refused = [line for line in service.log_lines() if line["event"] == "requests_refused"]
    assert [line["counts"] for line in refused] == [
        {"signature_invalid": 1},
        {"signature_invalid": 19, "signature_missing": 20},
    ]


UNREADABLE = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"7",
    b"{",
    b"a=b&c=d",
    b"\xff\xfe\x00",
    b"\x00" * 100,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xef\xbb\xbf",
]


@pytest.mark.parametrize("body", UNREADABLE, ids=lambda body: repr(body[:12]))
async def test_a_signed_body_that_nobody_can_read_is_stored_without_a_location(
    sender: Sender, db: asyncpg.Connection, body: bytes
) -> None:
    assert (await sender.send(body)).taken
    rows = await db.fetch("SELECT location_id, event_type FROM inbox WHERE body = $1", body)
    assert [tuple(row) for row in rows] == [("", "unreadable")]


WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    "",
    "text",
    [],
    ["text"],
    {},
    {"id": "x"},
    "\x00",
    "é" * 300,
)


def mutations(value: Any) -> Iterator[Any]:
    """The value with each field in it, however deep, replaced by every wrong type."""
    if isinstance(value, dict):
        for name, inner in value.items():
            for changed in (*WRONG, *mutations(inner)):
                yield {**value, name: changed}
    elif isinstance(value, list) and value:
        yield from ([changed, *value[1:]] for changed in mutations(value[0]))


@needs_shared
async def test_every_field_of_every_sample_may_have_any_type(
    sender: Sender, db: asyncpg.Connection
) -> None:
    work: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    for sample in sorted((SHARED / "ghl/payloads").glob("*.json")):
        for changed in mutations(json.loads(sample.read_bytes())):
            fields = {"webhookId": str(uuid4()), **changed}
            work.put_nowait((f"{GHL_PATH}/{sample.stem}", json.dumps(fields).encode()))

    async def send_all() -> None:
        async with connected(sender.port) as (reader, writer):
            while not work.empty():
                path, body = work.get_nowait()
                request = head(path, sender.signer.headers(body), length=len(body))
                writer.write(request.replace(b"Connection: close\r\n", b"") + body)
                answer = await reader.readuntil(b"}")
                sender.note(parse(answer, 0.0), body, path)

    total = work.qsize()
    assert total > 3_000
    await asyncio.gather(*(send_all() for _ in range(32)))
    assert len(sender.ledger) == total
    assert {answer.status for answer in sender.answers} == {200}
