"""Write `grafana/dashboards` from the boards in Python.

    python -m grafana.generate [--check]

`--check` writes nothing, names the files that are stale, and fails where there are any.
"""

import argparse
import json
import sys
from pathlib import Path

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


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    texts = {
        f"{board.uid}.json": json.dumps(dashboard(board), indent=1, ensure_ascii=False) + "\n"
        for board in boards()
    }
    stale = [name for name in texts if _read(DASHBOARDS / name) != texts[name]]
    left_over = [path for path in DASHBOARDS.glob("*.json") if path.name not in texts]
    if not options.check:
        DASHBOARDS.mkdir(exist_ok=True)
        for name in stale:
            (DASHBOARDS / name).write_text(texts[name], "utf-8")
        for path in left_over:
            path.unlink()
    said = "stale: run make boards" if options.check else "written"
    for name in [*stale, *(path.name for path in left_over)]:
        print(f"grafana/dashboards/{name}: {said}")
    return 1 if (stale or left_over) and options.check else 0


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
