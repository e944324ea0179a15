"""`ghl-exporter simulate`: the agency and its platform, against a service that runs elsewhere."""

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg
import orjson
from nacl.signing import SigningKey

from exporter.api.audit import audit_command
from exporter.api.keys import EVERYWHERE, READ, TRACK, create_key, list_keys, revoke_key
from exporter.commands.output import Output
from exporter.database.connect import connect
from exporter.database.errors import DATABASE_ERRORS, reason_of
from exporter.database.migrations import pending
from exporter.demo.agency import DEMO_SETTINGS, Agency
from exporter.demo.signing import public_pem, signature_headers
from exporter.demo.traffic import LiveTraffic, as_received, write_history
from exporter.settings import Settings
from exporter.support.private_file import write_private

_KEY_NAME = "simulate"
# What is sent first. It is told once, at the history's beginning, and no fact follows from it.
_PROBE = "INSTALL"
_TIMEOUT = aiohttp.ClientTimeout(total=5)
# Seconds between two lines about what was sent.
_TELL_EVERY = 60.0


class SimulateError(Exception):
    """The agency can't be simulated here; the text says why."""


def run_simulate(settings: Settings, options: argparse.Namespace, output: Output) -> int:
    """Make the key, print settings, or simulate until stopped; return the exit status."""
    try:
        if options.make_key:
            make_key(options.key_file)
        elif options.settings:
            output.result(settings_text(options.key_file).removesuffix("\n"))
        else:
            asyncio.run(_until_stopped(_simulate(settings, options, output), output))
    except SimulateError as error:
        output.error(str(error))
        return 1
    except DATABASE_ERRORS as error:
        output.error(reason_of(error))
        return 1
    return 0


def public_half(key_file: Path) -> Path:
    """Return where the public half of a key lies: beside it."""
    return key_file.with_name(f"{key_file.name}.pub")


def make_key(key_file: Path) -> None:
    """Make a signing key unless there is one, and write its public half beside it."""
    if not key_file.exists():
        # Whole or not at all: half a key would be kept for ever.
        half_written = key_file.with_name(f"{key_file.name}.new")
        half_written.unlink(missing_ok=True)
        write_private(half_written, bytes(SigningKey.generate()))
        half_written.replace(key_file)
    public_half(key_file).write_text(public_pem(_read_key(key_file)), encoding="ascii")


def settings_text(key_file: Path) -> str:
    """Return what a service has to be set to for the agency, as an environment file."""
    values: dict[str, object] = {
        "GHL_PUBLIC_KEYS_FILE": str(public_half(key_file)),
        **DEMO_SETTINGS,
    }
    lines = [f"# Written by: ghl-exporter simulate --settings --key-file {key_file}"]
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        # Single quotes keep every other character as it is; JSON has another way to write them.
        quoted = text.replace("'", "\\u0027")
        lines.append(f"{name}='{quoted}'")
    return "".join(f"{line}\n" for line in lines)


def _read_key(key_file: Path) -> SigningKey:
    try:
        return SigningKey(key_file.read_bytes())
    except ValueError as error:
        raise SimulateError(f"{key_file} is no signing key: {error}") from None


