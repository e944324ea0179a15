"""Write `docs/reference` from the code that defines what it describes.

    python -m docs.generate [--check]

`--check` writes nothing, names the pages that are stale, and fails where there are any.
"""

import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from alerts.alert import LOCATION
from alerts.generate import ALERTS, files
from docs.write import write_or_compare
from exporter.api.track import MOST_CALLS
from exporter.cli import run
from exporter.domain import ghl_events as ghl
from exporter.domain import slo
from exporter.domain.call_models import MODELS
from exporter.kpis.definitions import all_kpis, shared_query
from exporter.service.app import create_app
from exporter.settings import SECRETS, Settings, load_settings
from exporter.settings.public_keys import GHL_PUBLIC_KEY
from exporter.telemetry.metrics import LiveMetrics
from grafana.board import Line
from grafana.generate import boards

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
_NOTE = "<!-- Written by `make docs` from the code; changes here are lost. -->\n"
_COMMANDS = (
    *("serve", "migrate", "check", "validate", "demo", "simulate", "rebuild", "replay", "import"),
    *("erase", "keys", "keys create", "keys list", "keys revoke"),
)
# Labels whose values come from data; of the others the values are listed.
_OPEN_LABELS = {"event", "location", "kpi", "version", "python"}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _default(name: str, value: object) -> str:
    if name == "ghl_public_keys" and value == GHL_PUBLIC_KEY:
        return "GHL's own"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if name == "grade_parts":
        return "see [KPIs](../kpis.md#grade)"
    if isinstance(value, frozenset):
        value = ",".join(sorted(value))
    if value is PydanticUndefined or value in (None, "", {}):
        return ""
    return f"`{value}`"


def settings_page() -> str:
    """Describe every setting."""
    source = inspect.getsource(Settings)
    headings = {}
    heading = ""
    for line in source.splitlines():
        if match := re.fullmatch(r"    # (.+)", line):
            heading = match[1]
        elif match := re.match(r"    ([a-z_]+): .* = Field\(", line):
            headings[match[1]] = heading
    page = (
        "# Settings\n\n"
        "Settings are environment variables, or lines of a file `.env` in the working directory"
        " (the environment is nearer). Those marked *secret* can also be read from a file:"
        " `DATABASE_URL_FILE=/run/secrets/database_url` stands for `DATABASE_URL`. A variable that"
        " is empty or blank is not set; a secret's file that is empty is a fault. Lines of `.env`"
        " are literal: `${NAME}` stays as it is. They are checked at start;"
        " `ghl-exporter check` names everything that is wrong.\n"
    )
    for chosen in dict.fromkeys(headings.values()):
        rows = [
            (
                f"`{name.upper()}`" + (" *secret*" if name in SECRETS else ""),
                _default(name, field.get_default(call_default_factory=True)),
                field.description or "",
            )
            for name, field in Settings.model_fields.items()
            if headings[name] == chosen
        ]
        page += f"\n## {chosen}\n\n{_table(('Variable', 'Default', 'Meaning'), rows)}"
    return page


