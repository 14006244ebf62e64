"""A table: every missing cell, in Hydra multiruns that depend on each other in order."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import yaml

from orthounlearn.config.build import command_line_overrides, compose_variants, config_dirs
from orthounlearn.config.multirun import PLANNED
from orthounlearn.data.splits import resolve_forget, resolve_sequence, said
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.progress import SweepProgress
from orthounlearn.engine.request import open_request, refuse_others_options
from orthounlearn.engine.store import StoredModel, stored_model
from orthounlearn.engine.train import configured
from orthounlearn.errors import UsageError
from orthounlearn.report.collect import DIVERGED

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """One multirun: a grid of overrides, and the folders that its cells end in.

    Attributes:
        title: For people.
        job: "train" or "unlearn".
        grid: Override name -> values.
        cells: Folder of each cell -> whether it is finished.
    """

    title: str
    job: str
    grid: dict[str, list[str]]
    cells: list[tuple[Path, Callable[[], bool]]]

    @property
    def missing(self) -> int:
        """Number of cells that are not finished."""
        return sum(not done() for _, done in self.cells)


def sweep(experiment: Experiment, report: Callable[..., object]) -> None:
    """Run what is missing of the configured table, then report it.

    Originals come first, then retrained networks, then shadows, then the methods: so no two
    processes of a phase want the same network. Of a sequence each step of the methods is a phase,
    for the same reason. A killed sweep goes on where it stopped.

    Args:
        experiment: With `table`.
        report: Called with runs, name, data and command at the end.

    Raises:
        UsageError: There is no table, an axis is empty or wrong, or a cell failed.
    """
    refuse_others_options(experiment, job="sweep")
    table = experiment.config["table"]
    if not table:
        raise UsageError("Expected experiment=NAME with a `table`, such as experiment=digits_cpu.")
    for axis in ("models", "regularizers", "methods", "forget", "seeds"):
        if table[axis] in ([], None):
            raise UsageError(f"Expected table.{axis} to have at least one entry, but it is empty.")
    single = [o for o in command_line_overrides() if o.lstrip("+").startswith("method.")]
    if single:
        raise UsageError(
            f"Expected table.methods to say what is compared, but got {' '.join(single)}: options "
            "of one method do not fit them all. Make a method of its own, a YAML with `defaults: "
            "[NAME]`, `name` and these options, as conf/method/soft_prune_literal.yaml is one."
        )
    phases = _plan(experiment, table)
    total = sum(len(phase.cells) for phase in phases)
    missing = sum(phase.missing for phase in phases)
    _log.info("%s: %d cells, %d to run, %d at a time.", table["name"], total, missing, jobs(table))
    for phase in phases:
        if phase.missing:
            _run(phase, table)
    overrides = " ".join(command_line_overrides())
    report(
        runs=str(experiment.runs),
        name=table["name"] + ("_sequence" if table["sequence"] else ""),
        folders=[folder for phase in phases if phase.job == "unlearn" for folder, _ in phase.cells],
        columns=table["columns"],
        command=f"orthounlearn sweep {overrides}".strip(),
    )


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


def jobs(table: dict[str, Any]) -> int:
    """Return how many cells run at a time; 0 means one per core."""
    return int(table["jobs"]) or os.cpu_count() or 1


def _plan(experiment: Experiment, table: dict[str, Any]) -> list[Phase]:
    shared = command_line_overrides()
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

    def cells(job: str, grid: dict[str, list[str]]) -> list[tuple[Path, Callable[[], bool]]]:
        choices = {k: v for k, v in grid.items() if k not in _VALUES}
        values = {k: map(yaml.safe_load, v) for k, v in grid.items() if k in _VALUES}
        variants = [dict(zip(values, row, strict=True)) for row in product(*values.values())]
        found: list[tuple[Path, Callable[[], bool]]] = []
        for row in product(*choices.values()):
            chosen = [f"{key}={value}" for key, value in zip(choices, row, strict=True)]
            for config in compose_variants(job, [*shared, _reference(table), *chosen], variants):
                cell = replace(experiment, config=config)
                if job == "train":
                    stored = stored_model(cell, **configured(cell))
                    found.append((stored.folder, partial(_is_trained, stored)))
                else:
                    folder = open_request(cell).folder
                    found.append((folder, partial(_is_finished, folder)))
        return found

    grids: list[Grid] = [("original models", "train", networks)]
    if without:
        seeds = [*networks["seed"], *map(str, experiment.config["metrics"]["reference_seeds"])]
        retrained = {**networks, "seed": list(dict.fromkeys(seeds)), **without}
        grids.append(("retrained models", "train", retrained))
    count = experiment.config["metrics"]["shadows"]
    if count:  # one pool for all seeds and requests, and one for each request without its classes
        pool = {axis: values for axis, values in networks.items() if axis != "seed"}
        pool["shadow"] = [str(k) for k in range(count)]
        grids.append(("shadow models", "train", pool))
        if without:
            grids.append(("retrained shadow models", "train", pool | without))
    grids += [
        (f"unlearning methods{step}", "unlearn", {**networks, **request, "method": methods})
        for step, request in _requests(forgets, in_sequence=table["sequence"]).items()
    ]
    return [
        Phase(title, job, grid, cells(job, grid))
        for title, job, grid in grids
        if all(grid.values())
    ]


Grid = tuple[str, str, dict[str, list[str]]]
"""Title, job and axes of a multirun."""


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


def _reference(table: dict[str, Any]) -> str:
    """Return the override that says whether retrained networks are trained if they are missing."""
    return f"metrics.reference={'train' if table['references'] else 'auto'}"


_VALUES = ("seed", "forget", "after", "shadow", "without")
"""Axes that are values; the others are choices of a file in conf/."""


def _run(phase: Phase, table: dict[str, Any]) -> None:
    at_once = jobs(table)
    command = [
        *(sys.executable, "-m", "orthounlearn", phase.job, "-m", *config_dirs()),
        *command_line_overrides(),
        _reference(table),
        *(f"{key}={','.join(values)}" for key, values in phase.grid.items()),
        f"group={table['name']}",
    ]
    if table["launcher"] == "joblib":
        if at_once > 1:
            command += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={at_once}"]
    else:
        command += [f"hydra/launcher={table['launcher']}"]
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    # One thread each: two processes of one thread do more than one process of two.
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"}
    environment[PLANNED] = "1"
    with SweepProgress(phase.title, phase.cells):
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)  # noqa: S603
    if phase.missing:
        raise UsageError(
            f"{phase.missing} of {len(phase.cells)} cells ({phase.title}) did not finish. The last "
            f"lines of the sweep:\n{_tail(done.stderr)}\nThe same command runs the missing ones."
        )


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
