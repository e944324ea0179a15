"""All cases of the rules: those of `tests/rules`, and those that are made."""

import yaml

from tests import recorded_figures, recorded_slo
from tests.promtool import ROOT, Document

WRITTEN = sorted((ROOT / "tests" / "rules").glob("*.yml"))


def documents() -> dict[str, Document]:
    """Return the content of each test file, by its name. They all belong into `tests/rules`."""
    written = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in WRITTEN}
    return {**recorded_slo.documents(), **recorded_figures.documents(), **written}
