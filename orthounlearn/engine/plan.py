"""What a table consists of: multiruns that depend on each other, and the cells of each."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from typing import Any

from orthounlearn.config.build import command_line_overrides, compose_variants, has, locate
from orthounlearn.data.splits import resolve_forget, resolve_sequence, said
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.prepare import is_prepared, preparation_folder
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import StoredModel, stored_model
from orthounlearn.engine.train import configured
from orthounlearn.errors import UsageError
from orthounlearn.report.collect import DIVERGED

Grid = dict[str, list[str]]
"""Axes of a multirun: override name -> values."""

End = tuple[Path, Callable[[], bool]]
"""The folder that a cell ends in, and whether it is finished."""


@dataclass(frozen=True)
class Phase:
    """One multirun: a grid of overrides, and the folders that its cells end in.

    Attributes:
        title: For people.
        job: "train", "prepare" or "unlearn".
        grid: Axes.
        cells: Where each cell ends.
    """

    title: str
    job: str
    grid: Grid
    cells: list[End]

    @property
    def missing(self) -> int:
        """Number of cells that are not finished."""
        return sum(not done() for _, done in self.cells)


def plan(experiment: Experiment, table: dict[str, Any]) -> list[Phase]:
    """Return the multiruns of a table, each of which needs those before it.

    Raises:
        UsageError: A request, or a class to prepare, is not valid.
    """
    names = experiment.data.class_names
    wanted = names if table["forget"] == "all" else table["forget"]
    if isinstance(wanted, (str, int)):  # one request, as in forget=cat
        wanted = [wanted]
    requests = [resolve_forget(entry, names, option="table.forget") for entry in wanted]
    _check_prepared(requests, table["prepared"], len(names))
    forgets = [[said(label, names) for label in request] for request in requests]
    if table["sequence"]:
        resolve_sequence(forgets[:-1], forgets[-1], names)  # before hundreds of cells are composed
    networks = {
        "model": [str(model) for model in table["models"]],
        "regularizer": [str(regularizer) for regularizer in table["regularizers"]],
        "seed": [str(seed) for seed in table["seeds"]],
    }
    gone = list(accumulate(forgets)) if table["sequence"] else forgets
    without = {"without": [_listed(classes) for classes in gone]} if table["references"] else {}
    methods = list(map(str, table["methods"]))
    if table["references"] and "retrain" not in methods:
        methods.append("retrain")

    compose = partial(_composed, experiment, table)
    unlearning = []
    prepared: dict[str, Grid] = {}  # those methods of each kind whose preparation lasts
    wanting: dict[Path, list[Callable[[], bool]]] = defaultdict(list)
    for (step, request), (kind, chosen_of) in product(
        _requests(forgets, in_sequence=table["sequence"]).items(),
        _by_options(experiment, table, methods).items(),
    ):
        grid = {**networks, **request, **chosen_of}
        phase = Phase(f"unlearning methods{kind}{step}", "unlearn", grid, [])
        lasting: dict[str, None] = {}  # in order
        for chosen, cell in compose("unlearn", grid):
            folder = open_request(cell).folder
            phase.cells.append((folder, partial(_is_finished, folder)))
            if _lasts(cell):
                lasting[chosen["method"]] = None
                wanting[preparation_folder(cell)].append(phase.cells[-1][1])
        prepared[kind] = {**networks, **chosen_of, "method": list(lasting)}
        unlearning.append(phase)

    def ready(cell: Experiment) -> End:
        folder = preparation_folder(cell)
        return folder, lambda: all(done() for done in wanting[folder]) or is_prepared(cell)

    before: list[tuple[str, str, Grid, Callable[[Experiment], End]]] = [
        ("original models", "train", networks, _trained),
        *((f"preparations{kind}", "prepare", grid, ready) for kind, grid in prepared.items()),
    ]
    if without:
        seeds = [*networks["seed"], *map(str, experiment.config["metrics"]["reference_seeds"])]
        retrained = {**networks, "seed": list(dict.fromkeys(seeds)), **without}
        before.append(("retrained models", "train", retrained, _trained))
    count = experiment.config["metrics"]["shadows"]
    if count:  # one pool for all seeds and requests, and one for each request without its classes
        pool = {axis: values for axis, values in networks.items() if axis != "seed"}
        pool["shadow"] = [str(k) for k in range(count)]
        before.append(("shadow models", "train", pool, _trained))
        if without:
            before.append(("retrained shadow models", "train", pool | without, _trained))
    return [
        *(
            Phase(title, job, grid, [end(cell) for _, cell in compose(job, grid)])
            for title, job, grid, end in before
            if all(grid.values())
        ),
        *unlearning,
    ]


def reference(table: dict[str, Any]) -> str:
    """Return the override that says whether retrained networks are trained if they are missing."""
    return f"metrics.reference={'train' if table['references'] else 'auto'}"


def _by_options(
    experiment: Experiment, table: dict[str, Any], methods: Sequence[str]
) -> dict[str, Grid]:
    """Return the axes of methods that take the same of `table.options`, by what to call them.

    Raises:
        UsageError: An option has no list of values, or no method has it.
    """
    axes: dict[str, list[Any]] | None = table["options"]
    if axes is None:
        return {"": {"method": list(methods)}}
    if not isinstance(axes, dict) or not all(v and isinstance(v, list) for v in axes.values()):
        raise UsageError(
            "Expected table.options to have a list of values for each option, as in {rate: [0.1, "
            f"0.3]}}, but got {axes}."
        )
    having: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for method in methods:
        (_, cell), *_ = _composed(experiment, table, "unlearn", {"method": [method]})
        taken = tuple(option for option in axes if has(cell.config["method"], option))
        having[taken].append(method)
    if unknown := axes.keys() - {option for taken in having for option in taken}:
        raise UsageError(
            f"Expected table.options to name options of {', '.join(methods)}, but none of them "
            f"has {', '.join(sorted(unknown))}; conf/method/NAME.yaml says what a method has."
        )
    return {
        f" by {', '.join(taken)}" if taken else "": {
            "method": names,
            **{
                f"{_METHOD}{option}": [_listed(value) for value in axes[option]] for option in taken
            },
        }
        for taken, names in sorted(having.items())
    }


def _check_prepared(
    requests: Sequence[Sequence[int]], prepared: Sequence[int] | None, num_classes: int
) -> None:
    """Refuse a class that nothing can be prepared for, before anything is trained."""
    asked = {label for request in requests for label in request}
    if prepared is None:
        return
    if not asked <= set(prepared) <= set(range(num_classes)):
        raise UsageError(
            f"Expected table.prepared to hold numbers from 0 to {num_classes - 1}, and those of "
            f"all classes of table.forget, {sorted(asked)}, but got {sorted(prepared)}. Add what "
            "is missing, or prepare all with table.prepared=null."
        )


Cells = list[tuple[dict[str, str], Experiment]]
"""What each cell of a multirun chose of files in conf/, and its experiment."""


def _composed(experiment: Experiment, table: dict[str, Any], job: str, grid: Grid) -> Cells:
    choices = {key: values for key, values in grid.items() if not _is_value(key)}
    values = {key: map(json.loads, grid[key]) for key in grid if _is_value(key)}
    variants = [dict(zip(values, row, strict=True)) for row in product(*values.values())]
    shared = [*command_line_overrides(), reference(table)]
    cells: Cells = []
    for row in product(*choices.values()):
        chosen = dict(zip(choices, row, strict=True))
        overrides = [*shared, *(f"{key}={value}" for key, value in chosen.items())]
        configs = compose_variants(job, overrides, variants)
        cells += [(chosen, replace(experiment, config=config)) for config in configs]
    return cells


def _trained(cell: Experiment) -> End:
    stored = stored_model(cell, **configured(cell))
    return stored.folder, partial(_is_trained, stored)


def _lasts(cell: Experiment) -> bool:
    """Return whether a cell's method prepares for good; only that is worth a cell of its own."""
    return bool(getattr(locate(str(cell.config["method"]["_target_"])), "lasting", False))


