"""What is read of a body before it is stored: a key and a route, whatever the body is."""

import hashlib
import json
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.domain.envelope import (
    UNREADABLE_EVENT,
    Envelope,
    IncompleteError,
    flatten,
    read_webhook,
    read_workflow,
)
from exporter.domain.event import GHL, InboxEvent, StoredEvent
from exporter.domain.ghl_events import APPOINTMENT, FAMILY_OF_EVENT, KNOWN_EVENTS
from exporter.domain.json_fields import (
    MAX_ID_BYTES,
    Unreadable,
    clean_number,
    clean_text,
    parse_json,
)
from exporter.inbox.store import insert_events
from exporter.projection.fact_settings import FactSettings
from exporter.projection.interpret import InvalidEventError, interpret
from exporter.settings import load_settings

from .conftest import SHARED, needs_shared

APPOINTMENTS = {name for name, family in FAMILY_OF_EVENT.items() if family == APPOINTMENT}


def body_of(**fields: object) -> bytes:
    return orjson.dumps(fields)


def sha256(event: str, body: bytes) -> str:
    return hashlib.sha256(event.encode() + b"\0" + body).hexdigest()


def test_the_key_is_the_webhook_id() -> None:
    body = body_of(type="ContactCreate", locationId="loc", webhookId="w-1", id="c")
    assert read_webhook(body, "") == Envelope("loc", "ContactCreate", "w-1")


def test_without_a_webhook_id_the_key_is_a_hash_of_event_name_and_body() -> None:
    body = body_of(type="ContactCreate", locationId="loc")
    assert read_webhook(body, "").idempotency_key == sha256("ContactCreate", body)
    # Without a type the same body at the address of another event is another event.
    untyped = body_of(locationId="loc")
    for event in ("ContactUpdate", "ContactDelete"):
        assert read_webhook(untyped, event).idempotency_key == sha256(event, untyped)
    # And the same event with another body too.
    assert read_webhook(body + b" ", "").idempotency_key != sha256("ContactCreate", body)


@pytest.mark.parametrize("given", [None, 7, "", ["w"], {}, True, "a\x00b", "é" * 128])
def test_a_webhook_id_that_is_no_usable_text_counts_as_none(given: object) -> None:
    body = body_of(type="ContactCreate", webhookId=given)
    assert read_webhook(body, "").idempotency_key == sha256("ContactCreate", body)


def test_among_appointment_events_the_address_beats_the_type_of_the_body() -> None:
    body = body_of(type="AppointmentCreate", webhookId="w")
    assert read_webhook(body, "AppointmentDelete").event_type == "AppointmentDelete"


def test_the_type_of_the_body_beats_any_other_address() -> None:
    for address in ("my-hook", "appointmentdelete", "ContactDelete", "InvoicePaid"):
        body = body_of(type="AppointmentCreate", webhookId="w")
        assert read_webhook(body, address).event_type == "AppointmentCreate"
        assert read_webhook(body_of(type="ContactUpdate"), address).event_type == "ContactUpdate"
    # Also where it names no event that we know of: what is signed decides.
    assert read_webhook(body_of(type="Quantum"), "ContactDelete").event_type == "Quantum"


@pytest.mark.parametrize("type_", [*sorted(KNOWN_EVENTS), "Quantum", "contactdelete", "x" * 255])
def test_no_address_changes_what_a_signed_body_means(type_: str) -> None:
    body = body_of(type=type_, locationId="loc", id="c-1", altType="location", altId="other")
    at_no_address = read_webhook(body, "")
    stored = partial(
        StoredEvent, "loc", 1, datetime.now(UTC), GHL, event_type=type_, idempotency_key="k"
    )
    rules = FactSettings.from_settings(load_settings())
    for address in (*KNOWN_EVENTS, "Quantum", "my-hook", "contactdelete"):
        if {type_, address} <= APPOINTMENTS:
            continue
        assert read_webhook(body, address) == at_no_address
        assert read_webhook(body, address).event_type == type_
        # The projection, a rebuild included, reads what is stored the same way.
        read = [_interpreted(stored(endpoint=given, body=body), rules) for given in ("", address)]
        assert read[0] == read[1], address


def _interpreted(event: StoredEvent, rules: FactSettings) -> object:
    try:
        return interpret(event, rules)
    except InvalidEventError as error:
        return str(error)


def test_without_a_type_the_address_names_the_event_and_without_both_it_is_untyped() -> None:
    assert read_webhook(b"{}", "InvoicePaid").event_type == "InvoicePaid"
    assert read_webhook(b"{}", "SomethingNew").event_type == "SomethingNew"
    assert read_webhook(b"{}", "").event_type == "untyped"
    assert read_webhook(b'{"type": 5}', "").event_type == "untyped"


