"""A service of our own for `validate`: embedded servers in a directory that goes at the end."""

import asyncio
import os
import shutil
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

from exporter.api.keys import ADMIN, EVERYWHERE, create_key
from exporter.database.connect import connect
from exporter.database.migrations import migrate
from exporter.settings import Settings, load_settings
from exporter.validate.progress import Progress
from exporter.validate.target import Target, ValidateError

_PORT_TRIES = 5


def start_own(stack: ExitStack, progress: Progress) -> Target:
    """Start PostgreSQL, Valkey and a service; `stack` stops them. Raises ValidateError."""
    try:
        from exporter.demo.servers import (  # noqa: PLC0415 - needs the extra `demo`
            EmbeddedPostgres,
            EmbeddedValkey,
            ServerError,
        )
        from exporter.demo.signing import public_pem, signing_key  # noqa: PLC0415
    except ImportError as error:
        raise ValidateError(
            f"{error}: install ghl-exporter[demo], or name a service that runs with --url"
        ) from error
    _forget_settings()
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ghl-validate-")))
    # The server of the database runs as another user where this is root.
    directory.chmod(0o755)
    try:
        with progress.phase("starting PostgreSQL, Valkey and the service"):
            postgres = EmbeddedPostgres(directory)
            # Not in the directory where TMPDIR is closed to the user that PostgreSQL runs as.
            stack.callback(lambda: shutil.rmtree(postgres.location, ignore_errors=True))
            stack.enter_context(postgres)
            valkey = stack.enter_context(EmbeddedValkey(directory))
            key = signing_key(directory)
            of_database = load_settings(_env_file=None, database_url=postgres.url())
            api_key = asyncio.run(_open_database(of_database))
            values = {
                "DATABASE_URL": postgres.url(),
                "REDIS_URL": valkey.url(),
                "SPOOL_PATH": str(directory / "spool.sqlite3"),
                "GHL_PUBLIC_KEYS": public_pem(key),
                "KPI_INTERVAL": "2",
                "PROJECTION_BATCH_SIZE": "4000",
                "API_REQUESTS_PER_MINUTE": "100000",
                "LOG_FORMAT": "json",
            }
            url = _start_service(stack, directory, values)
    except ServerError as error:
        raise ValidateError(str(error)) from error
    return Target(url, api_key, own=True, signing_key=key, settings=of_database)


def _forget_settings() -> None:
    """Take the exporter's settings out of the environment: they are another service's."""
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
        os.environ.pop(f"{name.upper()}_FILE", None)


def _start_service(stack: ExitStack, directory: Path, values: dict[str, str]) -> str:
    from exporter.demo.servers import ServerError  # noqa: PLC0415
    from exporter.demo.service import Service  # noqa: PLC0415

    for attempt in range(1, _PORT_TRIES + 1):
        service = Service(directory, f"127.0.0.1:{_free_port()}", values)
        try:
            stack.enter_context(service)
        except ServerError:
            # Somebody else may have taken the port meanwhile.
            if attempt == _PORT_TRIES:
                raise
        else:
            return service.url()
    raise AssertionError("unreachable")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _open_database(settings: Settings) -> str:
    connection = await connect(settings, "validate")
    try:
        await migrate(connection)
        return await create_key(connection, "validate", [ADMIN], [EVERYWHERE])
    finally:
        await connection.close()
