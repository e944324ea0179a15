"""A body's bounds: what it decodes to, the memory that all bodies share, whose it is."""

import asyncio
import gzip
import zlib
from itertools import pairwise
from random import Random

import pytest
import structlog
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from exporter.http.body import SMALL_BODY, BodyMemory, NoMemory
from exporter.http.client_address import Clients, key_of
from exporter.http.inflate import BadEncoding, Decoder, TooLarge
from exporter.http.refusal_log import RefusalLog

LIMIT = 10_000


def decode(encoding: str, data: bytes, cuts: list[int], limit: int = LIMIT) -> bytes:
    """Decode data that arrives in pieces."""
    decoder = Decoder(encoding, limit)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [decoder.feed(data[a:b]) for a, b in pairwise(places)]
    decoder.finish()
    return b"".join(pieces)


def pack(encoding: str, body: bytes, level: int) -> bytes:
    match encoding:
        case "gzip":
            return gzip.compress(body, level)
        case "deflate":
            return zlib.compress(body, level)
        case "raw":
            return zlib.compress(body, level, wbits=-zlib.MAX_WBITS)
    return body


@given(
    st.binary(max_size=3_000),
    st.sampled_from(["gzip", "deflate", "raw", "identity"]),
    st.integers(0, 9),
    st.lists(st.integers(0, 100_000), max_size=8),
    st.integers(0, 5),
)
def test_a_body_decodes_to_itself_however_it_arrives(
    body: bytes, encoding: str, level: int, cuts: list[int], zeros: int
) -> None:
    name = "deflate" if encoding == "raw" else encoding
    packed = pack(encoding, body, level)
    if encoding != "identity":
        packed += bytes(zeros)
    assert decode(name, packed, cuts) == body
    if encoding != "identity":
        twice = gzip.compress(packed)
        assert decode(f"{name}, gzip", twice, cuts) == body
    if encoding == "gzip":
        assert decode("gzip", packed + gzip.compress(body), cuts) == body * 2


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "gzip, deflate"]))
def test_no_bytes_make_decoding_raise_anything_else(data: bytes, encoding: str) -> None:
    for packed in (data, gzip.compress(data), gzip.compress(b"x") + data, zlib.compress(b"x")):
        try:
            decode(encoding, packed, [1, 7])
        except (BadEncoding, TooLarge):
            continue


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw"])
def test_the_bound_holds_for_what_is_decoded_over_all_members(encoding: str) -> None:
    name = "deflate" if encoding == "raw" else encoding
    assert decode(name, pack(encoding, bytes(LIMIT), 9), [5]) == bytes(LIMIT)
    with pytest.raises(TooLarge):
        decode(name, pack(encoding, bytes(LIMIT + 1), 9), [5])
    half = gzip.compress(bytes(LIMIT // 2))
    assert len(decode("gzip", half * 2, [9])) == LIMIT
    with pytest.raises(TooLarge):
        decode("gzip", half * 2 + gzip.compress(b"x"), [9])
    # Each coding of a chain has the bound: the inner one must not become large either.
    with pytest.raises(TooLarge):
        decode("gzip, gzip", gzip.compress(gzip.compress(bytes(100_000_000))), [])


def test_memory_is_taken_as_it_is_used_and_a_part_is_kept_for_small_bodies() -> None:
    memory = BodyMemory(16 * SMALL_BODY, client_share=1)
    held = 0
    with pytest.raises(NoMemory):
        while True:
            memory.take("large", held, SMALL_BODY)
            held += SMALL_BODY
    assert held == 12 * SMALL_BODY
    for _ in range(4):
        memory.take("small", 0, SMALL_BODY)
    with pytest.raises(NoMemory):
        memory.take("small", 0, 1)
    memory.give_back("large", held)
    memory.take("small", 0, SMALL_BODY)


def test_one_client_gets_no_more_than_its_share() -> None:
    memory = BodyMemory(1_000, client_share=0.25)
    memory.take("a", 0, 250)
    with pytest.raises(NoMemory):
        memory.take("a", 0, 1)
    memory.take("b", 0, 250)
    memory.give_back("a", 250)
    memory.take("a", 0, 250)


def test_memory_that_is_given_back_is_all_there_again() -> None:
    random = Random(5)
    memory = BodyMemory(100_000, client_share=0.5)
    bodies: list[tuple[str, int]] = []
    for _ in range(5_000):
        if bodies and random.random() < 0.5:
            memory.give_back(*bodies.pop(random.randrange(len(bodies))))
            continue
        client, size = random.choice("abc"), random.randrange(5_000)
        try:
            memory.take(client, 0, size)
        except NoMemory:
            continue
        bodies.append((client, size))
    for body in bodies:
        memory.give_back(*body)
    memory.take("a", 0, 50_000)
    memory.take("b", 0, 50_000)


def client_of(trusted: set[str], remote: str, *forwarded: str) -> str:
    request = make_mocked_request("POST", "/", headers=[("X-Forwarded-For", f) for f in forwarded])
    return Clients(trusted).of(request.clone(remote=remote))


def test_a_forwarded_address_counts_only_where_a_trusted_proxy_sends_it() -> None:
    proxies = {"10.0.0.0/8", "::1"}
    assert client_of(set(), "10.0.0.1", "192.0.2.7") == "10.0.0.1"
    assert client_of(proxies, "192.0.2.1", "192.0.2.7") == "192.0.2.1"
    assert client_of(proxies, "10.0.0.1", "192.0.2.7") == "192.0.2.7"
    assert client_of(proxies, "10.0.0.1", "192.0.2.7:4711") == "192.0.2.7"
    assert client_of(proxies, "::1", "[2001:db8::1]:80") == "2001:db8::/64"
    assert client_of(proxies, "::ffff:10.0.0.1", "192.0.2.7") == "192.0.2.7"
    # What the client wrote itself stands first, and is not believed.
    assert client_of(proxies, "10.0.0.1", "10.9.9.9, 198.51.100.1, 10.0.0.2") == "198.51.100.1"
    assert client_of(proxies, "10.0.0.1", "1.2.3.4", "198.51.100.1") == "198.51.100.1"
    # Nothing usable: it is the proxy's own.
    assert client_of(proxies, "10.0.0.1") == "10.0.0.1"
    assert client_of(proxies, "10.0.0.1", " , ") == "10.0.0.1"
    assert len(client_of(proxies, "10.0.0.1", "x" * 5_000)) == 64


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    assert key_of("2001:db8::1") == key_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert key_of("2001:db8:0:1::1") != key_of("2001:db8::1")
    assert key_of("fe80::1%eth0") == "fe80::/64"
    assert key_of("::ffff:192.0.2.1") == key_of("192.0.2.1") == "192.0.2.1"


async def test_refusals_are_logged_at_once_and_then_together() -> None:
    with structlog.testing.capture_logs() as lines:
        refusals = RefusalLog(interval=0.05)
        for number in range(100):
            refusals.note("bad" if number % 2 else "worse", client=number)
        assert [line["counts"] for line in lines] == [{"worse": 1}]
        await asyncio.sleep(0.2)
        assert [line["counts"] for line in lines] == [{"worse": 1}, {"bad": 50, "worse": 49}]
        assert lines[-1]["client"] == 99
        # After an interval without any, the next is logged at once.
        refusals.note("bad")
        assert len(lines) == 3
        refusals.note("bad")
        refusals.flush()
        assert [line["counts"] for line in lines[3:]] == [{"bad": 1}]
