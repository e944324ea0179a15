"""Write the rule files from the objectives, the figures and the alerts.

    python -m alerts.generate [--check]

`--check` writes nothing, names the files that are stale, and fails where there are any.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from alerts.alert import Alert
from alerts.burns import BURN_ALERTS
from alerts.business import BUSINESS_ALERTS
from alerts.service import SERVICE_ALERTS
from docs.write import ROOT, write_or_compare
from recording_rules.rules import business_rules, slo_rules, webhook_rules

_NOTE = "# Written by `make rules` from the code; changes here are lost.\n"

ALERTS: dict[str, tuple[Alert, ...]] = {
    "exporter": SERVICE_ALERTS,
    "slo": BURN_ALERTS,
    "business": BUSINESS_ALERTS,
}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and nothing as a reference."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _group(name: str, alerts: Iterable[Alert]) -> dict[str, Any]:
    return {"groups": [{"name": name, "rules": [alert.rule() for alert in alerts]}]}


def files() -> dict[str, dict[str, Any]]:
    """Return the content of every rule file by its path below the checkout."""
    return {
        "recording_rules/slo.yml": slo_rules(),
        "recording_rules/business.yml": business_rules(),
        "recording_rules/webhooks.yml": webhook_rules(),
        **{
            f"alerts/{name}.yml": _group(f"ghl-alerts-{name}", alerts)
            for name, alerts in ALERTS.items()
        },
    }


def texts() -> dict[Path, str]:
    """Return every rule file by its path."""
    return {
        ROOT / name: _NOTE + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
        for name, content in files().items()
    }


if __name__ == "__main__":
    sys.exit(write_or_compare(texts, about=__doc__ or "", command="make rules"))
