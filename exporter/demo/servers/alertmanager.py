"""An Alertmanager, from the one found on PATH."""

import shutil

from ._process import ServerError
from .prometheus import ConfiguredServer


def _binary() -> str | None:
    # Debian calls it by the longer name.
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


class Alertmanager(ConfiguredServer):
    """Keeps silences and what it has sent in the directory. It is alone: no cluster."""

    name = "alertmanager"

    @staticmethod
    def available() -> bool:
        """Whether an Alertmanager is on PATH."""
        return _binary() is not None

    def _command(self) -> list[str]:
        binary = _binary()
        if binary is None:
            raise ServerError(
                "there is no `alertmanager` on PATH: install it (apt install "
                "prometheus-alertmanager, brew, ...)"
            )
        return [
            binary,
            f"--config.file={self._config_file}",
            f"--storage.path={self.directory / 'alertmanager-data'}",
            "--cluster.listen-address=",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
