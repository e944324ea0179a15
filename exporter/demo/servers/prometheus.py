"""A Prometheus server, from the `prometheus` found on PATH."""

import re
import shutil
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from exporter.support.private_file import write_private

from ._process import Server, ServerError


class ConfiguredServer(Server):
    """What Prometheus and Alertmanager share: a configuration file, and `/-/ready`."""

    def __init__(self, directory: Path, *, config: Path | str, port: int = 0) -> None:
        """config is a Path to a configuration file, or its text as a str."""
        super().__init__(directory, port=port)
        self._config = config

    def url(self) -> str:
        """http:// URL without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def _config_file(self) -> Path:
        if isinstance(self._config, Path):
            return self._config.absolute()
        path = self.directory / f"{self.name}.yml"
        # A scrape job can hold a token.
        write_private(path, self._config)
        return path

    def _get(self, path: str) -> bytes:
        # Not through the proxy that HTTP_PROXY may name.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(self.url() + path, timeout=1) as answer:
            body: bytes = answer.read()
            return body

    def _is_ready(self, pid: int) -> bool:
        try:
            self._get("/-/ready")
        except OSError:
            return False
        return True


class Prometheus(ConfiguredServer):
    """Keeps its samples in the directory for 70 days: boards compare 30 with the 30 before."""

    name = "prometheus"
    retry_on = ("address already in use", "lock db directory")

    def __init__(
        self, directory: Path, *, config: Path | str, port: int = 0, lookback: str = "5m"
    ) -> None:
        """lookback is how old a sample may be that a query still takes for the present."""
        super().__init__(directory, config=config, port=port)
        self._lookback = lookback

    @staticmethod
    def available() -> bool:
        """Whether `prometheus` is on PATH."""
        return shutil.which("prometheus") is not None

    @property
    def data(self) -> Path:
        """The folder of its blocks."""
        return self.directory / "prometheus-data"

    def oldest_sample(self) -> datetime | None:
        """Return the time of the oldest sample that it holds, None where it holds none.

        Raises OSError where it does not answer.
        """
        said = self._get("/metrics").decode()
        match = re.search(r"^prometheus_tsdb_lowest_timestamp_seconds (\S+)$", said, re.MULTILINE)
        # An empty database says the largest number there is.
        if match is None or (seconds := float(match[1])) > 1e12:
            return None
        return datetime.fromtimestamp(seconds, UTC)

    def _command(self) -> list[str]:
        binary = shutil.which("prometheus")
        if binary is None:
            raise ServerError("there is no `prometheus` on PATH: install it (apt, brew, ...)")
        return [
            binary,
            f"--config.file={self._config_file}",
            f"--storage.tsdb.path={self.data}",
            "--storage.tsdb.retention.time=70d",
            f"--query.lookback-delta={self._lookback}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
