"""Tuning a method: the same number of trials for each, judged on validation images alone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import yaml
from lightning import seed_everything
from torch import nn

from orthounlearn.config.build import (
    NOTES,
    build,
    chosen_experiment,
    command_line_overrides,
    compose_job,
    settings,
)
from orthounlearn.data.splits import Splits, resolve_forget
from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.own_code import sources
from orthounlearn.engine.request import AUDIT_VERSION, refuse_others_options
from orthounlearn.engine.search import WORST, judged, search
from orthounlearn.engine.store import StoredModel, ensure_trained
from orthounlearn.engine.timing import run_once
from orthounlearn.engine.tuned import recorded
from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.files import digest, write_text
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.metrics.accuracy import micro_accuracy

_log = logging.getLogger(__name__)

SPLITS = ("forget_val", "retain_val")
"""All that tuning sees. Neither network was trained on them, and the audit never reads them."""


@dataclass(frozen=True)
class Cell:
    """One original model and one request to try every setting on.

    Attributes:
        experiment: Of this model, regulariser and seed.
        splits: Of the request.
        stored: The original model.
        retain_val: Its accuracy on the retained validation images, in [0, 1].
    """

    experiment: Experiment
    splits: Splits
    stored: StoredModel
    retain_val: float


def tune(experiment: Experiment, *, tuned_dir: Path) -> Path:
    """Search the method's declared space and write the best values.

    The objective of a setting is the mean over the cells of

        accuracy(forget_val) + max(0, accuracy_original(retain_val) − accuracy(retain_val)),

    0 for a method that forgets everything and costs nothing. It needs no retrained model and no
    test image, and it treats a point of either kind alike. A killed search goes on.

    Args:
        experiment: With `method` (and its `search`) and `tune`.
        tuned_dir: The values go to `tuned_dir/EXPERIMENT/METHOD.yaml`, which the jobs read; so do
            options of the method that were set by hand.

    Returns:
        The written file.

    Raises:
        UsageError: The method declares no search, an axis is empty, or the method refuses the
            request at its own values.
    """
    refuse_others_options(experiment, job="tune")
    method, options = experiment.config["method"], experiment.config["tune"]
    space = (method or {}).get("search")
    if not space:
        raise UsageError(
            "Expected method=NAME of a method that declares `search` in its YAML, but "
            f"{method['name'] if method else 'no method'} has nothing to tune."
        )
    if not options:
        raise UsageError("Expected experiment=NAME with a `tune` node, such as digits_cpu.")
    cells = _cells(experiment, options)

    def judge(values: Mapping[str, Any]) -> float:
        return fmean(_loss(cell, with_values(method, values)) for cell in cells)

    study = search(
        _path(experiment, space, cells),
        space=space,
        own={option: _at(method, option) for option in space},
        judge=judge,
        trials=int(options["trials"]),
    )
    return _write(experiment, study, cells, tuned_dir)


def _cells(experiment: Experiment, options: Mapping[str, Any]) -> list[Cell]:
    cells = []
    shared = [o for o in command_line_overrides() if not o.lstrip("+").startswith("method.")]
    for model in options["models"]:
        for regularizer in options["regularizers"]:
            chosen = [f"model={model}", f"regularizer={regularizer}"]
            cell = replace(experiment, config=compose_job("tune", [*shared, *chosen]))
            stored = ensure_trained(cell, seed=cell.config["seed"])
            net = stored.load(cell)
            for entry in options["forget"]:
                splits = cell.splits(resolve_forget(entry, cell.data.class_names))
                accuracy = _accuracies(cell, net, splits)["retain_val"]
                cells.append(Cell(cell, splits, stored, accuracy))
    if not cells:
        raise UsageError("Expected tune.models, tune.regularizers and tune.forget to have entries.")
    return cells


def _path(experiment: Experiment, space: Mapping[str, Any], cells: Sequence[Cell]) -> Path:
    """Return the file of exactly this question, asked of this version of the code."""
    method = experiment.config["method"]
    own = sources(method)
    question = digest(
        {
            "version": AUDIT_VERSION,  # raised where a method is changed: old answers are not its
            "method": settings(method),
            "space": space,
            "cells": [[cell.stored.key, cell.splits.hash] for cell in cells],
            **({"sources": own} if own else {}),
        }
    )
    folder = experiment.runs / "tune" / experiment.data.name
    return folder / f"{method['name']}_{question[:8]}.log"


def _loss(cell: Cell, node: Mapping[str, Any]) -> float:
    """Return the objective of one setting of the method on one cell."""
    experiment = cell.experiment
    seed = experiment.config["seed"]
    method = build(node, UnlearningMethod)
    net = cell.stored.load(experiment)
    seed_everything(seed, workers=True, verbose=False)
    context = RequestContext(
        experiment, method, splits=cell.splits, seed=seed, kept_folder=cell.stored.folder
    )
    try:
        unlearned = run_once(method, net, context)
        found = _accuracies(experiment, unlearned, cell.splits)
    except DivergedError as error:
        _log.info("%s", error)
        return WORST
    return objective(found, retain_val_before=cell.retain_val)


def objective(accuracies: Mapping[str, float], *, retain_val_before: float) -> float:
    """Return what is left of the class and what was lost of the others, 0 at best.

    >>> objective({"forget_val": 0.25, "retain_val": 0.5}, retain_val_before=0.75)
    0.5
    """
    lost = retain_val_before - accuracies["retain_val"]
    return accuracies["forget_val"] + max(0.0, lost)


def _accuracies(experiment: Experiment, net: nn.Module, splits: Splits) -> dict[str, float]:
    outputs = predict(experiment, net, splits, SPLITS)
    return {name: micro_accuracy(*outputs[name]) for name in SPLITS}


def _at(node: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401 - any option
    """Return the value at a dotted key."""
    value: Any = node
    for part in key.split("."):
        value = value[part]
    return value


def with_values(node: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a node with values set at dotted keys.

    >>> with_values({"a": {"b": 1}}, {"a.b": 2})
    {'a': {'b': 2}}
    """
    changed = dict(node)
    for key, value in values.items():
        head, _, rest = key.partition(".")
        changed[head] = with_values(changed[head], {rest: value}) if rest else value
    return changed


