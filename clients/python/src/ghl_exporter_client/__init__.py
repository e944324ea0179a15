"""The client of ghl-exporter without the service: the code of its package `exporter.client`."""

from .client import *  # noqa: F403
from .client import __all__ as __all__
