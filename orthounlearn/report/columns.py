"""The chosen columns of a printed table, and how their numbers look."""

import math
from collections.abc import Sequence

from orthounlearn.metrics.catalog import figure
from orthounlearn.report.rows import Cell, Row

COLUMNS = (
    "acc/retain_test",
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

_SCALE = {"%": 100.0, "ms": 1000.0, "": 1.0}
_NAMES = {
    "mia/pop_margin/auc": "MIA AUC margin",
    "mia/pop_lr/auc": "MIA AUC learned",
    "probe/k10": "10-shot probe",
    "probe/k50": "50-shot probe",
}


def columns(rows: Sequence[Row]) -> list[str]:
    """Return the chosen columns in which some row has a value."""
    return [key for key in COLUMNS if any(key in row.metrics for row in rows)]


def heading(key: str) -> str:
    """Return the heading of a column: name, unit, arrow to its target."""
    entry = figure(key)
    unit = " %" if entry.unit == "%" else ""
    return f"{_NAMES.get(key, entry.heading)}{unit} {entry.arrow}".strip()


def number(key: str, cell: Cell | None) -> str:
    """Return mean ± half width, with no more digits than the interval supports."""
    if cell is None:
        return "–"
    scale = _SCALE[figure(key).unit]
    mean = cell.mean * scale
    if cell.low is None or cell.high is None:
        return _round(mean, abs(mean) * 0.01)
    half = (cell.high - cell.low) / 2 * scale
    return f"{_round(mean, half)} ± {_round(half, half)}"


def _round(value: float, resolution: float) -> str:
    """Round to the first digit of the resolution, at most three decimals."""
    if resolution <= 0 or not math.isfinite(resolution):
        resolution = 0.001 if abs(value) < 10 else 0.1
    decimals = min(3, max(0, -math.floor(math.log10(resolution))))
    return f"{value:.{decimals}f}"