def test_an_event_type_that_nobody_has_heard_of_is_kept_as_it_is() -> None:
    assert read_webhook(body_of(type="QuantumUpdate"), "").event_type == "QuantumUpdate"


def test_an_invoice_has_its_location_in_alt_id() -> None:
    assert read_webhook(body_of(altType="location", altId="loc"), "").location_id == "loc"
    assert read_webhook(body_of(altType="company", altId="c"), "").location_id == ""
    both = body_of(altType="location", altId="other", locationId="loc")
    assert read_webhook(both, "").location_id == "loc"


def test_the_id_of_a_location_is_the_location() -> None:
    assert read_webhook(body_of(type="LocationCreate", id="loc"), "").location_id == "loc"
    assert read_webhook(body_of(id="loc"), "LocationUpdate").location_id == "loc"
    assert read_webhook(body_of(type="ContactCreate", id="c"), "").location_id == ""


def test_fields_wrapped_in_data_are_found_and_the_envelope_around_them_wins() -> None:
    inner = {"locationId": "inner", "webhookId": "w", "type": "ContactCreate"}
    assert read_webhook(body_of(data=inner), "") == Envelope("inner", "ContactCreate", "w")
    outer = read_webhook(body_of(data=inner, locationId="outer"), "")
    assert outer == Envelope("outer", "ContactCreate", "w")
    assert flatten({"data": "text", "a": 1}) == {"data": "text", "a": 1}


NOT_AN_OBJECT = [b"", b" ", b"null", b"[]", b'[{"type":"ContactCreate"}]', b'"text"', b"7", b"true"]
BROKEN = [
    b"{",
    b'{"type":"ContactCreate"',
    b'{"a":}',
    b'{"type":"ContactCreate"}{}',
    b"type=ContactCreate&id=7",
    b"<xml/>",
    b"\xff\xfe\xfd",
    b'{"type":"\xff\xff"}',
    b"\x00",
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
]


@pytest.mark.parametrize("body", NOT_AN_OBJECT + BROKEN, ids=lambda body: repr(body[:24]))
def test_what_is_no_object_is_kept_without_a_location(body: bytes) -> None:
    assert read_webhook(body, "") == Envelope("", UNREADABLE_EVENT, sha256("unreadable", body))
    at_address = read_webhook(body, "ContactCreate")
    assert at_address == Envelope("", "ContactCreate", sha256("ContactCreate", body))


USABLE_BUT_FOR_ONE_FIELD = {
    "half an emoji": rb'"name":"\ud83d"',
    "NUL": rb'"name":"a\u0000b"',
    "NaN": b'"monetaryValue":NaN',
    "infinity": b'"monetaryValue":-Infinity',
    "1e400": b'"monetaryValue":1e400',
    "13 bytes of 1e131071": b'"monetaryValue":1e131071',
    "5,000 digits": b'"monetaryValue":' + b"9" * 5_000,
    "5,000 decimals": b'"monetaryValue":0.' + b"9" * 5_000,
    "-5,000 digits": b'"monetaryValue":-' + b"9" * 5_000,
    "900,000 digits": b'"monetaryValue":' + b"9" * 900_000,
    "nesting of 1,100": b'"custom":' + b"[" * 1_100 + b"]" * 1_100,
    "a key of half an emoji": rb'"\udc00":1',
    "100,000 keys": b",".join(b'"k%d":%d' % (n, n) for n in range(100_000)),
}


@pytest.mark.parametrize(
    "field", USABLE_BUT_FOR_ONE_FIELD.values(), ids=USABLE_BUT_FOR_ONE_FIELD.keys()
)
def test_one_unusable_field_costs_no_more_than_itself(field: bytes) -> None:
    body = b'{"type":"ContactCreate","locationId":"loc","webhookId":"w",' + field + b"}"
    if field.startswith(b'"custom"'):
        # Deeper than any parser here goes by itself: kept, and where it belongs is unknown.
        assert read_webhook(body, "").event_type in {"ContactCreate", UNREADABLE_EVENT}
        return
    assert read_webhook(body, "") == Envelope("loc", "ContactCreate", "w")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_does_not_hide_the_body(encoding: str) -> None:
    body = '{"type":"ContactCreate","locationId":"loc","webhookId":"w"}'.encode(encoding)
    assert read_webhook(body, "") == Envelope("loc", "ContactCreate", "w")


@pytest.mark.parametrize("value", [r"\ud800", r"a\u0000b", "x" * 256, "é" * 128, ""])
def test_a_location_that_can_not_be_stored_is_none(value: str) -> None:
    body = b'{"type":"ContactCreate","webhookId":"w","locationId":"' + value.encode() + b'"}'
    assert read_webhook(body, "") == Envelope("", "ContactCreate", "w")


