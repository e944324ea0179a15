"""Undo a body's Content-Encoding piece by piece, within bounds.

Legal, and refused by a plain `zlib.decompress`: gzip data of several members, zeros after its end,
deflate with and without the zlib header (RFC 9110 means the former, many clients send the latter).
"""

import zlib

# Each member costs a new decompressor, however few bytes it holds.
_MOST_MEMBERS = 1_000
_MOST_CODINGS = 2
_GZIP, _DEFLATE = frozenset({"gzip", "x-gzip"}), frozenset({"deflate"})


class TooLarge(Exception):
    """The body is larger than it may be."""


class BadEncoding(Exception):
    """The body's Content-Encoding is unknown or its data is damaged."""


class Decoder:
    """Decodes one body. `limit`: bytes that the body, and what it was made of, may have at most."""

    def __init__(self, encoding: str, limit: int) -> None:
        """`encoding`: the header's value, '' without one. Raises BadEncoding."""
        names = [name for part in encoding.split(",") if (name := part.strip().lower())]
        codings = [name for name in names if name != "identity"]
        if len(codings) > _MOST_CODINGS or not set(codings) <= _GZIP | _DEFLATE:
            raise BadEncoding(f"Content-Encoding {encoding[:40]!r} is not supported")
        # The header lists them in the order in which they were applied.
        self._codings = [_Coding(name in _GZIP, limit) for name in reversed(codings)]

    def feed(self, data: bytes) -> bytes:
        """Return what these bytes decode to. Raises BadEncoding or TooLarge."""
        for coding in self._codings:
            data = coding.feed(data)
        return data

    def finish(self) -> None:
        """Raise BadEncoding where the data is not complete."""
        for coding in self._codings:
            coding.finish()


class _Coding:
    """One coding of a body."""

    def __init__(self, is_gzip: bool, limit: int) -> None:
        self._is_gzip = is_gzip
        self._left = limit
        self._inflate: zlib._Decompress | None = None
        self._members = 0
        self._start = b""

    def feed(self, data: bytes) -> bytes:
        pieces = []
        while data:
            if self._inflate is None:
                data = self._begin(data)
                if self._inflate is None:
                    break
            try:
                # One byte more than there may be tells that there are too many.
                piece = self._inflate.decompress(data, self._left + 1)
            except zlib.error as error:
                raise BadEncoding(str(error)) from None
            if len(piece) > self._left:
                raise TooLarge
            self._left -= len(piece)
            pieces.append(piece)
            if not self._inflate.eof:
                break
            data = self._inflate.unused_data
            self._inflate = None
            self._members += 1
        return b"".join(pieces)

    def _begin(self, data: bytes) -> bytes:
        """Make a decompressor for what begins here, if anything does; return what it is to read."""
        if self._members:
            data = data.lstrip(b"\0")
            if data and not self._is_gzip:
                raise BadEncoding("the deflate data has something after its end")
        if not data:
            return b""
        if self._is_gzip:
            if self._members == _MOST_MEMBERS:
                raise BadEncoding(f"the gzip data has more than {_MOST_MEMBERS} members")
            self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
            return data
        data = self._start + data
        if len(data) < 2:
            self._start = data
            return b""
        # RFC 1950: the method is 8, and the two bytes are a multiple of 31. No encoder begins raw
        # deflate data so: it would be a stored block with padding that is not zero.
        has_header = data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        return data

    def finish(self) -> None:
        if self._inflate is not None or not self._members:
            raise BadEncoding("the compressed data is cut off")
