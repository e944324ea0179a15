"""The pages: what is generated is current, and every link leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/**/*.md"))
    if ".venv" not in path.parts
]


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), target
        assert to.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(to), target


def test_settings_and_metrics_that_the_pages_name_exist() -> None:
    reference = "".join(path.read_text("utf-8") for path in ROOT.glob("docs/reference/*.md"))
    for page in (ROOT / "README.md", ROOT / "docs/running.md", ROOT / "docs/architecture.md"):
        text = page.read_text("utf-8")
        for name in re.findall(r"\bghl_exporter_\w+", text):
            if not name.startswith("ghl_exporter_-"):
                assert name in reference, (page.name, name)
        for name in re.findall(r"`([A-Z][A-Z_]{4,})`", text):
            assert f"`{name}`" in reference, (page.name, name)