def _requests(
    forgets: list[list[int | str]], *, in_sequence: bool
) -> dict[str, dict[str, list[str]]]:
    """Return the axes that say what is forgotten, by the title of the multirun that has them."""
    if not in_sequence:
        return {"": {"forget": [_listed(classes) for classes in forgets]}}
    return {
        f", step {number + 1}": {
            "after": [_listed(forgets[:number])],
            "forget": [_listed(classes)],
        }
        for number, classes in enumerate(forgets)
    }


def _listed(value: Any) -> str:  # noqa: ANN401 - lists of lists of classes
    """Return the value of an override, without spaces, which Hydra's grammar would keep.

    >>> _listed([[1, 2], ["4"]])
    '[[1,2],["4"]]'
    """
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _is_trained(stored: StoredModel) -> bool:
    return stored.is_trained


def _is_finished(folder: Path) -> bool:
    """Return whether a request has its figures, or has none since its network diverged."""
    return any((folder / name).exists() for name in ("metrics.json", DIVERGED))


def _is_value(axis: str) -> bool:
    """Return whether an axis is of values; the others are of files in conf/."""
    return axis in _VALUES or axis.startswith(_METHOD)


_VALUES = ("seed", "forget", "after", "shadow", "without")
_METHOD = "method."  # begins the axis of a method's option
