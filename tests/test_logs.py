"""The log: one event is one line whatever a sender puts into it, and nobody's data is in it."""

import asyncio
import io
import json
import logging
import random
import sqlite3
from collections.abc import Iterator

import asyncpg
import orjson
import pytest
import structlog

from exporter.api.keys import create_key
from exporter.database.errors import reason_of
from exporter.projection.fact_settings import FactSettings
from exporter.projection.projector import Projector
from exporter.settings import load_settings
from exporter.support.error_text import describe_error
from exporter.support.logs import configure_logs
from exporter.telemetry.metrics import LiveMetrics
from tests.conftest import MakeService, Signer, wait_until
from tests.projecting import store
from tests.sender import GHL_PATH, Sender, contact, exchange, head
from tests.test_erase import story

HOSTILE = "\n2026-01-01 [info] forged\r\x1b[2J\x1b]0;title\x07\u2028\u2029\x85\x00\ud800\u202e"
PERSONAL = ("Ada Lovelace", "ada@example.com", "+1 555 0100", "let us meet at 5")


@pytest.fixture(params=["json", "plain"])
def stream(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """The log in memory, as the service writes it."""
    before = structlog.get_config()
    handlers, level = logging.root.handlers[:], logging.root.level
    written = io.StringIO()
    configure_logs(request.param, "debug", written)
    # Each test has a stream of its own.
    structlog.configure(cache_logger_on_first_use=False)
    yield written
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def check(text: str) -> list[str]:
    """Return the lines; no control character but their ends is among them."""
    assert text.replace("\n", "").isprintable(), ascii(text)
    text.encode()
    return text.splitlines()


def test_a_value_never_starts_a_line_nor_reaches_a_terminal(stream: io.StringIO) -> None:
    log = structlog.get_logger()
    log.info("webhook", location=HOSTILE, key=HOSTILE, nested={HOSTILE: [HOSTILE]}, raw=b"\n\x1b")
    log.warning(HOSTILE, error=ValueError(HOSTILE), path=f"/webhooks/ghl/{HOSTILE}")
    logging.getLogger("aiohttp.server").warning("from %s", HOSTILE)
    lines = check(stream.getvalue())
    assert len(lines) == 3
    assert "\\x1b[2J" in lines[0].replace("\\\\", "\\")


def test_random_texts_are_one_line_each(stream: io.StringIO) -> None:
    seed = 20261126
    print(f"seed {seed}")
    draw = random.Random(seed)
    log = structlog.get_logger()
    ranges = ((0, 0x20), (0x20, 0x7F), (0x7F, 0xA0), (0x2000, 0x2070), (0xD800, 0xE000))
    for _ in range(500):
        text = "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(20))
        log.info("webhook", location=text)
    assert len(check(stream.getvalue())) == 500


def test_an_error_is_logged_with_its_place_and_without_what_it_quotes(
    stream: io.StringIO,
) -> None:
    log = structlog.get_logger()
    library = logging.getLogger("asyncio")
    for make in (
        lambda: ValueError(f"could not convert {PERSONAL[0]}{HOSTILE}"),
        lambda: KeyError(PERSONAL[1]),
        lambda: UnicodeDecodeError("utf-8", PERSONAL[2].encode(), 0, 1, HOSTILE),
    ):
        try:
            try:
                raise make()
            except Exception as cause:
                raise RuntimeError(PERSONAL[3]) from cause
        except RuntimeError as error:
            log.exception("task_failed", error=error)
            library.error("Task exception was never retrieved\nfuture: %r", error, exc_info=error)
    text = stream.getvalue()
    check(text)
    for one in PERSONAL:
        assert one not in text
    for part in ("RuntimeError", "ValueError", "UnicodeDecodeError", "test_logs.py"):
        assert part in text


def test_what_an_error_says_about_the_machine_is_kept() -> None:
    assert describe_error(OSError(28, "No space left on device")) == (
        "OSError: [Errno 28] No space left on device"
    )
    said = describe_error(sqlite3.OperationalError("database or disk is full"))
    assert said == "OperationalError: database or disk is full"
    assert describe_error(ValueError("secret")) == "ValueError"
    several = ExceptionGroup("both", [ValueError("secret"), OSError("away")])
    assert describe_error(several) == "ValueError; OSError: away"


async def test_a_message_of_postgresql_that_quotes_a_row_is_left_out(
    connection: asyncpg.Connection,
) -> None:
    for statement in (
        "SELECT 'Ada Lovelace'::int",
        "INSERT INTO locations VALUES ('Ada Lovelace', NULL)",
        "WITH x AS (INSERT INTO locations VALUES ('Ada Lovelace', now()),"
        " ('Ada Lovelace', now())) SELECT 1",
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await connection.execute(statement)
        assert "Ada" in str(raised.value), "PostgreSQL itself quotes it"
        for said in (describe_error(raised.value), reason_of(raised.value)):
            assert "Ada" not in said
            assert f"SQLSTATE {raised.value.sqlstate}" in said
    with pytest.raises(asyncpg.UndefinedTableError) as missing:
        await connection.execute("SELECT * FROM nothing")
    assert 'relation "nothing" does not exist' in describe_error(missing.value)


@pytest.mark.parametrize("log_format", ["plain", "json"])
async def test_the_service_logs_ids_only_and_no_control_character(
    make_service: MakeService,
    connection: asyncpg.Connection,
    database_url: str,
    signer: Signer,
    log_format: str,
) -> None:
    service = make_service(database_url=database_url, log_format=log_format, log_level="debug")
    service.start()
    key = await create_key(connection, "all", ["read", "track"], ["*"])
    name, email, phone, message = PERSONAL
    sender = Sender(service.port, signer)
    place = HOSTILE.replace("\x00", "").replace("\ud800", "")
    person = {"firstName": name, "email": email, "phone": phone}
    headers = {"User-Agent": f"{name}\u2028", "X-Correlation-ID": "abc forged"}
    for body in (
        contact(**person),
        contact(locationId=place, webhookId=place, **person),
        contact(type=name, **person),
        contact(type=f"{email}\n{message}"),
        orjson.dumps({"locationId": "loc", "type": "InboundMessage", "body": message}),
        json.dumps({"type": "ContactCreate", "locationId": "\ud800", "email": email}).encode(),
        f"{name} {email} is no JSON".encode(),
    ):
        for path in (GHL_PATH, f"{GHL_PATH}/%0A%1B[2Jforged", f"{GHL_PATH}/%ED%A0%80"):
            answer = await sender.send(body, path, headers)
            assert answer.taken
    await exchange(service.port, head(GHL_PATH, headers, length=2) + b"{}")
    track = "/api/business-metrics/track/conversion"
    bearer = {"Authorization": f"Bearer {key}"}
    for call in (
        {"location_id": place, "contact_id": name, "stage": "ai_qualified"},
        {"location_id": "loc", "contact_id": email, "stage": message},
    ):
        body = orjson.dumps(call)
        await exchange(service.port, head(track, bearer, length=len(body)) + body)
    for path in (f"/api/business-metrics/dashboard/%1B[2J{'%0A'}forged", "/nothing%0Aforged"):
        await asyncio.to_thread(service.get, path, bearer)

    async def projected() -> bool:
        return not await connection.fetchval("SELECT count(*) FROM inbox_pending")

    await wait_until(projected)
    service.stop()
    text = service.log.read_text()
    assert "webhook" in text
    check(text)
    for one in (*PERSONAL, key, key.split("_", 2)[2]):
        assert one not in text
    starts = ("{", "20") if log_format == "json" else ("20",)
    for line in text.splitlines():
        assert line.startswith(starts), line
        assert "[info     ] forged" not in line


async def test_an_event_in_quarantine_is_logged_without_its_data(
    connection: asyncpg.Connection, stream: io.StringIO
) -> None:
    await connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'refuses %', NEW USING ERRCODE = '22000'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON contacts FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    await store(connection, story("loc-private")[:1])
    settings = load_settings()
    projector = Projector(connection, FactSettings.from_settings(settings), LiveMetrics(), 10)
    while await projector.step():
        pass
    text = stream.getvalue()
    assert "event_quarantined" in text
    assert "loc-private" not in text
    assert "loc-private" in await connection.fetchval("SELECT error FROM quarantine")
