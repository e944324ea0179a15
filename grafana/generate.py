"""Write `grafana/dashboards` from the boards in Python.

    python -m grafana.generate [--check]

`--check` writes nothing, names the files that are stale, and fails where there are any.
"""

import json
import sys
from pathlib import Path

from docs.write import write_or_compare
from grafana.board import Board, dashboard
from grafana.boards import agents, executive, health, matching, revenue, webhook_sla

DASHBOARDS = Path(__file__).parent / "dashboards"


def boards() -> list[Board]:
    """Return the boards in the order in which a reader meets them."""
    return [
        executive.board(),
        webhook_sla.board(),
        revenue.board(),
        agents.board(),
        matching.board(),
        health.board(),
    ]


def texts() -> dict[Path, str]:
    """Return every dashboard by its path."""
    return {
        DASHBOARDS / f"{board.uid}.json": json.dumps(dashboard(board), indent=1, ensure_ascii=False)
        + "\n"
        for board in boards()
    }


if __name__ == "__main__":
    sys.exit(write_or_compare(texts, about=__doc__ or "", command="make boards", folder=DASHBOARDS))
