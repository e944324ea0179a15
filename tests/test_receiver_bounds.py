"""What one sender may cost: sizes, times, and requests that break the rules of HTTP."""

import asyncio
import gzip
import random
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg
import pytest

from exporter.demo.servers import EmbeddedPostgres

from .conftest import Service, Signer
from .sender import (
    ANSWER_WITHIN,
    GHL_PATH,
    Answer,
    Sender,
    connected,
    contact,
    exchange,
    head,
    new_database,
    read_all,
    running_service,
)

MAX_BODY = 64 * 1024
KEEPALIVE = 1.5


@pytest.fixture(scope="module")
def url(postgres: EmbeddedPostgres) -> str:
    return asyncio.run(new_database(postgres))


@pytest.fixture(scope="module")
def service(
    url: str, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    with running_service(
        tmp_path_factory.mktemp("service"),
        signer,
        database_url=url,
        max_body_bytes=MAX_BODY,
        keepalive_timeout=KEEPALIVE,
    ) as running:
        yield running


@pytest.fixture
async def db(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
async def sender(service: Service, signer: Signer, db: asyncpg.Connection) -> AsyncIterator[Sender]:
    """Whatever a test sends: what was answered 2xx is there once, and the service goes on."""
    made = Sender(service.port, signer)
    yield made
    assert (await made.send(contact())).taken
    assert not await made.missing(db)
    assert "request_failed" not in service.log.read_text()


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")


def assert_refused(answer: Answer) -> None:
    """Answered in time with the one code that GHL has always retried."""
    assert_problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1


async def times_stored(db: asyncpg.Connection, body: bytes) -> int:
    return int(await db.fetchval("SELECT count(*) FROM inbox WHERE body = $1", body))


def sized(length: int) -> bytes:
    """A contact of exactly so many bytes."""
    body = contact(filler="")
    return contact(filler="x" * (length - len(body)))


def chunked(body: bytes, size: int = 4096) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])


async def test_a_body_of_the_largest_size_is_taken_and_one_byte_more_is_413(
    sender: Sender, db: asyncpg.Connection
) -> None:
    largest, larger = sized(MAX_BODY), sized(MAX_BODY + 1)
    assert (await sender.send(largest)).taken
    assert_problem(await sender.send(larger), 413)
    assert await times_stored(db, larger) == 0


async def test_a_length_that_is_too_large_is_413_before_the_body_comes(sender: Sender) -> None:
    signed = {"X-GHL-Signature": "AAAA"}
    answer = await exchange(sender.port, head(GHL_PATH, signed, length=MAX_BODY + 1))
    assert_problem(answer, 413)
    assert_problem(await sender.send(b"x" * 5_000_000), 413)


async def test_a_chunked_body_is_taken_up_to_the_largest_size(
    sender: Sender, db: asyncpg.Connection
) -> None:
    for length, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413), (20 * MAX_BODY, 413)):
        body = sized(length)
        opening = head(GHL_PATH, sender.signer.headers(body), "Transfer-Encoding: chunked")
        answer = await exchange(sender.port, opening + chunked(body))
        assert answer.status == status
        assert await times_stored(db, body) == (status == 200)


def two_members(body: bytes) -> bytes:
    return gzip.compress(body[:50]) + gzip.compress(body[50:])


ENCODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "capitals": ("GZIP", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "two members": ("gzip", two_members),
    "zeros after gzip": ("gzip", lambda body: gzip.compress(body) + bytes(512)),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", lambda body: zlib.compress(body, wbits=-15)),
    "zeros after deflate": ("deflate", lambda body: zlib.compress(body) + bytes(3)),
    "zeros after raw deflate": ("deflate", lambda body: zlib.compress(body, wbits=-15) + bytes(3)),
    "two codings": ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
    "identity": ("identity", bytes),
    "gzip and identity": ("gzip, identity", gzip.compress),
    "empty": ("", bytes),
}


