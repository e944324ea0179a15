"""Find the SQL that a wheel carries, or that lies beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def bundled(name: str) -> Path:
    """Return the directory `name`.

    A wheel carries these directories under `exporter/bundled`; in a checkout they are at the top
    level. Raises FileNotFoundError where neither exists.
    """
    for candidate in (_PACKAGE / "bundled" / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"this installation of ghl-exporter lacks its directory {name!r}")
