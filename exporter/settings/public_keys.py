"""The public keys that webhooks are verified with: GHL's own, and how PEM text is read."""

import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

# The public half of the key that GHL signs every app's webhooks with, as it publishes it.
GHL_PUBLIC_KEY = """\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAi2HR1srL4o18O8BRa7gVJY7G7bupbN3H9AwJrHCDiOg=
-----END PUBLIC KEY-----
"""

_PEM_BLOCK = re.compile(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


class UnusableKey(ValueError):
    """A PEM block is no Ed25519 or RSA public key."""


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
