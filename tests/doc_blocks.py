"""Fenced blocks of the pages: what an operator copies, in order."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    "docs/running.md",
    "docs/client.md",
    "clients/python/README.md",
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "docs").rglob("*.md")
        if path.name not in {"running.md", "client.md"}
    ),
)
_FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"`([^`\s]+\.(?:conf|py|yml))`[^`]*$")


@dataclass(frozen=True)
class Block:
    """A fenced block. `file`: the last file that the paragraph before it names, or None."""

    page: str
    language: str
    text: str
    file: str | None

    @property
    def name(self) -> str:
        """Return its page and its first line, without a comment."""
        line, *_ = self.text.splitlines()
        return f"{self.page}: {line.partition('  ')[0]}"


def blocks_of(page: str) -> list[Block]:
    """Return a page's blocks. `page`: its path from the checkout on."""
    text = (ROOT / page).read_text("utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        paragraph = text[: fence.start()].rstrip().rpartition("\n\n")[2]
        file = _FILE.search(paragraph)
        lines = fence[3].splitlines(keepends=True)
        inner = "".join(line.removeprefix(fence[1]) for line in lines)
        found.append(Block(page, fence[2].strip(), inner, file[1] if file else None))
    assert len(found) * 2 == len(re.findall(r"^ *```", text, re.MULTILINE)), page
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
