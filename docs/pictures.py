"""Draw the boards from a Prometheus, a running demo's say, into `docs/images/boards`.

    python -m docs.pictures --renderer PROGRAM --prometheus URL

PROGRAM draws a dashboard's JSON without Grafana: it takes --dashboard, --prom, --out, --from,
--width, --theme and --allow-empty. ImageMagick's `convert` cuts the pictures and makes them small.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DASHBOARDS = ROOT / "grafana/dashboards"
PICTURES = ROOT / "docs/images/boards"
_WIDTH = 1200
_COLOURS = 96


@dataclass(frozen=True)
class Picture:
    """A board's picture: the time that it shows, and how many pixels of it from the top."""

    uid: str
    since: str
    height: int


ALL = (
    Picture("ghl-executive", "now-30d", 1100),
    Picture("ghl-webhook-sla", "now-1h", 1320),
    Picture("ghl-revenue", "now-30d", 1080),
    Picture("ghl-agents", "now-30d", 1290),
    Picture("ghl-matching", "now-30d", 1100),
    Picture("ghl-health", "now-1h", 1060),
)


def draw(picture: Picture, renderer: str, prometheus: str, theme: str) -> None:
    """Draw one board. Raises CalledProcessError where the picture was not made."""
    with tempfile.TemporaryDirectory() as directory:
        whole = Path(directory) / "board.png"
        command = [
            *(renderer, "--dashboard", DASHBOARDS / f"{picture.uid}.json", "--prom", prometheus),
            *("--out", whole, "--from", picture.since, "--width", _WIDTH, "--theme", theme),
            *("--allow-empty", "Alerts that fire"),
        ]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        cut = [
            "-crop",
            f"{_WIDTH}x{picture.height}+0+0",
            "+repage",
            "+dither",
            "-colors",
            str(_COLOURS),
        ]
        target = PICTURES / f"{picture.uid}.png"
        subprocess.run(["convert", whole, *cut, "-strip", f"PNG8:{target}"], check=True)


def main() -> int:
    """Draw all boards, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--renderer", required=True)
    parser.add_argument("--prometheus", required=True, help="URL of the Prometheus to ask")
    parser.add_argument("--theme", default="light", choices=("light", "dark"))
    parser.add_argument("boards", nargs="*", help="their uids; default: all")
    options = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for picture in ALL:
        if not options.boards or picture.uid in options.boards:
            draw(picture, options.renderer, options.prometheus, options.theme)
            print(f"docs/images/boards/{picture.uid}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
