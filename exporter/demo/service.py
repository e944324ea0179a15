"""The service beside the demo's servers: a process of its own, set up by its environment."""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from exporter.demo.servers._process import PORT_PATIENCE, Server, ServerError
from exporter.service.sockets import ListenError, own_socket

_LOOK_AGAIN = 0.1  # seconds


def require_free(setting: str, address: str) -> None:
    """Wait a little for an address, host:port, that a predecessor still has.

    Raises ServerError, which names the setting that the address is of.
    """
    until = time.monotonic() + PORT_PATIENCE
    while True:
        try:
            own_socket(setting, address).close()
        except ListenError as error:
            if time.monotonic() > until:
                raise ServerError(str(error)) from error
            time.sleep(_LOOK_AGAIN)
        else:
            return


class Service(Server):
    """`ghl-exporter serve`, as its users run it; it ends with the demo, however that ends."""

    name = "service"
    retry_on = ()

    def __init__(self, directory: Path, address: str, settings: Mapping[str, object]) -> None:
        """`settings` by their names in the environment; what is no text becomes JSON."""
        host, _, port = address.rpartition(":")
        super().__init__(directory, port=int(port))
        self._address = address
        self._host = host.strip("[]")
        self._settings = settings

    def url(self) -> str:
        """http:// URL without a path."""
        return f"http://{self._address}"

    def ended_with(self) -> int | None:
        """Status of a service that has ended by itself, else None."""
        return self._process.poll() if self._process is not None else None

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "exporter", "serve"]

    def _environment(self) -> dict[str, str]:
        given = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self._settings.items()
        }
        return {**os.environ, **given, "LISTEN_ADDRESS": self._address}

    def _is_ready(self, pid: int) -> bool:
        # Not through the proxy that HTTP_PROXY may name.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.url()}/-/ready", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False
