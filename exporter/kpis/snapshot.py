"""A KPI snapshot: rows checked one by one, rendered once, swapped in whole."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Protocol

from exporter.http.gzip_member import Compressed, compress_first
from exporter.kpis.definitions import KpiFile, Metric


class Row(Protocol):
    """A row by its columns: a mapping, or a database record."""

    def __getitem__(self, name: str, /) -> Any: ...


class DuplicateLabels(ValueError):
    """A KPI's query gave two rows with the same labels."""


@dataclass(frozen=True)
class Rendered:
    """One KPI's samples as text: lines by metric.

    `dropped`: values that could not become one. `cut`: rows beyond the limit of a ranked KPI.
    """

    families: tuple[tuple[Metric, str], ...]
    dropped: int
    cut: int = 0

    @property
    def series(self) -> int:
        """How many samples there are."""
        return sum(samples.count("\n") for _, samples in self.families)


@lru_cache(maxsize=65536)
def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _label_text(names: Sequence[str], row: Row) -> str | None:
    parts = []
    for name in names:
        value = row[name]
        if not isinstance(value, str):
            return None
        parts.append(f'{name}="{_escape(value)}"')
    return ",".join(parts)


def _value_text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = float(value)
    return repr(number) if math.isfinite(number) else None


def render(kpi: KpiFile, rows: Iterable[Row], limit: int | None = None) -> Rendered:
    """Render a KPI's rows. NULL is no sample; what is no number or no text is dropped and counted.

    `limit`: the highest rank that is kept of a ranked KPI.
    Raises DuplicateLabels, and KeyError where the query lacks a column.
    """
    lines: dict[str, list[str]] = {metric.name: [] for metric in kpi.metric}
    seen: set[str] = set()
    dropped = cut = 0
    for row in rows:
        if kpi.ranked and limit is not None and row["rank"] > limit:
            cut += 1
            continue
        labels = _label_text(kpi.labels, row)
        if labels is None:
            dropped += 1
            continue
        if labels in seen:
            raise DuplicateLabels(f"{kpi.name}: two rows with {{{labels}}}")
        seen.add(labels)
        for metric in kpi.metric:
            for more, column in metric.sources:
                value = row[column]
                if value is None:
                    continue
                text = _value_text(value)
                if text is None:
                    dropped += 1
                else:
                    lines[metric.name].append(f"{metric.name}{{{labels}{more}}} {text}\n")
    families = tuple((metric, "".join(lines[metric.name])) for metric in kpi.metric)
    return Rendered(families, dropped, cut)


@dataclass(frozen=True)
class Snapshot:
    """Every KPI's last good samples. A scrape copies its bytes.

    `complete`: whether they are of the whole history; None where nothing was computed.
    """

    kpis: Mapping[str, Rendered]
    complete: bool | None = None

    def _text(self, *, openmetrics: bool) -> bytes:
        parts = []
        for name in sorted(self.kpis):
            for metric, samples in self.kpis[name].families:
                if not samples:
                    continue
                help_text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
                if openmetrics:
                    help_text = help_text.replace('"', r"\"")
                parts.append(f"# HELP {metric.name} {help_text}\n# TYPE {metric.name} gauge\n")
                # OpenMetrics has units only that end the name.
                if openmetrics and metric.name.endswith(f"_{metric.unit}"):
                    parts.append(f"# UNIT {metric.name} {metric.unit}\n")
                parts.append(samples)
        return "".join(parts).encode()

    @cached_property
    def plain(self) -> bytes:
        """Prometheus text."""
        return self._text(openmetrics=False)

    @cached_property
    def openmetrics(self) -> bytes:
        """OpenMetrics text, without its end mark."""
        return self._text(openmetrics=True)

    @cached_property
    def plain_compressed(self) -> Compressed:
        """Prometheus text as the first part of a gzip member."""
        return compress_first(self.plain)

    @cached_property
    def openmetrics_compressed(self) -> Compressed:
        """OpenMetrics text as the first part of a gzip member."""
        return compress_first(self.openmetrics)

    def prepare(self) -> "Snapshot":
        """Make all the bytes now, so that no scrape has to."""
        _ = (self.plain_compressed, self.openmetrics_compressed)
        return self


EMPTY = Snapshot({})