def test_numbers_out_of_every_range_are_none() -> None:
    numbers = parse_json(b"[1e400, NaN, -Infinity, " + b"9" * 5_000 + b", true, 1.5, -3]")
    assert [clean_number(number) for number in numbers] == [None] * 5 + [1.5, -3]
    assert clean_number(int("9" * 400)) is None


def test_a_workflow_has_no_key_but_the_hash_of_its_body() -> None:
    body = body_of(location={"id": "loc"}, webhookId="w", workflow={"id": "x"})
    assert read_workflow(body) == Envelope("loc", "Workflow", sha256("Workflow", body))


@pytest.mark.parametrize(
    "more",
    [
        {"location": {"id": "loc"}},
        {"location": {"id": 7}, "location_id": "loc"},
        {"locationId": "loc"},
        {"location": "Main street", "customData": {"location_id": "loc"}},
        {"customData": {"locationId": "loc"}},
        {"data": {"location": {"id": "loc"}}},
    ],
)
def test_a_workflow_may_name_its_location_in_several_places(more: dict[str, Any]) -> None:
    assert read_workflow(body_of(contact_id="c", **more)).location_id == "loc"


@pytest.mark.parametrize("location", [None, "loc", ["loc"], {"id": 7}, {"id": ""}, {}])
def test_a_workflow_without_a_location_is_told_which_field_it_lacks(location: object) -> None:
    with pytest.raises(IncompleteError, match=r"location\.id"):
        read_workflow(body_of(location=location, contact_id="c"))
    for body in NOT_AN_OBJECT + BROKEN:
        with pytest.raises(IncompleteError, match="JSON object"):
            read_workflow(body)


def storable(envelope: Envelope) -> bool:
    texts = (envelope.location_id, envelope.event_type, envelope.idempotency_key)
    return all("\x00" not in text and len(text.encode()) <= MAX_ID_BYTES for text in texts)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.sampled_from(["location", "LocationCreate", "\ud800", "\x00", "é" * 200]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(
    ["type", "locationId", "webhookId", "altType", "altId", "id", "data", "location"]
)
addresses = st.sampled_from(["", "ContactCreate", "LocationCreate", "own"]) | st.text(
    st.characters(codec=None)
)


@given(st.binary(), addresses)
@example(b"{}", "\ud800")
def test_no_bytes_make_the_reading_raise(body: bytes, address: str) -> None:
    assert storable(read_webhook(body, address))
    with suppress(IncompleteError):
        assert storable(read_workflow(body))


@given(st.dictionaries(names, anything) | anything, addresses)
def test_no_json_makes_the_reading_raise(value: Any, address: str) -> None:
    body = json.dumps(value).encode()
    assert storable(read_webhook(body, address))
    with suppress(IncompleteError):
        assert storable(read_workflow(body))


@given(st.binary())
def test_a_body_is_parsed_or_unreadable_and_never_anything_else(body: bytes) -> None:
    try:
        parse_json(body)
    except Unreadable:
        return


@given(anything)
def test_a_clean_text_can_be_stored(value: object) -> None:
    text = clean_text(value)
    assert text is None or (text == value and len(text.encode()) <= 255 and "\0" not in text)


async def test_postgresql_stores_whatever_the_reading_returns(
    connection: asyncpg.Connection,
) -> None:
    examples: list[Envelope] = []

    @given(st.dictionaries(names, anything), addresses)
    def collect(value: dict[str, Any], address: str) -> None:
        examples.append(read_webhook(json.dumps(value).encode(), address))

    collect()
    # The longest texts there can be, of letters that compress badly, share one index entry.
    longest = "".join(str(uuid.uuid4()) for _ in range(8))[:MAX_ID_BYTES]
    examples.append(Envelope(longest, longest, longest))
    events = [
        InboxEvent(
            location_id=envelope.location_id,
            source=GHL,
            endpoint="",
            event_type=envelope.event_type,
            idempotency_key=envelope.idempotency_key,
            correlation_id="c",
            received_at=datetime.now(UTC),
            body=b"\0\xff",
        )
        for envelope in examples
    ]
    new = await insert_events(connection, events)
    assert len(new) == len({event.key for event in events})


SAMPLES = sorted((SHARED / "ghl/payloads").glob("*.json"))


@needs_shared
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_published_samples_are_routed(sample: Any) -> None:
    body = sample.read_bytes()
    envelope = read_webhook(body, sample.stem)
    fields = json.loads(body)
    assert envelope.event_type in {sample.stem, "INSTALL"}
    expected = fields.get("locationId") or fields.get("altId")
    if sample.stem.startswith("Location"):
        expected = fields["id"]
    assert envelope.location_id == (expected or "")
