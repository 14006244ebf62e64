"""What a benchmark returns, and how it is shown and stored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from bench.timing import Spread


@dataclass(frozen=True)
class Target:
    """What the median should be."""

    direction: Literal["at least", "at most"]
    limit: float

    def met_by(self, value: float) -> bool:
        """Return whether a median holds the target."""
        return value >= self.limit if self.direction == "at least" else value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Of the benchmark.
        a: What was measured.
        b: What it was divided by; "" for a plain value.
        spread: Of A / B over the rounds, or of A.
        target: None for a figure that only informs.
        unit: "x" for a ratio.
        note: What one must know to read the figure; may be empty.
    """

    name: str
    a: str
    b: str
    spread: Spread
    target: Target | None
    unit: str = "x"
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the median holds the target; None without one."""
        return None if self.target is None else self.target.met_by(self.spread.median)


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and the notes below it."""
    table = Table(title="Speed: A / B, median of the rounds", show_lines=True)
    for column in ("benchmark", "A", "B"):
        table.add_column(column, overflow="fold")
    for column in ("A / B", "min..max", "target", "holds"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        spread, target = row.spread, row.target
        table.add_row(
            row.name,
            row.a,
            row.b,
            f"{spread.median:.4g} {row.unit}",
            f"{spread.low:.4g}..{spread.high:.4g}",
            f"{target.direction} {target.limit:g}" if target else "",
            {True: "yes", False: "no", None: ""}[row.holds],
        )
    console.print(table)
    for note in dict.fromkeys(f"{row.name}: {row.note}" for row in rows if row.note):
        console.print(note, highlight=False, markup=False)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as plain dicts."""
    return [{**asdict(row), "holds": row.holds} for row in rows]
