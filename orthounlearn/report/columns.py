"""The chosen columns of a printed table, and how their numbers look."""

from collections.abc import Sequence

from orthounlearn.errors import UsageError
from orthounlearn.metrics.catalog import CATALOG, figure
from orthounlearn.report.rows import Cell, Row

COLUMNS = (
    "acc/retain_test",
    "drift/retain_test",
    "acc/nearest_class_drop",
    "acc/forget_test",
    "mia/pop_margin/auc",
    "mia/pop_lr/auc",
    "privacy/worst",
    "probe/k10",
    "probe/k50",
    "depth/index",
    "relearn/lr0.01/area",
    "routing_js",
    "avg_gap",
    "time/prep_s",
    "time/unlearn_s",
    "verdict",
)
"""Utility, forgetting, membership, features, likeness to the retrained model, cost, verdict."""

_OF_SEQUENCES = ("drift/retain_test",)
"""Columns of tables with several steps alone: in others the row of the original stands beside."""

VERDICT = "verdict"
"""A column of text, made of the figures `verdict/HEADLINE`."""

_SCALE = {"%": 100.0, "ms": 1000.0, "": 1.0}
_NAMES = {
    "mia/pop_margin/auc": "MIA AUC margin",
    "mia/pop_lr/auc": "MIA AUC learned",
    "probe/k10": "10-shot probe",
    "probe/k50": "50-shot probe",
}


def columns(rows: Sequence[Row], chosen: Sequence[str] = COLUMNS) -> list[str]:
    """Return the chosen columns in which some row has a value.

    Args:
        rows: Of the table.
        chosen: Keys of figures, and `verdict`.

    Raises:
        UsageError: A key is in no row and in no catalog.
    """
    for key in chosen:
        _known(key)
    hidden = () if in_sequence(rows) or chosen is not COLUMNS else _OF_SEQUENCES
    return [key for key in chosen if key not in hidden and any(_has(row, key) for row in rows)]


def _known(key: str) -> None:
    if key == VERDICT:
        return
    try:
        figure(key)
    except KeyError:
        raise UsageError(
            f"Expected columns to be keys of figures, or {VERDICT}, but got {key!r}. Valid: "
            f"{', '.join(entry.pattern for entry in CATALOG)}."
        ) from None


def _has(row: Row, key: str) -> bool:
    return key in row.metrics or (key == VERDICT and bool(verdicts(row)))


def in_sequence(rows: Sequence[Row]) -> bool:
    """Return whether some row is of a later step, so that the steps have to be told apart."""
    return any(row.step > 1 for row in rows)


def heading(key: str) -> str:
    """Return the heading of a column: name, unit, arrow to its target."""
    if key == VERDICT:
        return "Verdict"
    entry = figure(key)
    unit = " %" if entry.unit == "%" else ""
    return f"{_NAMES.get(key, entry.heading)}{unit} {entry.arrow}".strip()


def text(row: Row, key: str) -> str:
    """Return what stands in a row's column, and of how many runs if others have no value."""
    if key == VERDICT:
        return verdict(row)
    cell = row.metrics.get(key)
    fewer = f" (n={cell.n})" if cell is not None and cell.n < row.n else ""
    return number(key, cell) + fewer


def verdict(row: Row) -> str:
    """Return the headline of the row's verdicts, or each with its number of runs."""
    found = verdicts(row)
    if len(found) < 2:
        return next(iter(found), "–")
    return ", ".join(f"{headline} {count}" for headline, count in found.items())


def verdicts(row: Row) -> dict[str, int]:
    """Return headline -> number of runs, the most frequent first."""
    prefix = f"{VERDICT}/"
    found = {
        key.removeprefix(prefix): round(cell.mean * cell.n)
        for key, cell in row.metrics.items()
        if key.startswith(prefix) and cell.mean > 0
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def number(key: str, cell: Cell | None) -> str:
    """Return mean ± half width: shares of 100 with one decimal, others with three digits.

    The same digits in a whole column, so that rows can be compared; how many of them mean
    something is what the half width says.
    """
    if cell is None:
        return "–"
    unit = figure(key).unit
    mean = scaled(key, cell.mean)
    if cell.low is None or cell.high is None:
        return mean
    return f"{mean} ± {_digits((cell.high - cell.low) / 2 * _SCALE[unit], unit)}"


def scaled(key: str, value: float) -> str:
    """Return a value of a figure in its unit, with a column's digits."""
    unit = figure(key).unit
    return _digits(value * _SCALE[unit], unit)


def _digits(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:z.1f}"
    if abs(value) >= 1000:
        return f"{value:z,.0f}"
    return f"{value:z.3f}" if unit == "" and abs(value) < 10 else f"{value:z.3g}"
