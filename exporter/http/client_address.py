"""Tell clients apart by their address, also behind proxies that are trusted."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

FORWARDED_HEADER = "X-Forwarded-For"

# A host usually has a whole network of this size, and can use any address of it.
_IPV6_PREFIX = 64


class Clients:
    """Finds out whose a request is.

    `X-Forwarded-For` is believed only where a trusted proxy sends it, and only back to the first
    address that is no trusted proxy's: what stands before that, anybody can have written.
    """

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted = [ip_network(text, strict=False) for text in trusted_proxies]

    def of(self, request: web.BaseRequest) -> str:
        """Return a key of the request's client."""
        address = request.remote or ""
        if not self._trusted or not self.trusts(address):
            return key_of(address)
        forwarded = ",".join(request.headers.getall(FORWARDED_HEADER, ())).split(",")
        for given in reversed(forwarded):
            address = given.strip() or address
            if not self.trusts(address):
                break
        return key_of(address)

    def trusts(self, address: str) -> bool:
        """Tell whether an address is a trusted proxy's. A Unix socket, which has none, is."""
        if not address:
            return True
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def key_of(address: str) -> str:
    """Return what stands for an address: itself, of IPv6 its /64 network."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed), _IPV6_PREFIX), strict=False))
    # A text that is no address was written by a proxy: it has to be bounded, no more.
    return address[:64] if parsed is None else str(parsed)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    if address.startswith("["):  # some proxies write the port too: [::1]:80, 192.0.2.1:80
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