async def _until_stopped(work: Awaitable[None], output: Output) -> None:
    """Await the work; SIGTERM and SIGINT end it, and that is no error."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await work
    except asyncio.CancelledError:
        output.say("stopped")


async def _simulate(settings: Settings, options: argparse.Namespace, output: Output) -> None:
    key = _read_key(options.key_file)
    url = options.url.rstrip("/")
    agency = Agency(seed=1)
    await _wait_until_ready(url, options.wait, output)
    connection = await connect(settings, "simulate")
    try:
        await _wait_for(
            lambda: _is_migrated(connection),
            options.wait,
            "DATABASE_URL lacks migrations; it has to be the service's own database",
        )
        await _refuse_others(connection, agency)
        reached = await _history_reached(connection, agency)
        await _require_trust(url, key, agency, connection, options.wait)
        now = datetime.now(UTC)
        since = reached or now - timedelta(days=options.days)
        output.say(f"history: since {since:%Y-%m-%d %H:%M} UTC")
        count = await write_history(connection, agency, since, now, _teller(output))
        output.say(f"history: {count:,} events")
        api_key = await _api_key(connection)
    finally:
        await connection.close()
    await _send_and_tell(LiveTraffic(agency, key, url, options.rate, api_key), now, output)


async def _wait_for(
    condition: Callable[[], Awaitable[bool]], seconds: float, otherwise: str
) -> None:
    """Wait for a condition; raise SimulateError with `otherwise` where it does not come in time."""
    until = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() >= until:
            raise SimulateError(f"{otherwise} (waited {seconds:g} s)")
        await asyncio.sleep(min(1.0, seconds))


async def _wait_until_ready(url: str, seconds: float, output: Output) -> None:
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:

        async def is_ready() -> bool:
            try:
                async with session.get(f"{url}/-/ready") as answer:
                    return answer.status == 200
            except (aiohttp.ClientConnectionError, TimeoutError, OSError):
                return False

        output.say(f"waiting for {url}")
        await _wait_for(is_ready, seconds, f"{url} is not ready")


async def _is_migrated(connection: asyncpg.Connection) -> bool:
    return not await pending(connection)


async def _refuse_others(connection: asyncpg.Connection, agency: Agency) -> None:
    """Refuse a database that others' events are in, unless the agency has been in it before.

    A trial's location may have joined the agency since; what follows adds only to the agency's own.
    """
    known = "SELECT EXISTS (SELECT FROM inbox_keys WHERE location_id = ANY($1))"
    if await connection.fetchval(known, _location_ids(agency)):
        return
    other = await connection.fetchrow("SELECT location_id FROM inbox_keys LIMIT 1")
    if other is not None:
        named = f"of location {other[0]}" if other[0] else "without a location"
        raise SimulateError(
            f"DATABASE_URL has events {named}: an agency is simulated only in a database of its own"
        )


def _location_ids(agency: Agency) -> list[str]:
    return [place.id for place in agency.locations]


async def _history_reached(connection: asyncpg.Connection, agency: Agency) -> datetime | None:
    """Return until when the history was written, None before any of it."""
    moment: datetime | None = await connection.fetchval(
        "SELECT max(received_at) FROM inbox WHERE location_id = ANY($1) AND event_type <> $2"
        " AND received_at > now() - interval '120 days'",
        _location_ids(agency),
        _PROBE,
    )
    return moment


async def _require_trust(
    url: str, key: SigningKey, agency: Agency, connection: asyncpg.Connection, seconds: float
) -> None:
    """Send one webhook, and see it in the database. Raises SimulateError.

    A service that takes GHL's webhooks only refuses it: before that nothing was written. And what
    it takes has to come to `DATABASE_URL`, or the history would be that of another service.
    """
    probe = next(told for told in agency.setup(datetime.now(UTC)) if told.event == _PROBE)
    body = orjson.dumps(probe.body)
    stored_as = as_received(probe)
    known = (
        "SELECT EXISTS (SELECT FROM inbox_keys"
        " WHERE location_id = $1 AND source = $2 AND idempotency_key = $3)"
    )

    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:

        async def is_taken() -> bool:
            try:
                async with session.post(
                    f"{url}/webhooks/ghl", data=body, headers=signature_headers(key, body)
                ) as answer:
                    if answer.status == 401:
                        raise SimulateError(
                            f"{url} does not trust this key: its GHL_PUBLIC_KEYS has to hold the"
                            " public half (and production's must not)"
                        )
                    return answer.status < 300
            except (aiohttp.ClientConnectionError, TimeoutError, OSError):
                return False

        async def is_stored() -> bool:
            return bool(await connection.fetchval(known, *stored_as.key))

        await _wait_for(is_taken, seconds, f"{url} takes no webhooks")
        await _wait_for(
            is_stored, seconds, f"what {url} takes does not come to DATABASE_URL: is it the same?"
        )


def _teller(output: Output) -> Callable[[int, datetime], None]:
    """Make what is called after each batch of the history: it prints a line for each month."""
    month = ""

    def told(count: int, at: datetime) -> None:
        nonlocal month
        if month != f"{at:%Y-%m}":
            month = f"{at:%Y-%m}"
            output.say(f"history: {month}, {count:,} events so far")

    return told


async def _api_key(connection: asyncpg.Connection) -> str:
    """Make a key for the platform's calls in the place of the last one: no secret is kept."""
    for key in await list_keys(connection):
        if key.name == _KEY_NAME and key.revoked_at is None:
            await revoke_key(connection, key.key_id)
    made = await create_key(connection, _KEY_NAME, [READ, TRACK], [EVERYWHERE])
    await audit_command(connection, "keys create", f"{made.split('_')[1]} {_KEY_NAME}")
    return made


async def _send_and_tell(traffic: LiveTraffic, since: datetime, output: Output) -> None:
    output.say("sending")
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(since))
        while True:
            await asyncio.sleep(_TELL_EVERY)
            output.say(
                f"sent: {traffic.sent:,} webhooks, {traffic.refused:,} tried again,"
                f" {traffic.tracked:,} tracking calls",
            )
