"""What was checked: a figure, its target, and whether it is met."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.commands.output import printable

_MARKS = {True: Text("right", "green"), False: Text("wrong", "red"), None: Text("left", "yellow")}


@dataclass(frozen=True)
class Check:
    """One check. `good` is None where it could not be made, and `figure` says why."""

    group: str
    name: str
    good: bool | None
    figure: str
    target: str = ""


@dataclass
class Report:
    """The checks in the order that they were made."""

    checks: list[Check] = field(default_factory=list)

    def add(
        self, group: str, name: str, good: bool | None, figure: object = "", target: str = ""
    ) -> None:
        """Add a check."""
        self.checks.append(Check(group, name, good, str(figure), target))

    def below(self, group: str, name: str, value: float, limit: float, unit: str) -> None:
        """Add a check of a figure that must be below a limit."""
        self.add(group, name, value < limit, f"{value:,.1f} {unit}", f"< {limit:,.0f} {unit}")

    @property
    def failed(self) -> int:
        """How many checks failed; one that could not be made is none of them."""
        return sum(check.good is False for check in self.checks)

    def show(self, console: Console) -> None:
        """Print the table, and a sentence that sums it up."""
        table = Table(box=None, pad_edge=False)
        for head in ("", "check", "figure", "target"):
            table.add_column(head, overflow="fold")
        group = ""
        for check in self.checks:
            if check.group != group:
                group = check.group
                table.add_row("", Text(group, "bold"), "", "")
            cells = (check.name, check.figure, check.target)
            table.add_row(_MARKS[check.good], *(Text(printable(cell)) for cell in cells))
        console.print(table)
        made = [check for check in self.checks if check.good is not None]
        left = len(self.checks) - len(made)
        console.print(
            f"\n{len(made)} checks, {self.failed} failed"
            + (f", {left} could not be made" if left else "")
        )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share (0 to 1) of the values lie at or below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]
