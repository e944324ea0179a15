"""The command: against a service that runs, or with one of its own beside embedded servers."""

import argparse
import asyncio
import logging
import os
import signal
from contextlib import ExitStack

import aiohttp
from pydantic import SecretStr

from exporter.client import AsyncClient
from exporter.commands.output import Output
from exporter.database.errors import DATABASE_ERRORS, reason_of
from exporter.settings import SettingsError, load_settings
from exporter.validate.database import busiest_location, check_database, write_demo_data
from exporter.validate.functions import check_api, check_functions, check_webhooks
from exporter.validate.own import start_own
from exporter.validate.performance import check_performance
from exporter.validate.progress import Progress
from exporter.validate.report import Report
from exporter.validate.service import (
    erasing,
    find_location,
    own_location,
    require_erasing,
    require_key,
    require_location,
)
from exporter.validate.target import Target, ValidateError

_STOPPED = 130  # the exit status of a program that Ctrl-C ended


def run_validate(options: argparse.Namespace, output: Output) -> int:
    """Run the checks and return the exit status: 1 where one failed, 130 where it was stopped."""
    chosen = (options.setup_db, options.demo_data, options.test_api, options.performance)
    if not any(chosen):
        options.setup_db = options.test_api = options.performance = True
        options.demo_data = options.url is None
    # What is not right is reported; an answer that is waited for is no warning.
    logging.getLogger("ghl_exporter_client").setLevel(logging.CRITICAL)
    report = Report()
    progress = Progress(output)
    stopped = False
    # Also while servers start, before there is an event loop: they are stopped and removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            target = start_own(stack, progress) if options.url is None else _running(options)
            asyncio.run(_check_until_stopped(options, target, report, output, progress))
    except (KeyboardInterrupt, asyncio.CancelledError):
        stopped = True
    except (ValidateError, SettingsError) as error:
        output.error(str(error))
        return 1
    except aiohttp.ClientConnectionError as error:
        output.error(f"--url: the service can't be reached: {error}")
        return 1
    except DATABASE_ERRORS as error:
        report.add("", "it ran to its end", False, reason_of(error))
    except aiohttp.ClientError as error:
        report.add("", "it ran to its end", False, f"{type(error).__name__}: {error}")
    report.show(output.results)
    if stopped:
        output.error("stopped before its end")
        return _STOPPED
    return 1 if report.failed else 0


def _running(options: argparse.Namespace) -> Target:
    key = os.environ.get("GHL_EXPORTER_KEY", "").strip()
    if not key:
        scope = "admin" if options.write_to_this_service else "read"
        raise ValidateError(f"set GHL_EXPORTER_KEY to a key with the scope {scope}")
    if options.demo_data:
        raise ValidateError(
            "--demo-data writes an agency's history, which only a service of its own takes: leave"
            " out --url"
        )
    settings = load_settings()
    of_database = settings if "database_url" in settings.model_fields_set else None
    return Target(
        options.url.rstrip("/"),
        key,
        own=False,
        settings=of_database,
        metrics_token=settings.metrics_token,
    )


def _metrics_authorization(token: SecretStr | None) -> aiohttp.ClientMiddlewareType:
    """Return a middleware that adds the token to requests of /metrics, and to no others."""

    async def add(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if token is not None and request.url.path == "/metrics":
            request.headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        return await handler(request)

    return add


async def _check_until_stopped(
    options: argparse.Namespace,
    target: Target,
    report: Report,
    output: Output,
    progress: Progress,
) -> None:
    """Run the checks; SIGTERM ends them as Ctrl-C does, and what was written is erased."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with aiohttp.ClientSession(
        target.url,
        timeout=aiohttp.ClientTimeout(total=30),
        auto_decompress=True,
        middlewares=(_metrics_authorization(target.metrics_token),),
    ) as session:
        await require_key(session, target.api_key)
        if options.setup_db:
            await check_database(report, target)
        if options.demo_data:
            await write_demo_data(report, target, progress, options.days)
        if options.location_id is not None:
            await require_location(session, target.api_key, options.location_id)
        if not (target.own or options.write_to_this_service):
            for name in ("a story, tracked and found", "webhooks"):
                report.add("functions", name, None, "writes: add --write-to-this-service")
            await _read(options, target, session, report, progress, options.location_id)
            return
        # Nothing of a real location is touched, and what is written can go.
        location_id = own_location()
        await require_erasing(session, target.api_key, location_id)
        output.say(f"writing to the location {location_id}, which is erased at the end")
        async with erasing(session, target.api_key, location_id, report, output, progress):
            async with AsyncClient(target.url, target.api_key, location_id=location_id) as client:
                with progress.phase("tracking a story, and looking for it"):
                    await check_functions(report, session, client, location_id, progress)
            await check_webhooks(report, session, target.signing_key, location_id)
            place = options.location_id or location_id
            await _read(options, target, session, report, progress, place)


async def _read(
    options: argparse.Namespace,
    target: Target,
    session: aiohttp.ClientSession,
    report: Report,
    progress: Progress,
    location_id: str | None,
) -> None:
    """Ask and measure, and write nothing into a service that is not our own."""
    location_id = location_id or await find_location(session, target.api_key)
    if location_id is None:
        why = "no location is known: name one with --location-id"
        report.add("api", "every endpoint", None, why)
        return
    if options.test_api:
        with progress.phase(f"asking every endpoint about {location_id}"):
            await check_api(report, session, target.api_key, location_id)
    if options.performance:
        with progress.phase("measuring"):
            await check_performance(
                report,
                session,
                target.api_key,
                target.signing_key,
                await busiest_location(target, location_id),
                target.settings,
                progress,
            )
