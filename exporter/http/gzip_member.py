"""Make one gzip member of a part that is compressed beforehand and one that is not.

Gzip data may consist of several members, but browsers and other clients read the first alone. So
the blocks of the first part are kept without header and trailer, and its checksum is carried on.
"""

import struct
import zlib
from dataclasses import dataclass

# Deflate, no name, no time, fastest, unknown system (RFC 1952).
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LEVEL = 1


@dataclass(frozen=True)
class Compressed:
    """Deflate blocks that end at a whole byte, so that others can follow; `size` in bytes."""

    blocks: bytes
    crc: int
    size: int


def compress_first(text: bytes) -> Compressed:
    """Compress the part that comes first."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    blocks = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
    return Compressed(blocks, zlib.crc32(text), len(text))


def gzip_member(first: Compressed, rest: bytes) -> bytes:
    """Return both parts as one gzip member; only the second is compressed now."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    last = packer.compress(rest) + packer.flush()
    size = (first.size + len(rest)) % 2**32
    trailer = struct.pack("<II", zlib.crc32(rest, first.crc), size)
    return b"".join((_HEADER, first.blocks, last, trailer))
