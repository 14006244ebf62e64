"""The chosen columns of a printed table, and how their numbers look."""

from collections.abc import Sequence

from orthounlearn.metrics.catalog import figure
from orthounlearn.report.rows import Cell, Row

COLUMNS = (
    "acc/retain_test",
    "drift/retain_test",
    "acc/nearest_class_drop",
    "acc/forget_train",
    "acc/forget_test",
    "mia/pop_margin/auc",
    "mia/pop_lr/auc",
    "probe/k10",
    "probe/k50",
    "routing_js",
    "avg_gap",
    "time/prep_s",
    "time/unlearn_s",
)
"""Utility, forgetting, membership, features, likeness to the retrained model, cost."""

_OF_SEQUENCES = ("drift/retain_test",)
"""Columns of tables with several steps alone: in others the row of the original stands beside."""

_SCALE = {"%": 100.0, "ms": 1000.0, "": 1.0}
_NAMES = {
    "mia/pop_margin/auc": "MIA AUC margin",
    "mia/pop_lr/auc": "MIA AUC learned",
    "probe/k10": "10-shot probe",
    "probe/k50": "50-shot probe",
}


def columns(rows: Sequence[Row]) -> list[str]:
    """Return the chosen columns in which some row has a value."""
    hidden = () if in_sequence(rows) else _OF_SEQUENCES
    return [key for key in COLUMNS if key not in hidden and any(key in row.metrics for row in rows)]


def in_sequence(rows: Sequence[Row]) -> bool:
    """Return whether some row is of a later step, so that the steps have to be told apart."""
    return any(row.step > 1 for row in rows)


def heading(key: str) -> str:
    """Return the heading of a column: name, unit, arrow to its target."""
    entry = figure(key)
    unit = " %" if entry.unit == "%" else ""
    return f"{_NAMES.get(key, entry.heading)}{unit} {entry.arrow}".strip()


def number(key: str, cell: Cell | None) -> str:
    """Return mean ± half width: shares of 100 with one decimal, others with three digits.

    The same digits in a whole column, so that rows can be compared; how many of them mean
    something is what the half width says.
    """
    if cell is None:
        return "–"
    unit = figure(key).unit
    mean = _digits(cell.mean * _SCALE[unit], unit)
    if cell.low is None or cell.high is None:
        return mean
    return f"{mean} ± {_digits((cell.high - cell.low) / 2 * _SCALE[unit], unit)}"


def _digits(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if unit == "" and abs(value) < 10 else f"{value:.3g}"
