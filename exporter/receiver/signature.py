"""Check GHL's signatures over the raw body: Ed25519, and the retired RSA where it is turned on."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

ED25519_HEADER = "X-GHL-Signature"
RSA_HEADER = "X-WH-Signature"

# The public half of the key that GHL signs every app's webhooks with, as it publishes it.
GHL_PUBLIC_KEY = """\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg=
-----END PUBLIC KEY-----
"""

_PEM_BLOCK = re.compile(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)
# GHL sends this text where it has not signed.
_NO_SIGNATURE = "N/A"


class UnusableKey(ValueError):
    """A PEM block is no Ed25519 or RSA public key."""


class Rejected(Exception):
    """The webhook isn't GHL's; `reason` is a label value, `detail` is for the sender."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


MISSING = "signature_missing"
INVALID = "signature_invalid"


def split_pem(text: str) -> list[Ed25519PublicKey | RSAPublicKey]:
    """Read the public keys of one or more PEM blocks. Raises UnusableKey."""
    # A `.env` file keeps line ends as the two characters \n.
    blocks = _PEM_BLOCK.findall(text.replace("\\n", "\n"))
    if not blocks:
        raise UnusableKey("holds no PEM block (-----BEGIN PUBLIC KEY-----)")
    keys: list[Ed25519PublicKey | RSAPublicKey] = []
    for number, block in enumerate(blocks, 1):
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UnusableKey(f"PEM block {number} can't be read: {error}") from None
        if not isinstance(key, Ed25519PublicKey | RSAPublicKey):
            raise UnusableKey(f"PEM block {number} is neither an Ed25519 nor an RSA public key")
        keys.append(key)
    return keys


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
