"""Write files that follow from code, or hold them against it: what every generator here does."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def write_or_compare(
    texts: Callable[[], Mapping[Path, str]], *, about: str, command: str, folder: Path | None = None
) -> int:
    """Write the files that differ from their texts; return an exit status.

    With `--check` on the command line nothing is written, and 1 is returned where a file differs.
    `folder`: one that holds nothing but such JSON files; what else is there is removed.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    wanted = texts()
    stale = [
        path
        for path, text in wanted.items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    left_over = [path for path in folder.glob("*.json") if path not in wanted] if folder else []
    if not check:
        for path in stale:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path], "utf-8")
        for path in left_over:
            path.unlink()
    for path in (*stale, *left_over):
        print(f"{path.relative_to(ROOT)}: {f'stale: run {command}' if check else 'written'}")
    return 1 if check and (stale or left_over) else 0
