"""The demo's own key, in the place of GHL's: what it signs, the service takes."""

import base64
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.signing import SigningKey

from exporter.receiver.signature import ED25519_HEADER
from exporter.support.private_file import write_private


def signing_key(directory: Path) -> SigningKey:
    """Return the key that is kept in a directory; made at the first time."""
    path = directory / "signing.key"
    if not path.exists():
        write_private(path, bytes(SigningKey.generate()))
    return SigningKey(path.read_bytes())


def public_pem(key: SigningKey) -> str:
    """Return the public half as `GHL_PUBLIC_KEYS` takes it."""
    public = Ed25519PublicKey.from_public_bytes(bytes(key.verify_key))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signature_headers(key: SigningKey, body: bytes) -> dict[str, str]:
    """Return the headers that a signed webhook carries."""
    return {ED25519_HEADER: base64.b64encode(key.sign(body).signature).decode()}