def metrics_page() -> str:
    """Describe every metric of the service itself."""
    metrics = LiveMetrics()
    metrics.create_kpi_children([kpi.name for kpi in all_kpis()])
    own: list[tuple[str, ...]] = []
    others: list[tuple[str, ...]] = []
    for family in sorted(metrics.registry.collect(), key=lambda family: family.name):
        values: dict[str, set[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
        bounds = sorted(values.pop("le", ()), key=float)
        labels = [
            f"`{label}`"
            if label in _OPEN_LABELS
            else f"`{label}`: " + ", ".join(f"`{value}`" for value in sorted(found))
            for label, found in sorted(values.items())
        ]
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        text = family.documentation
        if bounds:
            text += f" Bounds: {', '.join(bounds)}."
        row = (f"`{family.name}{suffix}`", family.type, "; ".join(labels), text)
        (own if family.name.startswith("ghl_exporter_") else others).append(row)
    head = ("Metric", "Type", "Labels", "Meaning")
    return (
        "# Live metrics\n\n"
        "What the service counts and times as it happens; each copy has its own. The business"
        " figures are in [kpis.md](kpis.md). Every labelled series exists from the start, at 0, so"
        " `increase()` misses nothing; those of a location from when it is first known.\n\n"
        f"{_table(head, own)}\n"
        "## Of the process\n\n"
        f"{_table(head, others)}"
    )


def kpis_page() -> str:
    """Describe every KPI, with the SQL that computes it."""
    page = (
        "# KPIs\n\n"
        "Gauges, computed from PostgreSQL every `KPI_INTERVAL` seconds by the copy that leads. The"
        " words used are defined in [../kpis.md](../kpis.md). `window` is `1d`, `7d`, `30d` or"
        " `90d`: the last so many calendar days in the location's time zone, today included."
        " Counts and sums are 0 where there is nothing; a ratio, a mean or a median without"
        " anything to compute it from has no sample.\n\n"
        "Each file of `sql/kpis` is one KPI or a family. Its age is"
        ' `time() - ghl_exporter_kpi_last_success_timestamp_seconds{kpi="<file>"}`.\n\n'
    )
    rows = [
        (
            f"[`{metric.name}`](#{file.name})",
            ", ".join([*file.labels, *([metric.label] if metric.label else [])]),
            metric.unit,
        )
        for file in all_kpis()
        for metric in file.metric
    ]
    page += _table(("KPI", "Labels", "Unit"), sorted(rows))
    for file in all_kpis():
        page += f"\n## {file.name}\n\n"
        for metric in file.metric:
            page += f"- `{metric.name}` ({metric.unit}): {metric.help}\n"
        if file.uses:
            page += f"\nReads {', '.join(f'[{name}](#{name})' for name in file.uses)}.\n"
        page += f"\n```sql\n{file.sql.strip()}\n```\n"
    for name in sorted({name for file in all_kpis() for name in file.uses}):
        page += f"\n## {name}\n\nShared by several KPIs.\n\n```sql\n{shared_query(name)}```\n"
    return page


def endpoints_page() -> str:
    """Describe every address that the service answers."""
    handlers: dict[Callable[..., Any], list[str]] = {}
    app: web.Application = create_app(load_settings(_env_file=None))
    for route in app.router.routes():
        if route.method != "HEAD" and route.resource is not None:
            handlers.setdefault(route.handler, []).append(
                f"{route.method} {route.resource.canonical}"
            )
    page = (
        "# Endpoints\n\n"
        "Errors are `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457))."
        " A webhook's answer carries `X-Correlation-ID`: the one that was sent, or a new one; it is"
        " in the log and in the inbox too.\n"
    )
    for handler, addresses in handlers.items():
        title, _, more = inspect.getdoc(handler).partition("\n")  # type: ignore[union-attr]
        page += f"\n## {title.rstrip('.')}\n\n"
        page += "".join(f"- `{address}`\n" for address in addresses)
        page += f"\n{more.strip()}\n" if more.strip() else ""
    return page


def _kind(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema takes."""
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("format", schema["type"]))
    least = f" ≥ {schema['minimum']}" if "minimum" in schema else ""
    return {"string": "text", "date-time": "time"}.get(kind, kind + least)


def tracking_page() -> str:
    """Describe every tracking call, from the model that checks it."""
    page = (
        "# Tracking calls\n\n"
        "`POST /api/business-metrics/track/<call>` takes one call, or a JSON array of up to"
        f" {MOST_CALLS:,} of one kind, with `Authorization: Bearer <key>`. Fields that are not"
        " listed are kept with the call. An explicit `null` means not given.\n"
    )
    for call, model in MODELS.items():
        schema = model.model_json_schema()
        required = set(schema.get("required", ()))
        rows = [
            (
                f"`{name}`" + (" *required*" if name in required else ""),
                _kind(field),
                field.get("description", ""),
            )
            for name, field in sorted(
                schema["properties"].items(), key=lambda item: item[0] not in required
            )
        ]
        page += f"\n## {call}\n\n{inspect.getdoc(model)}\n\n"
        page += _table(("Field", "Kind", "Meaning"), rows)
    return page


def commands_page() -> str:
    """Show the help of every command."""
    os.environ["COLUMNS"] = "80"  # argparse wraps by the terminal
    page = "# Commands\n\n`ghl-exporter`, or `python -m exporter`.\n"
    for command in ("", *_COMMANDS):
        said = io.StringIO()
        with redirect_stdout(said), suppress(SystemExit):
            run([*command.split(), "--help"])
        page += f"\n## ghl-exporter {command}".rstrip() + f"\n\n```text\n{said.getvalue()}```\n"
    return page


def events_page() -> str:
    """List the events that are known, and what follows from each."""
    families: dict[str, list[str]] = {}
    for event, family in ghl.FAMILY_OF_EVENT.items():
        families.setdefault(family, []).append(event)
    rows = [
        (family, ", ".join(f"`{name}`" for name in names)) for family, names in families.items()
    ]
    others = sorted(ghl.KNOWN_EVENTS - set(ghl.FAMILY_OF_EVENT))
    return (
        "# Events\n\n"
        "GHL's webhooks by name. Any other name is accepted, stored, and counted as `other`.\n\n"
        "## Facts are made of\n\n"
        f"{_table(('Family', 'Events'), rows)}\n"
        "## Stored and counted by name\n\n"
        f"{', '.join(f'`{name}`' for name in others)}\n"
    )


def _objectives() -> str:
    rows = [
        (
            f"`{one.name}`",
            f"{one.title}: {one.objective:.0%} over {slo.BUDGET_DAYS} days",
            f"Of the {one.events}, the share that {one.bad_events} is at most {one.budget:.0%}.",
            "page and ticket" if one.pages else "ticket",
        )
        for one in slo.SLOS
    ]
    burns = [
        (severity, burn.long, burn.short, f"{burn.factor:g}")
        for severity, pair in slo.BURNS.items()
        for burn in pair
    ]
    return (
        "## Objectives\n\n"
        f"{_table(('Objective', 'Promise', 'SLI', 'Who hears'), rows)}\n"
        "An alert fires where the budget burns in both windows at least this many times as fast as"
        f" it would last, and {slo.LEAST_BAD_EVENTS} or more events were bad in the long one:\n\n"
        f"{_table(('Severity', 'Long window', 'Short window', 'Factor'), burns)}"
    )


def alerts_page() -> str:
    """Describe the objectives, every alert and every recorded series."""
    page = (
        "# Objectives, alerts and recorded series\n\n"
        "For Prometheus: `rule_files` takes `recording_rules/*.yml` and `alerts/*.yml`. The scrape"
        " job is to be named `ghl-exporter`. `page` wakes somebody, `ticket` waits for the day."
        " Each alert's name leads to its runbook.\n\n"
    )
    page += _objectives()
    for name, alerts in ALERTS.items():
        page += f"\n## Alerts: {name}\n"
        for alert in alerts:
            when = f"after {alert.wait}" if alert.wait else "at once"
            said = f"{alert.summary}. {alert.description}".replace(LOCATION, "{location}")
            page += (
                f"\n### {alert.name}\n\n"
                f"[Runbook](../../alerts/runbooks/{alert.name}.md). {alert.severity} for"
                f" {alert.team}, {when}. {said}\n\n"
                f"```promql\n{alert.expr.strip()}\n```\n"
            )
    page += "\n## Recorded\n"
    recorded: dict[str, list[str]] = {}
    for path, content in files().items():
        if path.startswith("recording_rules/"):
            for group in content["groups"]:
                for rule in group["rules"]:
                    recorded.setdefault(rule["record"], []).append(rule["expr"].strip())
    for record, expressions in recorded.items():
        more = len(expressions) - 1
        alike = f"\nAnd {more} more like it, by its labels.\n" if more else ""
        page += f"\n### {record}\n\n```promql\n{expressions[0]}\n```\n{alike}"
    return page


def boards_page() -> str:
    """Describe every board and its panels."""
    page = (
        "# Boards\n\n"
        "In Grafana 10.4 to 13, from `grafana/dashboards`; `make boards` writes those from the"
        " Python in `grafana/`. All of them have the variables data source and location, those of"
        " the business a window too, and links to each other that keep time and variables. The"
        " pictures are previews, drawn without Grafana from the demo's data.\n"
    )
    for board in boards():
        page += f"\n## {board.title}\n\n{board.about} Address: `/d/{board.uid}`.\n\n"
        page += f"![{board.title}](../images/boards/{board.uid}.png)\n\n"
        rows = []
        for line in board.lines:
            for _, panel in line.panels if isinstance(line, Line) else ():
                if panel.description:
                    rows.append((panel.title, panel.description))
        page += _table(("Panel", "What it shows"), rows)
    return page


PAGES: dict[str, Callable[[], str]] = {
    "alerts.md": alerts_page,
    "boards.md": boards_page,
    "commands.md": commands_page,
    "endpoints.md": endpoints_page,
    "events.md": events_page,
    "kpis.md": kpis_page,
    "metrics.md": metrics_page,
    "settings.md": settings_page,
    "tracking.md": tracking_page,
}


def texts() -> dict[Path, str]:
    """Return every page by its path."""
    return {REFERENCE / name: _NOTE + make() for name, make in PAGES.items()}


if __name__ == "__main__":
    sys.exit(write_or_compare(texts, about=__doc__ or "", command="make docs"))