@pytest.mark.parametrize(("encoding", "pack"), ENCODINGS.values(), ids=ENCODINGS)
async def test_an_encoded_body_is_inflated_and_stored_as_it_was_signed(
    sender: Sender, db: asyncpg.Connection, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = contact()
    packed = pack(body)
    headers = sender.signer.headers(body) | {"Content-Encoding": encoding}
    answer = await exchange(sender.port, head(GHL_PATH, headers, length=len(packed)) + packed)
    assert answer.status == 200
    sender.note(answer, body)
    assert await times_stored(db, body) == 1


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
async def test_a_bomb_is_413_and_costs_no_memory(
    service: Service, sender: Sender, pack: object
) -> None:
    body = bytes(50_000_000)
    packed = gzip.compress(body) if pack is gzip.compress else zlib.compress(body)
    encoding = "gzip" if pack is gzip.compress else "deflate"
    assert len(packed) < MAX_BODY
    headers = sender.signer.headers(body) | {"Content-Encoding": encoding}
    before = service.metrics()["process_resident_memory_bytes"]
    request = head(GHL_PATH, headers, length=len(packed)) + packed
    answers = await asyncio.gather(*(exchange(sender.port, request) for _ in range(20)))
    for answer in answers:
        assert_problem(answer, 413)
    assert service.metrics()["process_resident_memory_bytes"] - before < 40_000_000


PACKED = gzip.compress(b'{"type":"ContactCreate"}')
BAD_ENCODINGS = {
    "no gzip": ("gzip", b'{"type":"ContactCreate"}'),
    "empty": ("gzip", b""),
    "cut": ("gzip", PACKED[:-4]),
    "bad checksum": ("gzip", PACKED[:-8] + bytes(8)),
    "more after its end": ("gzip", PACKED + b"more"),
    "no deflate": ("deflate", b"\xff\xff\xff"),
    "unknown": ("br", PACKED),
    "two": ("gzip, gzip", PACKED),
    "three": ("gzip, gzip, gzip", gzip.compress(gzip.compress(PACKED))),
    "zeros alone": ("gzip", bytes(100)),
    "a second member that is cut": ("gzip", PACKED + PACKED[:-1]),
    "many members": ("gzip", gzip.compress(b"") * 2_000),
    "no raw deflate": ("deflate", b"{}"),
    "more after the end of deflate": ("deflate", zlib.compress(b"{}") + b"x"),
    "not ASCII": ("g\udcffzip", PACKED),
}


@pytest.mark.parametrize(("encoding", "body"), BAD_ENCODINGS.values(), ids=BAD_ENCODINGS)
async def test_a_bad_encoding_is_400(sender: Sender, encoding: str, body: bytes) -> None:
    headers = sender.signer.headers(body) | {"Content-Encoding": encoding}
    answer = await exchange(sender.port, head(GHL_PATH, headers, length=len(body)) + body)
    assert_problem(answer, 400)


async def slow_body(sender: Sender, *, chunks: bool) -> Answer:
    """Send a byte now and then, and read the answer that comes before the body's end."""
    body = contact()
    headers = sender.signer.headers(body)
    started = time.monotonic()
    async with connected(sender.port) as (reader, writer):
        writer.write(
            head(GHL_PATH, headers, "Transfer-Encoding: chunked")
            if chunks
            else head(GHL_PATH, headers, length=len(body))
        )
        answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        for letter in body:
            piece = bytes([letter])
            writer.write(chunked(piece)[:6] if chunks else piece)
            if (await asyncio.wait([answered], timeout=0.1))[0]:
                break
        opening = await answered
        seconds = time.monotonic() - started
        rest = await read_all(reader)
    text = opening.decode("latin-1").split("\r\n")
    named = dict(line.split(": ", 1) for line in text[1:] if line)
    fields = {name.lower(): value for name, value in named.items()}
    return Answer(int(text[0].split()[1]), fields, rest, seconds)


@pytest.mark.parametrize("chunks", [False, True], ids=["length", "chunked"])
async def test_a_body_that_comes_byte_by_byte_is_refused_in_time(
    sender: Sender, chunks: bool
) -> None:
    answers = await asyncio.gather(*(slow_body(sender, chunks=chunks) for _ in range(40)))
    for answer in answers:
        assert_refused(answer)
        assert answer.seconds < ANSWER_WITHIN


async def test_a_length_longer_than_the_body_is_refused_in_time(sender: Sender) -> None:
    body = contact()
    async with connected(sender.port) as (reader, writer):
        started = time.monotonic()
        writer.write(head(GHL_PATH, sender.signer.headers(body), length=len(body) + 1) + body)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 429")
        assert time.monotonic() - started < ANSWER_WITHIN
        await read_all(reader)


async def test_a_length_shorter_than_the_body_stores_nothing(
    sender: Sender, db: asyncpg.Connection
) -> None:
    hidden = contact()
    smuggled = head(GHL_PATH, sender.signer.headers(hidden), length=len(hidden)) + hidden
    outer = contact() + smuggled
    lying = head(GHL_PATH, sender.signer.headers(outer), length=10) + outer
    answer = await exchange(sender.port, lying)
    assert answer.status in {400, 401}
    assert await times_stored(db, outer) == 0
    assert await times_stored(db, hidden) == 0


RULES_BROKEN = {
    "two lengths": ["Content-Length: 3", "Content-Length: 4"],
    "length and chunked": ["Content-Length: 3", "Transfer-Encoding: chunked"],
    "negative length": ["Content-Length: -3"],
    "length is text": ["Content-Length: many"],
    "length has a sign": ["Content-Length: +3"],
    "header of 1 MB": ["X-GHL-Signature: " + "A" * 1_000_000],
    "1,000 headers": [f"X-{number}: x" for number in range(1_000)],
    "NUL in a header": ["Content-Length: 3", "X-Other: a\0b"],
    "folded header": ["Content-Length: 3", "X-Other: a\r\n X-GHL-Signature: N/A"],
    "name with a space": ["Content-Length: 3", "X Other: a"],
    "bad chunk": ["Transfer-Encoding: chunked", "\r\nZZ\r\n{}"],
    "bad second chunk": ["Transfer-Encoding: chunked", "\r\n2\r\n{}\r\nZZ\r\n{}"],
}


@pytest.mark.parametrize("lines", RULES_BROKEN.values(), ids=RULES_BROKEN)
async def test_a_request_that_breaks_the_rules_of_http_is_refused_at_once(
    sender: Sender, lines: list[str]
) -> None:
    request = head(GHL_PATH, sender.signer.headers(b"{}"), *lines) + b"{}\n"
    answer = await exchange(sender.port, request)
    assert answer.status in {0, 400, 401}
    assert answer.seconds < ANSWER_WITHIN


async def test_what_is_no_http_at_all_is_refused_at_once(sender: Sender) -> None:
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\n\0", b"HELLO\r\n\r\n"):
        answer = await exchange(sender.port, noise)
        assert answer.status in {0, 400}
        assert answer.seconds < KEEPALIVE + ANSWER_WITHIN


@pytest.mark.parametrize(
    "lines",
    [
        ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"],
        ["Expect: 100-continue"],
        ["Connection: close"],
    ],
    ids=["HTTP/2 offered", "100-continue", "plain"],
)
async def test_what_usual_clients_add_to_a_request_does_no_harm(
    sender: Sender, db: asyncpg.Connection, lines: list[str]
) -> None:
    body = contact()
    request = head(GHL_PATH, sender.signer.headers(body), *lines, length=len(body)) + body
    answer = await exchange(sender.port, request)
    assert b" 200 OK" in answer.body if answer.status == 100 else answer.taken
    assert await times_stored(db, body) == 1


async def test_two_requests_in_one_packet_are_both_answered(
    sender: Sender, db: asyncpg.Connection
) -> None:
    bodies = [contact(), contact()]
    requests = [head(GHL_PATH, sender.signer.headers(b), length=len(b)) + b for b in bodies]
    requests[0] = requests[0].replace(b"Connection: close\r\n", b"")
    answer = await exchange(sender.port, b"".join(requests))
    assert answer.taken
    assert b"HTTP/1.1 200" in answer.body
    assert [await times_stored(db, body) for body in bodies] == [1, 1]


async def test_a_sender_that_leaves_mid_body_does_no_harm(
    sender: Sender, db: asyncpg.Connection
) -> None:
    bodies = [contact() for _ in range(40)]
    draw = random.Random(7)

    async def leave(body: bytes) -> None:
        async with connected(sender.port) as (_, writer):
            opening = head(GHL_PATH, sender.signer.headers(body), length=len(body))
            writer.write(opening + body[: draw.randrange(len(body))])
            await writer.drain()
            if draw.random() < 0.5:
                writer.transport.abort()

    await asyncio.gather(*(leave(body) for body in bodies))
    assert (await sender.send(contact())).taken
    assert await db.fetchval("SELECT count(*) FROM inbox WHERE body = ANY($1)", bodies) == 0


async def test_a_hundred_connections_that_never_finish_their_headers_are_closed(
    sender: Sender,
) -> None:
    opening = head(GHL_PATH, {"X-GHL-Signature": "AAAA"}, length=2)

    async def dawdle(*, idle: bool) -> float:
        started = time.monotonic()
        async with connected(sender.port) as (reader, writer):
            closed = asyncio.create_task(read_all(reader, 30))
            for letter in b"" if idle else opening:
                writer.write(bytes([letter]))
                if (await asyncio.wait([closed], timeout=0.2))[0]:
                    break
            await closed
        return time.monotonic() - started

    waiting = [asyncio.create_task(dawdle(idle=number % 2 == 0)) for number in range(100)]
    # Meanwhile others are served.
    await asyncio.sleep(0.5)
    assert (await sender.send(contact())).seconds < ANSWER_WITHIN
    seconds = await asyncio.gather(*waiting)
    assert max(seconds) < KEEPALIVE + 3


async def test_a_connection_that_is_idle_after_its_request_is_closed(sender: Sender) -> None:
    body = contact()
    async with connected(sender.port) as (reader, writer):
        request = head(GHL_PATH, sender.signer.headers(body), length=len(body)) + body
        writer.write(request.replace(b"Connection: close\r\n", b""))
        await reader.readuntil(b"}")
        started = time.monotonic()
        assert await read_all(reader) == b""
        assert 0.5 < time.monotonic() - started < KEEPALIVE + 3
