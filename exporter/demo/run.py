"""`ghl-exporter demo`: embedded servers, the service, an agency; Ctrl-C stops all of it."""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.signing import SigningKey
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from exporter.database.connect import connect
from exporter.database.migrations import migrate
from exporter.demo.agency import DEMO_PIPELINE_STAGES, DEMO_TIME_ZONES, Agency
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey, Prometheus, ServerError
from exporter.demo.traffic import LiveTraffic, last_received, write_history
from exporter.settings import Settings, SettingsError, load_settings

_ADDRESS = "127.0.0.1:12105"
_READY_WITHIN = 30.0


def run_demo(options: argparse.Namespace, console: Console) -> int:
    """Run the demo until Ctrl-C and return its exit status."""
    # SIGTERM ends it like Ctrl-C: nothing is left running.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with ExitStack() as stack:
            _run(options, console, stack)
    except KeyboardInterrupt:
        console.print("stopped")
    except (ServerError, SettingsError, OSError) as error:
        console.print(f"[red]wrong[/]  {error}")
        return 1
    return 0


def _run(options: argparse.Namespace, console: Console, stack: ExitStack) -> None:
    directory = Path(options.directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    address = os.environ.get("LISTEN_ADDRESS", _ADDRESS)
    with console.status("starting PostgreSQL and Valkey"):
        postgres = stack.enter_context(EmbeddedPostgres(directory))
        valkey = stack.enter_context(EmbeddedValkey(directory))
    key = _signing_key(directory)
    settings = load_settings(
        _env_file=None,
        database_url=postgres.url(),
        redis_url=valkey.url(),
        listen_address=address,
        spool_path=directory / "spool.sqlite3",
        ghl_public_keys=_pem(key),
        time_zones=DEMO_TIME_ZONES,
        pipeline_stages=DEMO_PIPELINE_STAGES,
        kpi_interval=5,
    )
    agency = Agency(seed=1)
    now = datetime.now(UTC)
    asyncio.run(_prepare(settings, agency, now, options.days, console))
    service = _start_service(settings, directory)
    stack.callback(_stop_service, service)
    url = f"http://{address}"
    _wait_ready(service, url, directory)
    _say_where(console, url, postgres, directory, _start_prometheus(directory, address, stack))
    traffic = LiveTraffic(agency, key, url, options.rate)
    asyncio.run(_send_and_show(traffic, now, service, console))


def _signing_key(directory: Path) -> SigningKey:
    """Return the demo's own key, in GHL's place; made at the first start."""
    path = directory / "signing.key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_bytes(bytes(SigningKey.generate()))
    return SigningKey(path.read_bytes())


def _pem(key: SigningKey) -> str:
    public = Ed25519PublicKey.from_public_bytes(bytes(key.verify_key))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


async def _prepare(
    settings: Settings, agency: Agency, now: datetime, days: int, console: Console
) -> None:
    """Bring the database up to date and write the history that it lacks."""
    connection = await connect(settings, "demo")
    try:
        await migrate(connection)
        since = await last_received(connection) or now - timedelta(days=days)
        span = (now - since).total_seconds()
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[webhooks]:,} webhooks"),
            TimeElapsedColumn(),
            console=console,
        ) as bar:
            task = bar.add_task("history", total=span, webhooks=0)
            count = await write_history(
                connection,
                agency,
                since,
                now,
                lambda done, at: bar.update(
                    task, completed=(at - since).total_seconds(), webhooks=done
                ),
            )
            bar.update(task, completed=span, webhooks=count)
    finally:
        await connection.close()


def _start_service(settings: Settings, directory: Path) -> subprocess.Popen[bytes]:
    """Start the service as its users do: a process of its own, set up by its environment."""
    database, redis = settings.database_url, settings.redis_url
    assert redis is not None
    environment = {
        **os.environ,
        "DATABASE_URL": database.get_secret_value(),
        "REDIS_URL": redis.get_secret_value(),
        "LISTEN_ADDRESS": settings.listen_address,
        "SPOOL_PATH": str(settings.spool_path),
        "GHL_PUBLIC_KEYS": settings.ghl_public_keys,
        "TIME_ZONES": json.dumps(settings.time_zones),
        "PIPELINE_STAGES": json.dumps(settings.pipeline_stages),
        "KPI_INTERVAL": str(settings.kpi_interval),
        "LOG_FORMAT": "json",
    }
    with (directory / "service.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "exporter", "serve"],
            env=environment,
            stdout=log,
            stderr=log,
            # Ctrl-C in the terminal is for the demo, which then stops the service in its turn.
            start_new_session=True,
        )


def _stop_service(service: subprocess.Popen[bytes]) -> None:
    service.terminate()
    try:
        service.wait(15)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


def _wait_ready(service: subprocess.Popen[bytes], url: str, directory: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        if service.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=2):  # noqa: S310 - our own URL
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    log = (directory / "service.log").read_text(encoding="utf-8", errors="replace")
    raise ServerError(f"the service did not get ready:\n{log[-2000:]}")


def _start_prometheus(directory: Path, address: str, stack: ExitStack) -> str | None:
    if not Prometheus.available():
        return None
    config = (
        "global: {scrape_interval: 5s, evaluation_interval: 15s}\n"
        "scrape_configs:\n"
        "  - job_name: ghl-exporter\n"
        f"    static_configs: [{{targets: ['{address}']}}]\n"
    )
    return stack.enter_context(Prometheus(directory, config=config)).url()


def _say_where(
    console: Console,
    url: str,
    postgres: EmbeddedPostgres,
    directory: Path,
    prometheus: str | None,
) -> None:
    console.print(f"\n  state of the service   {url}/")
    console.print(f"  metrics and KPIs       {url}/metrics")
    console.print(
        f"  Prometheus             {prometheus or 'not installed: apt install prometheus'}"
    )
    console.print(f"  PostgreSQL             {postgres.url()}", soft_wrap=True)
    console.print(f"  log of the service     {directory / 'service.log'}", soft_wrap=True)
    console.print("\n  Ctrl-C stops everything; the next start continues.\n")


async def _send_and_show(
    traffic: LiveTraffic, since: datetime, service: subprocess.Popen[bytes], console: Console
) -> None:
    sending = asyncio.create_task(traffic.run(since))
    try:
        with console.status("sending") as status:
            while not sending.done():
                if service.poll() is not None:
                    raise ServerError(f"the service ended with status {service.returncode}")
                status.update(
                    f"sending: {traffic.sent:,} webhooks, {traffic.refused:,} tried again"
                )
                await asyncio.sleep(1)
        await sending
    finally:
        sending.cancel()
