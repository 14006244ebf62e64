"""Rows of the table: means over forget classes and seeds, with their intervals."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t

from orthounlearn.report.collect import Run, plain_name

_OF_THE_POOL = ("lira/", "rmia/", "ulira/", "shadows/")
"""Beginnings of the keys of shadow attacks."""

_FIRST = ("original", "retrain", "mask_logit", "soft_prune", "class_transport")


@dataclass(frozen=True)
class Cell:
    """One figure of one row.

    Attributes:
        mean: Over runs.
        low: Lower end of the 95 % t-interval; None for a single run.
        high: Upper end.
        n: Number of runs in which the figure is defined.
        target: Mean of the retrained model in the same group; None without one.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    target: float | None


@dataclass(frozen=True)
class Row:
    """One method on one kind of original, at one step of a sequence (1 for a request alone).

    `trials` is how many chose its values, `options` are these; see `Run`.
    """

    data: str
    model: str
    regularizer: str
    method: str
    step: int
    trials: int | None
    metrics: dict[str, Cell]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> tuple[str, str, str]:
        """Return data, model and regularizer."""
        return self.data, self.model, self.regularizer

    @property
    def n(self) -> int:
        """Return the number of runs: of the figure that is defined in most."""
        return max((cell.n for cell in self.metrics.values()), default=0)


def make_rows(runs: Sequence[Run]) -> list[Row]:
    """Group runs by data, model, regularizer, method and step; average over classes and seeds.

    Within a group references, the trivial rival and ours come first, then the methods in the order
    of the runs: that of `table.methods` in a sweep.
    """
    methods = [*_FIRST, *(plain_name(run.method) for run in runs)]
    place = {method: at for at, method in reversed(list(enumerate(methods)))}
    grouped: dict[tuple[str, str, str, str, int], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[*run.group, run.method, run.step].append(run)
    keys = sorted(grouped, key=lambda key: (*key[:3], place[plain_name(key[3])], *key[3:]))
    return [
        Row(
            *key,
            trials=grouped[key][0].trials,
            metrics=_cells(grouped[key]),
            options=grouped[key][0].options,
        )
        for key in keys
    ]


def method_rank(method: str) -> int:
    """Return the place of a method in a table: references first, then ours, then the others."""
    name = plain_name(method)
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def group_title(data: str, model: str, regularizer: str) -> str:
    """Return what the rows of a group share, in words.

    >>> group_title("digits", "resnet20", "none")
    'digits, resnet20, no orthogonal loss'
    """
    loss = "no orthogonal loss" if regularizer == "none" else f"orthogonal loss: {regularizer}"
    return f"{data}, {model}, {loss}"


def _cells(runs: Sequence[Run]) -> dict[str, Cell]:
    keys = sorted({key for run in runs for key in run.metrics})
    cells = {}
    for key in keys:
        values = _values(key, runs)
        targets = [run.retrained[key] for run in runs if key in run.retrained]
        low, high = interval(values)
        cells[key] = Cell(
            fmean(values), low, high, len(values), fmean(targets) if targets else None
        )
    return cells


def _values(key: str, runs: Sequence[Run]) -> list[float]:
    """Return the values of a figure that are independent draws.

    One pool of shadows attacks the requests of all seeds: their figures are the same number again.
    """
    having = [run for run in runs if key in run.metrics]
    if key.startswith(_OF_THE_POOL):
        having = list({(run.after, run.forget): run for run in reversed(having)}.values())
    return [run.metrics[key] for run in having]


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float | None, float | None]:
    """Return the t-interval of the mean; (None, None) for fewer than two values.

    >>> [round(end, 3) for end in interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    """
    if len(values) < 2:
        return None, None
    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return fmean(values) - half, fmean(values) + half
