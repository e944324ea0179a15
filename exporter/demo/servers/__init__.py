"""Real servers as direct child processes, for the demo and the tests (Linux)."""

from ._process import Server, ServerError
from .alertmanager import Alertmanager
from .postgres import EmbeddedPostgres
from .prometheus import Prometheus
from .valkey import EmbeddedValkey

__all__ = [
    "Alertmanager",
    "EmbeddedPostgres",
    "EmbeddedValkey",
    "Prometheus",
    "Server",
    "ServerError",
]