def _write(
    experiment: Experiment, study: optuna.Study, cells: Sequence[Cell], tuned_dir: Path
) -> Path:
    method = experiment.config["method"]
    name = method["name"]
    chosen = {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in {**_set_by_hand(experiment), **study.best_params}.items()
    }
    best: dict[str, Any] = {}
    for key, value in chosen.items():
        node = best
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    best["tuned"] = {
        "method": name,
        "command": f"orthounlearn tune {' '.join(command_line_overrides())}",
        "split": " + ".join(SPLITS),
        "trials": judged(study),
        "objective": round(study.best_value, 4),
        "cells": [
            f"{cell.stored.folder.name}: {cell.experiment.data.class_names[c]}"
            for cell in cells
            for c in cell.splits.forget
        ],
        "settings": recorded(with_values(method, chosen)),
    }
    path = tuned_dir / chosen_experiment() / f"{name}.yaml"
    header = "# @package method\n# Written by `orthounlearn tune`; see `tuned` for how.\n"
    write_text(path, header + yaml.safe_dump(best, sort_keys=False))
    return path


def _set_by_hand(experiment: Experiment) -> dict[str, Any]:
    """Return the options of the method that the command line set, by dotted key."""
    found: dict[str, Any] = {}
    for override in command_line_overrides():
        group, _, key = override.lstrip("+").partition("=")[0].partition(".")
        if group == "method" and key and key.partition(".")[0] not in NOTES:
            found[key] = _at(experiment.config["method"], key)
    return found
