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
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from torch import nn

from orthounlearn.config.build import (
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
from orthounlearn.engine.request import refuse_others_options
from orthounlearn.engine.store import StoredModel, ensure_trained
from orthounlearn.engine.timing import run_once
from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.files import digest, make_folder, write_text
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
        UsageError: The method declares no search, or an axis is empty.
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
    study = _study(experiment, space, cells)
    # First the method's own values, so that what is found is never worse than them.
    study.enqueue_trial({key: _at(method, key) for key in space}, skip_if_exists=True)
    finished = _completed(study)

    def objective(trial: optuna.Trial) -> float:
        values = {key: _suggest(trial, key, node) for key, node in space.items()}
        losses = [_loss(cell, with_values(method, values)) for cell in cells]
        _log.info("%s: %.4f with %s", method["name"], fmean(losses), values)
        return fmean(losses)

    study.optimize(objective, n_trials=max(0, int(options["trials"]) - finished))
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


def _study(experiment: Experiment, space: Mapping[str, Any], cells: Sequence[Cell]) -> optuna.Study:
    """Open the stored search of exactly this question."""
    name = experiment.config["method"]["name"]
    own = sources(experiment.config["method"])
    question = digest(
        {
            "method": settings(experiment.config["method"]),
            "space": space,
            "cells": [[cell.stored.key, cell.splits.hash] for cell in cells],
            **({"sources": own} if own else {}),
        }
    )
    path = experiment.runs / "tune" / experiment.data.name / f"{name}_{question[:8]}.log"
    make_folder(path.parent)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(path))),
        load_if_exists=True,
    )
    # With one seed for all, a search that goes on would draw what it has drawn before.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
    return study


def _completed(study: optuna.Study) -> int:
    """Return how many settings were judged; one that was interrupted is tried again."""
    return sum(trial.state == TrialState.COMPLETE for trial in study.trials)


def _suggest(trial: optuna.Trial, key: str, node: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if "choices" in node:
        return trial.suggest_categorical(key, node["choices"])
    if isinstance(node["low"], int) and isinstance(node["high"], int):
        return trial.suggest_int(key, node["low"], node["high"], log=node.get("log", False))
    return trial.suggest_float(
        key, node["low"], node["high"], log=node.get("log", False), step=node.get("step")
    )


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
    except DivergedError as error:  # as bad as forgetting nothing and losing everything
        _log.info("%s", error)
        return 2.0
    return found["forget_val"] + max(0.0, cell.retain_val - found["retain_val"])


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
    name = experiment.config["method"]["name"]
    best: dict[str, Any] = {}
    for key, value in {**_set_by_hand(experiment), **study.best_params}.items():
        node = best
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = float(f"{value:.4g}") if isinstance(value, float) else value
    best["tuned"] = {
        "command": f"orthounlearn tune {' '.join(command_line_overrides())}",
        "split": " + ".join(SPLITS),
        "trials": _completed(study),
        "objective": round(study.best_value, 4),
        "cells": [
            f"{cell.stored.folder.name}: {cell.experiment.data.class_names[c]}"
            for cell in cells
            for c in cell.splits.forget
        ],
    }
    path = tuned_dir / chosen_experiment() / f"{name}.yaml"
    header = "# @package method\n# Written by `orthounlearn tune`; see `tuned` for how.\n"
    write_text(path, header + yaml.safe_dump(best, sort_keys=False))
    return path


def _set_by_hand(experiment: Experiment) -> dict[str, Any]:
    """Return the options of the method that the command line set, by dotted key."""
    found: dict[str, Any] = {}
    for override in command_line_overrides():
        key = override.lstrip("+").partition("=")[0]
        if key.startswith("method."):
            found[key.removeprefix("method.")] = _at(experiment.config, key)
    return found
