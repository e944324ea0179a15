"""Whose webhook it is: Ed25519 by any of several keys, and RSA only where a setting turns it on."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from exporter.receiver.signature import (
    INVALID,
    MISSING,
    Rejected,
    Verifier,
)
from exporter.settings import SettingsError, load_settings
from exporter.settings.public_keys import GHL_PUBLIC_KEY, UnusableKey, split_pem

from .conftest import SHARED, Signer, needs_shared

BODY = b'{"type":"ContactCreate","webhookId":"a"}'
FIRST, SECOND, STRANGER = Signer(), Signer(), Signer()


@pytest.fixture(scope="module")
def rsa_key() -> RSAPrivateKey:
    # GHL's has 4,096 bits; a smaller one is made faster.
    return generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def rsa_signature(key: RSAPrivateKey, body: bytes = BODY) -> str:
    return base64.b64encode(key.sign(body, PKCS1v15(), SHA256())).decode()


def ed25519_signature(signer: Signer, body: bytes = BODY) -> str:
    return signer.headers(body)["X-GHL-Signature"]


def verifier(*pems: str, accept_rsa: bool = False) -> Verifier:
    return Verifier.from_pem("\n".join(pems), accept_rsa=accept_rsa)


def reason(check: Callable[[], None]) -> str | None:
    """Why it is rejected; None where it is not."""
    try:
        check()
    except Rejected as error:
        return error.reason
    return None


def judged(
    by: Verifier, ed25519: list[str], rsa: list[str] | None = None, body: bytes = BODY
) -> str | None:
    return reason(lambda: by.check(body, ed25519, rsa or []))


@pytest.mark.parametrize("signer", [FIRST, SECOND])
def test_each_of_several_keys_is_accepted(signer: Signer) -> None:
    assert judged(verifier(FIRST.pem, SECOND.pem), [ed25519_signature(signer)]) is None


def test_a_key_that_is_not_in_the_list_is_rejected() -> None:
    assert judged(verifier(FIRST.pem, SECOND.pem), [ed25519_signature(STRANGER)]) == INVALID


def test_a_body_that_was_changed_by_one_byte_is_rejected() -> None:
    signature = ed25519_signature(FIRST)
    assert judged(verifier(FIRST.pem), [signature], body=BODY[:-1] + b" ") == INVALID
    assert judged(verifier(FIRST.pem), [signature], body=BODY + b"\n") == INVALID
    assert judged(verifier(FIRST.pem), [signature], body=b"") == INVALID


def test_an_empty_body_can_be_signed() -> None:
    assert judged(verifier(FIRST.pem), [ed25519_signature(FIRST, b"")], body=b"") is None


@pytest.mark.parametrize("values", [[], [""], ["N/A"], [" N/A "], ["N/A", "N/A"], ["  "]])
def test_no_value_and_the_text_na_are_no_signature(values: list[str]) -> None:
    by = verifier(FIRST.pem)
    assert judged(by, values) == MISSING
    assert not by.has_signature(values, [])


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_a_signature_of_another_length_is_rejected(length: int) -> None:
    key = Ed25519PrivateKey.generate()
    raw = (key.sign(BODY) * 2)[:length] or b"\0"
    assert judged(verifier(FIRST.pem), [base64.b64encode(raw).decode()]) == INVALID


def test_a_signature_that_was_cut_is_rejected() -> None:
    whole = ed25519_signature(FIRST)
    for end in range(1, len(whole)):
        assert judged(verifier(FIRST.pem), [whole[:end]]) == INVALID


@pytest.mark.parametrize(
    "value",
    [
        "é" * 88,
        "\udcff" * 88,
        "=" * 88,
        "A" * 88,
        "A" * 1_000_000,
        "sha256=" + "0" * 64,
        "None",
        "\x00",
    ],
    ids=["latin", "bytes", "padding", "zeros", "endless", "hmac", "None", "NUL"],
)
def test_what_is_no_base64_of_64_bytes_is_rejected_and_raises_nothing_else(value: str) -> None:
    assert judged(verifier(FIRST.pem), [value]) == INVALID


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_no_headers_make_the_check_raise_anything_but_rejected(
    ed25519: list[str], rsa: list[str]
) -> None:
    assert judged(verifier(FIRST.pem), ed25519, rsa) in {MISSING, INVALID}


def test_spaces_around_a_signature_do_not_matter() -> None:
    assert judged(verifier(FIRST.pem), [f" {ed25519_signature(FIRST)}\t"]) is None


def test_a_header_given_twice_with_the_same_value_counts_once() -> None:
    signature = ed25519_signature(FIRST)
    assert judged(verifier(FIRST.pem), [signature, signature]) is None


@pytest.mark.parametrize(
    "other",
    [pytest.param(ed25519_signature(STRANGER), id="a stranger's"), "N/A", "", "AAAA"],
)
def test_a_header_given_twice_with_different_values_is_rejected(other: str) -> None:
    signature = ed25519_signature(FIRST)
    assert judged(verifier(FIRST.pem), [signature, other]) == INVALID
    assert judged(verifier(FIRST.pem), [other, signature]) == INVALID


def test_rsa_is_missing_where_the_setting_is_off(rsa_key: RSAPrivateKey) -> None:
    by = verifier(FIRST.pem, pem_of(rsa_key))
    assert judged(by, [], [rsa_signature(rsa_key)]) == MISSING
    assert not by.has_signature([], [rsa_signature(rsa_key)])


def test_rsa_is_accepted_where_the_setting_is_on(rsa_key: RSAPrivateKey) -> None:
    by = verifier(FIRST.pem, pem_of(rsa_key), accept_rsa=True)
    assert by.has_signature([], [rsa_signature(rsa_key)])
    assert judged(by, [], [rsa_signature(rsa_key)]) is None
    assert judged(by, ["N/A"], [rsa_signature(rsa_key)]) is None
    assert judged(by, [], [rsa_signature(rsa_key, b"another body")]) == INVALID
    assert judged(by, [], [rsa_signature(rsa_key), "AAAA"]) == INVALID
    assert judged(by, [], ["N/A"]) == MISSING
    assert judged(by, [], ["é"]) == INVALID


def test_rsa_without_a_key_of_its_own_is_missing_even_where_the_setting_is_on(
    rsa_key: RSAPrivateKey,
) -> None:
    assert judged(verifier(FIRST.pem, accept_rsa=True), [], [rsa_signature(rsa_key)]) == MISSING


def test_what_carries_an_ed25519_header_is_judged_by_it_alone(rsa_key: RSAPrivateKey) -> None:
    by = verifier(FIRST.pem, pem_of(rsa_key), accept_rsa=True)
    good_rsa = rsa_signature(rsa_key)
    assert judged(by, [ed25519_signature(STRANGER)], [good_rsa]) == INVALID
    assert judged(by, ["AAAA"], [good_rsa]) == INVALID
    assert judged(by, [ed25519_signature(FIRST), "N/A"], [good_rsa]) == INVALID
    # And a bad RSA signature does no harm to a good one.
    assert judged(by, [ed25519_signature(FIRST)], ["AAAA"]) is None


@needs_shared
def test_the_default_key_is_the_one_that_ghl_publishes() -> None:
    published = (SHARED / "ghl/keys/x-ghl-signature.ed25519.pem").read_text()
    [key], [default] = split_pem(published), split_pem(GHL_PUBLIC_KEY)
    assert isinstance(key, Ed25519PublicKey)
    assert key == default
    assert load_settings().ghl_public_keys == GHL_PUBLIC_KEY
    assert len(Verifier.from_pem(GHL_PUBLIC_KEY, accept_rsa=True).ed25519) == 1


@needs_shared
def test_ghls_retired_rsa_key_can_be_listed_beside_the_current_one() -> None:
    rsa = (SHARED / "ghl/keys/x-wh-signature.rsa.legacy.pem").read_text()
    both = Verifier.from_pem(GHL_PUBLIC_KEY + rsa, accept_rsa=True)
    assert (len(both.ed25519), len(both.rsa)) == (1, 1)
    assert Verifier.from_pem(GHL_PUBLIC_KEY + rsa, accept_rsa=False).rsa == ()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda pem: pem.replace("\n", "\\n"),
        lambda pem: pem.replace("\n", "\r\n"),
        lambda pem: f"  {pem}  ",
        lambda pem: f"# the key of 2026\n{pem}# the end\n",
        lambda pem: '"' + pem.replace("\n", "\\n") + '"',
    ],
    ids=["literal \\n", "CRLF", "spaces", "comments", "quotes"],
)
def test_keys_are_read_however_a_settings_file_wraps_them(wrap: Callable[[str], str]) -> None:
    by = verifier(wrap(FIRST.pem), wrap(SECOND.pem))
    assert judged(by, [ed25519_signature(FIRST)]) is None
    assert judged(by, [ed25519_signature(SECOND)]) is None


def test_a_key_with_literal_line_ends_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GHL_PUBLIC_KEYS", FIRST.pem.replace("\n", "\\n"))
    by = Verifier.from_pem(load_settings().ghl_public_keys, accept_rsa=False)
    assert judged(by, [ed25519_signature(FIRST)]) is None


def test_keys_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    file.write_text(FIRST.pem + SECOND.pem)
    monkeypatch.setenv("GHL_PUBLIC_KEYS_FILE", str(file))
    assert len(split_pem(load_settings().ghl_public_keys)) == 2


UNUSABLE = {
    "empty": ("", "PEM block"),
    "no PEM": ("MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg=", "PEM block"),
    "cut": (FIRST.pem[:60] + "\n-----END PUBLIC KEY-----", "PEM block 1 can't be read"),
    "no base64": ("-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----", "PEM block 1"),
    "not ASCII": ("-----BEGIN PUBLIC KEY-----\né\n-----END PUBLIC KEY-----", "PEM block 1"),
    "second is bad": (
        FIRST.pem + "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "PEM block 2",
    ),
    "another kind": (pem_of(ec.generate_private_key(ec.SECP256R1())), "neither"),
}


@pytest.mark.parametrize(("text", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_key_is_an_error_of_the_settings_that_names_the_variable(
    text: str, said: str
) -> None:
    with pytest.raises(UnusableKey, match=said):
        split_pem(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(ghl_public_keys=text)
    [problem] = caught.value.problems
    assert problem.startswith("GHL_PUBLIC_KEYS: ")
    assert said in problem
