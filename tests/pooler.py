"""PgBouncer, where it is installed: `apt install pgbouncer`, or tests/install-servers.sh."""

import os
import shutil
from pathlib import Path

from exporter.demo.servers import EmbeddedPostgres
from exporter.demo.servers._process import Server

_PATHS = ("/usr/sbin", "/usr/bin", "/usr/local/bin")


def _binary() -> str | None:
    return shutil.which("pgbouncer", path=os.pathsep.join((os.environ["PATH"], *_PATHS)))


class PgBouncer(Server):
    """A pooler before one server, with the defaults of its package but for the pool's mode."""

    name = "pgbouncer"

    def __init__(
        self, directory: Path, postgres: EmbeddedPostgres, pool_mode: str, **settings: str
    ) -> None:
        super().__init__(directory)
        self._postgres = postgres
        self._settings = {"pool_mode": pool_mode, **settings}

    @staticmethod
    def available() -> bool:
        return _binary() is not None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def _prepare(self) -> None:
        super()._prepare()
        password = self._postgres.url().split(":")[2].partition("@")[0]
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={self._postgres.port} user=postgres password={password}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "auth_type = any",
            "unix_socket_dir =",
            *(f"{name} = {value}" for name, value in self._settings.items()),
        ]
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def _config(self) -> Path:
        return self.directory / "pgbouncer.ini"

    def _command(self) -> list[str]:
        binary = _binary()
        assert binary is not None
        # It refuses to run as root.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        return [binary, *user, str(self._config)]

    def _is_ready(self, pid: int) -> bool:
        return self.log.exists() and "process up" in self.log.read_text("utf-8", "replace")
