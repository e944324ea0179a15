"""Raise the limit of file descriptors, and divide what there is."""

import resource

from exporter.settings import Settings

# Beyond this more connections only cost memory: an idle one takes some 20 KB.
_MOST_CONNECTIONS = 4096
# Standard streams, listening sockets, event loop, spool with its journal, migration, leader and
# lease, Redis, DNS, files that are opened for a moment.
_RESERVE = 48
_LEAST_CONNECTIONS = 8


def raise_descriptor_limit() -> int:
    """Raise the soft limit of file descriptors to the hard one and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # a container may forbid it: the soft one holds then
            return soft
    return hard


def connection_limit(settings: Settings, descriptors: int) -> int:
    """Return how many client connections may be open: what pools, spool and logs leave."""
    needed = _RESERVE + settings.database_writers + 2 * settings.database_pool_size
    # RLIM_INFINITY is negative.
    left = descriptors - needed if descriptors >= 0 else _MOST_CONNECTIONS
    return max(min(left, settings.max_connections, _MOST_CONNECTIONS), _LEAST_CONNECTIONS)
