"""A Prometheus server, from the `prometheus` found on PATH."""

import shutil
import urllib.request
from pathlib import Path

from ._process import Server, ServerError


class Prometheus(Server):
    """Keeps its samples in the directory for 35 days."""

    name = "prometheus"
    retry_on = ("address already in use", "lock db directory")

    def __init__(self, directory: Path, *, config: Path | str, port: int = 0) -> None:
        """config is a Path to a configuration file, or its text as a str."""
        super().__init__(directory, port=port)
        self._config = config

    @staticmethod
    def available() -> bool:
        """Whether `prometheus` is on PATH."""
        return shutil.which("prometheus") is not None

    def url(self) -> str:
        """http:// URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        binary = shutil.which("prometheus")
        if binary is None:
            raise ServerError("there is no `prometheus` on PATH: install it (apt, brew, ...)")
        if isinstance(self._config, Path):
            config = self._config.absolute()
        else:
            config = self.directory / "prometheus.yml"
            config.write_text(self._config, "utf-8")
        return [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'prometheus-data'}",
            "--storage.tsdb.retention.time=35d",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def _is_ready(self, pid: int) -> bool:
        # Not through the proxy that HTTP_PROXY may name.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.url()}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
