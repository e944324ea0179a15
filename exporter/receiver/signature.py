"""Check GHL's signatures over the raw body: Ed25519, and the retired RSA where it is turned on."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from exporter.settings.public_keys import split_pem

ED25519_HEADER = "X-GHL-Signature"
RSA_HEADER = "X-WH-Signature"

# GHL sends this text where it has not signed.
_NO_SIGNATURE = "N/A"


class Rejected(Exception):
    """The webhook isn't GHL's; `reason` is a label value, `detail` is for the sender."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


MISSING = "signature_missing"
INVALID = "signature_invalid"


def _decode(value: str) -> bytes | None:
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None


@dataclass(frozen=True)
class Verifier:
    """Accepts a body that any of the keys signed; keys are rotated without a key id."""

    ed25519: tuple[VerifyKey, ...]
    rsa: tuple[RSAPublicKey, ...]

    @classmethod
    def from_pem(cls, text: str, *, accept_rsa: bool) -> "Verifier":
        """Make a verifier of PEM blocks. Raises UnusableKey."""
        keys = split_pem(text)
        return cls(
            # libsodium checks a signature in about half the time that OpenSSL takes.
            ed25519=tuple(
                VerifyKey(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
                for key in keys
                if isinstance(key, Ed25519PublicKey)
            ),
            rsa=tuple(key for key in keys if isinstance(key, RSAPublicKey)) if accept_rsa else (),
        )

    def has_signature(self, ed25519: Sequence[str], rsa: Sequence[str]) -> bool:
        """Tell whether the headers hold anything to check, before a body is read for it."""
        return _only_value(ed25519) is not None or (bool(self.rsa) and _only_value(rsa) is not None)

    def check(self, body: bytes, ed25519: Sequence[str], rsa: Sequence[str]) -> None:
        """Raise Rejected unless the body is signed.

        A body with `X-GHL-Signature` is judged by it alone. A header that is given twice with
        different values signs nothing.
        """
        value = _only_value(ed25519)
        if value is not None:
            self._check_ed25519(body, value)
            return
        value = _only_value(rsa)
        if value is not None and self.rsa:
            self._check_rsa(body, value)
            return
        raise Rejected(MISSING, f"the header {ED25519_HEADER} is missing")

    def _check_ed25519(self, body: bytes, value: str) -> None:
        signature = _decode(value)
        if signature is not None and len(signature) == 64:
            for key in self.ed25519:
                try:
                    key.verify(body, signature)
                except BadSignatureError:
                    continue
                return
        raise Rejected(INVALID, f"{ED25519_HEADER} is not a signature of this body by a known key")

    def _check_rsa(self, body: bytes, value: str) -> None:
        signature = _decode(value)
        if signature is not None:
            for key in self.rsa:
                try:
                    key.verify(signature, body, PKCS1v15(), SHA256())
                except InvalidSignature:
                    continue
                return
        raise Rejected(INVALID, f"{RSA_HEADER} is not a signature of this body by a known key")


def _only_value(values: Sequence[str]) -> str | None:
    """Return the header's one value, '' where there are several, None where there is none."""
    distinct = {value.strip() for value in values}
    if len(distinct) > 1:
        return ""
    return next((value for value in distinct if value and value != _NO_SIGNATURE), None)
