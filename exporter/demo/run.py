"""`ghl-exporter demo`: embedded servers, the service, an agency; Ctrl-C stops all of it."""

import argparse
import asyncio
import fcntl
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from pydantic import SecretStr
from rich.progress import TextColumn, TimeElapsedColumn

from exporter.api.keys import EVERYWHERE, READ, TRACK, create_key
from exporter.commands.output import Output
from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS, reason_of
from exporter.database.migrations import migrate
from exporter.demo.agency import DEMO_SETTINGS, Agency
from exporter.demo.past import LOOKBACK, Past
from exporter.demo.servers import EmbeddedPostgres, EmbeddedValkey, Prometheus, ServerError
from exporter.demo.service import Service, require_free
from exporter.demo.signing import public_pem, signing_key
from exporter.demo.traffic import LiveTraffic, last_received, write_history
from exporter.settings import SettingsError, load_settings
from exporter.support.bundled_files import bundled
from exporter.support.private_file import write_private

_ADDRESS = "127.0.0.1:12105"
_JOB = "ghl-exporter"
# Stored events that wait: fewer are only those of the moment.
_MANY = 1000


def run_demo(options: argparse.Namespace, output: Output) -> int:
    """Run the demo until Ctrl-C and return its exit status."""
    # Whoever starts it in the background may have turned Ctrl-C off for it; then nothing would
    # stop the servers. SIGTERM ends it like Ctrl-C: nothing is left running.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with ExitStack() as stack:
            try:
                _run(options, output, stack)
            finally:
                # A second Ctrl-C must not cut short what stops the servers.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except KeyboardInterrupt:
        output.say("stopped")
    except SettingsError as error:
        for problem in error.problems:
            output.error(problem)
        return 1
    except ServerError as error:
        output.error(str(error))
        return 1
    except DATABASE_ERRORS as error:
        output.error(reason_of(error))
        return 1
    return 0


