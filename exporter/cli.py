"""The commands of `ghl-exporter`: their options, and where each of them is run."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter import __version__
from exporter.commands.output import BrokenOutputError, Output, discard_output, prepare_streams
from exporter.settings import Settings, examine_settings
from exporter.support.logs import configure_logs

# What a shell reports of a program that SIGPIPE ended.
_OUTPUT_BROKEN = 141

_EPILOG = """\
Settings come from the environment and from .env; each secret also from a file (NAME_FILE).
docs/reference/settings.md lists them all; `ghl-exporter check` says what is wrong with yours.

exit status: 0 done, 1 something is wrong (it says what), 2 the command line is
"""


def _parser() -> argparse.ArgumentParser:  # noqa: PLR0915 - a list of commands and options
    parser = argparse.ArgumentParser(
        prog="ghl-exporter",
        description="Receives HighLevel (GHL) webhooks without loss, turns them into business "
        "facts in PostgreSQL, and publishes KPIs to Prometheus.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. {more}".strip(),
        )

    add(
        "serve",
        "run the service",
        "Brings the database up to date first where it can be reached, and starts without it "
        "where not: webhooks go to the local spool until it is back. SIGTERM and SIGINT stop it "
        "after the requests under way are answered.",
    )
    add("migrate", "bring the database up to date, and say what was applied")
    add(
        "check",
        "check settings, database and migrations without running anything",
        "Says everything that is wrong at once.",
    )
    demo = add(
        "demo",
        "run everything with embedded servers and a simulated agency",
        "Starts PostgreSQL, Valkey and, where it is installed, Prometheus below a directory, "
        "writes 90 days of an agency's history through the inbox, serves, and keeps sending "
        "signed webhooks. Prometheus gets a past: the KPIs of the days before, computed from the "
        "facts. Ctrl-C stops all of it; the next start continues.",
    )
    demo.add_argument("--directory", default=".demo", help="where its data lives (default: .demo)")
    demo.add_argument(
        "--days", type=int, default=90, help="days of history at the first start (default: 90)"
    )
    demo.add_argument(
        "--rate", type=float, default=2.0, help="webhooks a second beside the agency's own (2)"
    )
    simulate = add(
        "simulate",
        "send a simulated agency to a service that runs elsewhere",
        "Waits until the service is ready, writes the agency's history into its database "
        "(DATABASE_URL), then sends signed webhooks and tracking calls until it is stopped. "
        "Refuses a database with events of others, and a service that does not trust its key.",
    )
    what = simulate.add_mutually_exclusive_group(required=True)
    what.add_argument("--url", help="of the service, http://127.0.0.1:12105 say")
    what.add_argument(
        "--make-key",
        action="store_true",
        help="make the key unless there is one, and its public half beside it (FILE.pub)",
    )
    what.add_argument(
        "--settings",
        action="store_true",
        help="print what the service has to be set to, as an environment file",
    )
    simulate.add_argument(
        "--key-file", type=Path, required=True, metavar="FILE", help="the key that signs webhooks"
    )
    simulate.add_argument(
        "--days", type=int, default=90, help="days of history at the first start (default: 90)"
    )
    simulate.add_argument(
        "--rate", type=float, default=2.0, help="webhooks a second beside the agency's own (2)"
    )
    simulate.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long the service may take to become ready (default: 120)",
    )
    validate = add(
        "validate",
        "try everything end to end, and hold its speed against the targets",
        "Without --url it starts embedded servers and a service of its own, and removes them at "
        "the end. With --url it only reads from a service that runs, with the key in "
        "GHL_EXPORTER_KEY (scope read); what needs the database uses DATABASE_URL. With "
        "--write-to-this-service too it tracks a small story at a new location of its own, which "
        "it erases at the end, also after Ctrl-C or an error (scope admin). Without any of the "
        "other flags all of it is done.",
    )
    validate.add_argument("--url", help="of a service that runs, http://127.0.0.1:12105 say")
    validate.add_argument(
        "--write-to-this-service",
        action="store_true",
        help="with --url: write a story to a location of its own, and erase it",
    )
    validate.add_argument(
        "--location-id",
        help="the location to read (default: the story's, or one that /metrics shows)",
    )
    validate.add_argument("--setup-db", action="store_true", help="check the database's migrations")
    validate.add_argument(
        "--demo-data",
        action="store_true",
        help="without --url: write a simulated agency's history",
    )
    validate.add_argument(
        "--days", type=int, default=30, help="days of the simulated agency's history (30)"
    )
    validate.add_argument("--test-api", action="store_true", help="ask every endpoint")
    validate.add_argument(
        "--performance", action="store_true", help="measure, and compare with the targets"
    )
    rebuild = add(
        "rebuild",
        "compute every fact anew from the stored events",
        "The service may run meanwhile. Ends with how many rows differ from before: 0 unless the "
        "rules or the settings have changed.",
    )
    rebuild.add_argument(
        "--dry-run", action="store_true", help="compare only, and leave the facts as they are"
    )
    rebuild.add_argument(
        "--forget-dropped",
        action="store_true",
        help="go on although stored events were dropped by age",
    )
    replay = add(
        "replay",
        "try quarantined events again, after a fix",
        "The running service projects them; what still fails comes back to the quarantine.",
    )
    replay.add_argument("--location", help="only the events of this location")
    importing = add(
        "import",
        "bring in opportunities as GHL's search answers them",
        "A file of JSON lines, an opportunity or a whole answer each, goes through the inbox like "
        "webhooks. Stopped and started again it goes on; what is known already is not stored "
        "twice. Until it has come to its end, figures are not shown as final.",
    )
    importing.add_argument("file", type=Path, metavar="FILE", help="JSON lines")
    importing.add_argument(
        "--location", help="whose opportunities are that name no location", default=""
    )
    importing.add_argument(
        "--forget",
        action="store_true",
        help="import nothing: FILE was stopped and will not be imported, figures are final without",
    )
    erase = add(
        "erase",
        "erase a location: its events, facts, figures and series",
        "The service may run meanwhile. A tombstone stays: what is sent, replayed or drained for "
        "the location later is acknowledged and not stored. Asks for the location's id before it "
        "deletes anything. Prometheus keeps what it has scraped, and the audit table its entries.",
    )
    erase.add_argument("location", metavar="LOCATION", help="the location's id")
    how = erase.add_mutually_exclusive_group()
    how.add_argument("--yes", action="store_true", help="do not ask")
    how.add_argument("--dry-run", action="store_true", help="count the rows only")
    how.add_argument(
        "--accept-again",
        action="store_true",
        help="remove the tombstone: what is sent from now on is stored again",
    )
    keys = add(
        "keys",
        "create, list and revoke API keys",
        "A new key is printed once, alone on standard output; only its digest is kept.",
    )
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and print it")
    create.add_argument("--name", required=True, help="whose it is, for people")
    create.add_argument("--scopes", required=True, help="of read, track, admin: read,track")
    create.add_argument(
        "--locations", required=True, help="location ids that it may see, or '*' for all: a,b"
    )
    actions.add_parser("list", help="list the keys, without their secrets")
    revoke = actions.add_parser("revoke", help="revoke a key, within seconds")
    revoke.add_argument("key_id", help="its id, as `list` shows it")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    prepare_streams()
    status: str | int | None
    try:
        try:
            status = run(arguments)
        except SystemExit as end:  # argparse's
            status = end.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenOutputError, BrokenPipeError):
        discard_output()
        status = _OUTPUT_BROKEN
    sys.exit(status)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = _parser().parse_args(arguments)
    output = Output()
    if options.command == "demo":
        from exporter.demo.run import run_demo  # noqa: PLC0415 - needs the extra `demo`

        return run_demo(options, output)
    if options.command == "validate":
        from exporter.validate.run import run_validate  # noqa: PLC0415

        return run_validate(options, output)
    loaded = examine_settings()
    settings = loaded.settings
    configure_logs(settings.log_format, settings.log_level)
    if options.command == "check":
        from exporter.commands.check import run_check  # noqa: PLC0415

        return run_check(loaded, output)
    # Without it `serve` goes on, and so does what of `simulate` needs no service.
    does_without = options.command == "serve" or (options.command == "simulate" and not options.url)
    if loaded.fatal or (settings.fault("database_url") is not None and not does_without):
        for fault in loaded.faults:
            output.error(str(fault))
        return 1
    commands: dict[str, Callable[[Settings, argparse.Namespace, Output], int]] = {
        "serve": _serve,
        "migrate": _on_database,
        "simulate": _simulate,
        "rebuild": _on_database,
        "replay": _on_database,
        "import": _on_database,
        "erase": _on_database,
        "keys": _on_database,
    }
    return commands[options.command](settings, options, output)


def _serve(settings: Settings, options: argparse.Namespace, output: Output) -> int:
    from exporter.service.serve import run as serve  # noqa: PLC0415 - other commands need no event loop
    from exporter.service.sockets import ListenError  # noqa: PLC0415

    del options
    try:
        serve(settings)
    except ListenError as error:
        output.error(str(error))
        return 1
    return 0


def _simulate(settings: Settings, options: argparse.Namespace, output: Output) -> int:
    from exporter.demo.simulate import run_simulate  # noqa: PLC0415

    return run_simulate(settings, options, output)


def _on_database(settings: Settings, options: argparse.Namespace, output: Output) -> int:
    from exporter.commands.run import run_command  # noqa: PLC0415

    return run_command(settings, options, output)
