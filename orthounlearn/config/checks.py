"""What options may hold: keys that somebody reads, numbers in their range, names of files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from orthounlearn.errors import UsageError


@dataclass(frozen=True)
class Range:
    """The numbers that an option may hold; of a list, each of its entries.

    Attributes:
        low: The smallest.
        high: The largest.
        without_low: Whether `low` itself is excluded.
        without_high: Whether `high` itself is excluded.
    """

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, value: float) -> bool:
        """Tell whether a number lies in the range.

        >>> [value in Range(0, 1, without_high=True) for value in (-1, 0, 1)]
        [False, True, False]
        """
        above = value > self.low if self.without_low else value >= self.low
        return above and (value < self.high if self.without_high else value <= self.high)

    def __str__(self) -> str:
        """Return it in words.

        >>> print(Range(1), "|", Range(0, without_low=True), "|", Range(0, 1, without_high=True))
        at least 1 | above 0 | in [0, 1)
        """
        if self.high == math.inf:
            return f"{'above' if self.without_low else 'at least'} {self.low:g}"
        brackets = "(["[not self.without_low], ")]"[not self.without_high]
        return f"in {brackets[0]}{self.low:.0f}, {self.high:.0f}{brackets[1]}"


_SEED = Range(0, 2**32 - 1)  # what NumPy takes
_COUNT = Range(1)

RANGES = {
    "seed": _SEED,
    "data.val_fraction": Range(0, 1, without_high=True),
    "data.split_seed": _SEED,
    "data.crop_padding": Range(0),
    "data.source.image_size": _COUNT,
    "recipe.epochs": _COUNT,
    "recipe.batch_size": _COUNT,
    "recipe.label_smoothing": Range(0, 1, without_high=True),
    "recipe.image_sizes": _COUNT,
    "metrics.max_images": _COUNT,
    "metrics.reference_seeds": _SEED,
    "metrics.batch_size": _COUNT,
    "metrics.shadows": Range(0),
    "shadow": Range(0),
    "metrics.relearn.images": _COUNT,
    "metrics.relearn.steps": _COUNT,
    "metrics.relearn.every": _COUNT,
    "metrics.relearn.learning_rates": Range(0, without_low=True),
    "metrics.relearn.batch_size": _COUNT,
    "metrics.relearn.max_test_images": _COUNT,
    "table.seeds": _SEED,
    "table.jobs": Range(0),
    "tune.trials": _COUNT,
}
"""Options that are numbers, by dotted key; those of a `_target_` check themselves."""

FILE_NAMES = ("model.name", "regularizer.name", "method.name", "table.name")
"""Options that become parts of paths below the runs folder."""


def validate_values(config: Mapping[str, Any]) -> None:
    """Check the numbers and names of a configuration, before anything is done with them.

    Raises:
        UsageError: Lists all the values that are out of their range.
    """
    problems = [
        f"Expected {key} to be {wanted}, but got {value}."
        for key, wanted in RANGES.items()
        for value in _values(config, key)
        if not _is_number(value) or value not in wanted
    ]
    problems += [
        problem
        for key in FILE_NAMES
        for value in _values(config, key)
        if (problem := _path_in(key, value))
    ]
    if problems:
        raise UsageError("\n  ".join(problems))


def validate_file_name(option: str, name: str) -> None:
    """Check that a name stays in the folder that it is put in.

    Raises:
        UsageError: It has a separator, or leads out of the folder.
    """
    if problem := _path_in(option, name):
        raise UsageError(problem)


def _path_in(option: str, name: Any) -> str | None:  # noqa: ANN401 - of a node without a schema
    name = str(name)
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        return (
            f"Expected {option} to be a name without / and \\, for files below the runs folder, "
            f"but got {name!r}."
        )
    return None


def _values(config: Mapping[str, Any], key: str) -> list[Any]:
    """Return the value at a dotted key, or the entries of a list there; [] if it is not set."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _is_number(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def validate_keys(node: DictConfig) -> None:
    """Check that every key of a node with a schema is in it; `+key=value` adds any.

    Raises:
        UsageError: Lists the keys that nobody would read.
    """
    problems = _unknown_keys(node, "")
    if problems:
        raise UsageError("\n  ".join(problems))


def _unknown_keys(node: DictConfig, path: str) -> list[str]:
    schema = OmegaConf.get_type(node)
    if not is_dataclass(schema):
        return []  # of a `_target_`, which says itself what it takes
    known = [field.name for field in fields(schema)]
    problems = []
    for key in map(str, node):
        child = node._get_node(key)
        here = f"{path}{key}"
        if key not in known:
            problems.append(f"Expected {close_keys(key, known, path)}, but got {here}.")
        elif isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            problems += _unknown_keys(child, f"{here}.")
    return problems


def close_keys(key: str, valid: list[str], path: str) -> str:
    """Return what of the valid keys may be meant: those that look like it first, or all.

    >>> close_keys("epoch", ["epochs", "batch_size"], "recipe.")
    'recipe.epochs'
    >>> close_keys("foo", ["epochs", "batch_size"], "recipe.")
    'one of recipe.batch_size, recipe.epochs'
    """
    close = get_close_matches(key, valid) or sorted(valid)
    return ("one of " if len(close) > 1 else "") + ", ".join(f"{path}{name}" for name in close)