def _run(options: argparse.Namespace, output: Output, stack: ExitStack) -> None:
    directory = Path(options.directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    stack.enter_context(_only_one(directory))
    address = os.environ.get("LISTEN_ADDRESS") or _ADDRESS
    # Before anything is started or written.
    given = load_settings(_env_file=None, listen_address=address)
    require_free("LISTEN_ADDRESS", address)
    if given.metrics_address is not None:
        require_free("METRICS_ADDRESS", given.metrics_address)
    scraped = given.metrics_address or address
    with output.progress.status("starting PostgreSQL and Valkey"):
        postgres = stack.enter_context(EmbeddedPostgres(directory))
        valkey = stack.enter_context(EmbeddedValkey(directory))
    key = signing_key(directory)
    settings: dict[str, object] = {
        "DATABASE_URL": postgres.url(),
        "REDIS_URL": valkey.url(),
        "SPOOL_PATH": str(directory / "spool.sqlite3"),
        "GHL_PUBLIC_KEYS": public_pem(key),
        **DEMO_SETTINGS,
        "LOG_FORMAT": "json",
    }
    service = Service(directory, address, settings)
    agency = Agency(seed=1)
    now = datetime.now(UTC)
    api_key = asyncio.run(_prepare(postgres.url(), agency, now, options.days, output, directory))
    with output.progress.status("starting the service"):
        stack.enter_context(service)
        prometheus = _start_prometheus(directory, address, scraped, given.metrics_token, stack)
    _say_where(output, service, scraped, postgres, prometheus, api_key)
    traffic = LiveTraffic(agency, key, service.url(), options.rate, api_key)
    past = _past(prometheus, settings, scraped, output)
    asyncio.run(_send_and_show(traffic, now, past, service, output))


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Refuse a second demo on the same data. Raises ServerError."""
    with (directory / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"another demo is running in {directory}") from None
        yield


async def _api_key(connection: asyncpg.Connection, directory: Path) -> str:
    """Return the demo's API key, for the platform and for people; made at the first start."""
    path = directory / "api.key"
    if not path.exists():
        made = await create_key(connection, "demo", [READ, TRACK], [EVERYWHERE])
        write_private(path, made)
    return path.read_text()


async def _prepare(
    database_url: str,
    agency: Agency,
    now: datetime,
    days: int,
    output: Output,
    directory: Path,
) -> str:
    """Bring the database up to date, write the history that it lacks; return the API key."""
    connection = await connect(load_settings(_env_file=None, database_url=database_url), "demo")
    try:
        await migrate(connection)
        since = await last_received(connection) or now - timedelta(days=days)
        span = (now - since).total_seconds()
        with output.bar(TextColumn("{task.fields[events]:,} events"), TimeElapsedColumn()) as bar:
            task = bar.add_task("history", total=span, events=0)
            count = await write_history(
                connection,
                agency,
                since,
                now,
                lambda done, at: bar.update(
                    task, completed=(at - since).total_seconds(), events=done
                ),
            )
            bar.update(task, completed=span, events=count)
        return await _api_key(connection, directory)
    finally:
        await connection.close()


def _start_prometheus(
    directory: Path, address: str, scraped: str, token: SecretStr | None, stack: ExitStack
) -> Prometheus | None:
    if not Prometheus.available():
        return None
    rules = [str(bundled(name).resolve() / "*.yml") for name in ("recording_rules", "alerts")]
    # Alerts lead to boards and runbooks by these.
    links = {"grafana": "http://127.0.0.1:3000", "runbooks": f"http://{address}/runbooks"}
    config = (
        "global:\n"
        "  scrape_interval: 5s\n"
        "  evaluation_interval: 15s\n"
        f"  external_labels: {json.dumps(links)}\n"
        f"rule_files: {json.dumps(rules)}\n"
        "scrape_configs:\n"
        f"  - job_name: {_JOB}\n"
        f"    static_configs: [{{targets: ['{scraped}']}}]\n"
    )
    if token is not None:
        credentials = json.dumps(token.get_secret_value())
        config += f"    authorization: {{credentials: {credentials}}}\n"
    return stack.enter_context(Prometheus(directory, config=config, lookback=LOOKBACK))


def _past(
    prometheus: Prometheus | None, settings: Mapping[str, object], scraped: str, output: Output
) -> Past | None:
    if prometheus is None:
        return None
    if not Past.available():
        output.say("  promtool is not on PATH: Prometheus begins without a past\n")
        return None
    given = {name.lower(): value for name, value in settings.items()}
    labels = {"job": _JOB, "instance": scraped}
    return Past(load_settings(_env_file=None, **given), prometheus, labels)


def _say_where(
    output: Output,
    service: Service,
    scraped: str,
    postgres: EmbeddedPostgres,
    prometheus: Prometheus | None,
    api_key: str,
) -> None:
    for what, where in (
        ("state of the service", f"{service.url()}/"),
        ("metrics and KPIs", f"http://{scraped}/metrics"),
        ("the API, for people", f"{service.url()}/docs"),
        ("a key for the API", api_key),
        ("Prometheus", f"{prometheus.url()}/graph" if prometheus else "not found on PATH"),
        ("its alerts", f"{prometheus.url()}/alerts" if prometheus else ""),
        ("PostgreSQL", postgres.url()),
        ("log of the service", str(service.log)),
    ):
        if where:
            output.result(f"  {what:<22} {where}")
    output.say("\n  Ctrl-C stops everything; the next start continues.\n")


async def _write_past(past: Past, output: Output) -> None:
    try:
        samples = await past.write()
    except Exception as error:  # the demo goes on without
        output.say(f"  Prometheus has no past: {error!r}")
        return
    if samples:
        output.say(f"  Prometheus has a past of {samples:,} samples; it shows within a minute\n")


async def _send_and_show(
    traffic: LiveTraffic, since: datetime, past: Past | None, service: Service, output: Output
) -> None:
    sending = asyncio.create_task(traffic.run(since))
    writing = asyncio.create_task(_write_past(past, output)) if past else None
    try:
        with output.progress.status("sending") as status:
            while not sending.done():
                await asyncio.sleep(1)
                if (status_code := service.ended_with()) is not None:
                    raise ServerError(
                        f"the service ended with status {status_code}; its log: {service.log}"
                    )
                waiting = await traffic.waiting()
                behind = (
                    f"history becomes facts, {waiting:,} events wait; " if waiting > _MANY else ""
                )
                meanwhile = f"{past.progress}; " if past and past.progress else ""
                status.update(
                    f"{behind}{meanwhile}sending: {traffic.sent:,} webhooks, "
                    f"{traffic.refused:,} tried again, {traffic.tracked:,} tracking calls"
                )
        await sending
    finally:
        sending.cancel()
        if writing is not None:
            writing.cancel()
