"""A network and what it says: the audited one, the original before it, the retrained beside it."""

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orthounlearn.engine.audit.predict import cached_outputs, predict
from orthounlearn.engine.audit.relearn import cached_relearn, relearn
from orthounlearn.engine.checkpoints import load_network
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import Request
from orthounlearn.engine.store import StoredModel, ensure_trained, stored_model
from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.files import file_digest
from orthounlearn.metrics.findings import Findings
from orthounlearn.metrics.relearn import Accuracies
from orthounlearn.metrics.sample import Ranking, Sample
from orthounlearn.metrics.suite import Outputs

_log = logging.getLogger(__name__)

Figures = dict[str, float]
Curve = NDArray[np.floating]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Measured(Findings):
    """What is found of a network, and where it comes from.

    Attributes:
        seed: Of its training; None if it was not trained on the images alone.
        key: Of its training; likewise.
        seconds: Of its training; likewise.
        curves: Of its relearning, `LEARNING_RATE/{steps,forget,retain}` -> (S,).
        net: The network, where a figure is yet to be measured on it.
        itself: Whether it is the audited network, for want of another reference.
    """

    outputs: Outputs
    samples: dict[str, Sample]
    figures: Figures
    seed: int | None = None
    key: str | None = None
    seconds: float | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    net: nn.Module | None = None
    itself: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """Return what a certificate cites; undefined figures are left out."""
        finite = {key: value for key, value in self.figures.items() if isfinite(value)}
        return {"seed": self.seed, "key": self.key, "figures": finite, "itself": self.itself}


def measure(
    request: Request, outputs: Outputs, *, seed: int | None = None, key: str | None = None
) -> Measured:
    """Return every figure that needs a network's outputs alone."""
    found = Findings.of(
        outputs,
        forget=request.splits.forget,
        class_names=request.experiment.data.class_names,
        seed=request.splits.seed,
        block_probes=request.experiment.config["metrics"]["block_probes"],
    )
    return Measured(found.outputs, found.samples, found.figures, seed, key)


def original_of(request: Request, *, elsewhere: bool) -> Measured | None:
    """Return the network before the request; None if nobody said which that was."""
    experiment, config = request.experiment, request.experiment.config
    given = config["original"] if elsewhere else config["checkpoint"]
    if given:
        net = _loaded(experiment, given)
        outputs = predict(experiment, net, request.splits)
        reference = replace(measure(request, outputs), net=net)
        add_relearning(request, reference, net, original=reference)
        return reference
    stored = stored_model(experiment, seed=config["seed"])
    if elsewhere or not stored.is_trained:
        return None
    timed = stored.load(experiment) if config["metrics"]["latency"] else None
    reference = replace(_stored(request, stored, seed=config["seed"]), net=timed)
    add_relearning(request, reference, stored, original=reference)
    return reference


def retrained_of(request: Request, net: nn.Module, original: Measured | None) -> list[Measured]:
    """Return the retrained networks, of the request's own seed first; [] if there is none.

    Those of somebody else, if files are given, take the place of stored ones.

    A retrained network is compared with the others, if there are any: beside itself it looks better
    than any two trainings are, and can have no verdict.
    """
    experiment, settings = request.experiment, request.experiment.config["metrics"]
    weights = net.state_dict()
    found, others = [], []

    def add(reference: Measured, theirs: nn.Module | StoredModel, *, itself: bool) -> None:
        if original is not None:
            add_relearning(request, reference, theirs, original=original)
        found.append(reference)
        if not itself:
            others.append(reference)

    for path in experiment.config["retrained"]:
        theirs = _loaded(experiment, path)
        outputs = predict(experiment, theirs, request.splits)
        reference = measure(request, outputs, key=file_digest(Path(path)))
        add(reference, theirs, itself=_same(weights, theirs.state_dict()))
    for seed in request.reference_seeds:
        stored = ensure_trained(experiment, without=request.splits.forget, seed=seed)
        reference = _stored(request, stored, seed=seed)
        add(reference, stored, itself=_same(weights, _weights(experiment, stored)))
    if not found and settings["reference"] != "none":
        _log.info(
            "No retrained model is stored, so nothing is compared with it "
            "(metrics.reference=train trains one)."
        )
    return others or [replace(reference, itself=True) for reference in found]


def add_relearning(
    request: Request, network: Measured, net: nn.Module | StoredModel, *, original: Measured
) -> None:
    """Let a network learn the classes again, if relearning is asked for."""
    experiment, splits = request.experiment, request.splits
    settings, before = experiment.config["metrics"]["relearn"], _accuracies(original)
    if not settings:
        return
    if isinstance(net, StoredModel):
        found = cached_relearn(experiment, net, splits, settings, original=before)
    else:
        found = relearn(experiment, net, splits, settings, original=before)
    network.samples.update(found.samples)
    network.figures.update(found.values)
    network.curves.update(found.lines)


def mean_curves(networks: list[Measured]) -> dict[str, Curve]:
    """Return the mean curves of networks: `relearn/…` and `roc/…`; {} of none."""
    found: dict[str, list[Curve]] = defaultdict(list)
    for network in networks:
        for key, curve in network.curves.items():
            found[f"relearn/{key}"].append(curve)
        for key, sample in network.samples.items():
            if isinstance(sample, Ranking) and key.startswith("mia/"):
                found[f"roc/{key.rstrip('/')}"].append(sample.curve)
    return {key: np.mean(curves, axis=0) for key, curves in found.items()}


def _loaded(experiment: Experiment, path: str) -> nn.Module:
    """Return the network of a user's file."""
    net = experiment.new_net(0)
    load_network(net, Path(path))
    return net.to(experiment.device)


def _same(weights: Weights, others: Weights) -> bool:
    return all(
        name in others and torch.equal(value, others[name]) for name, value in weights.items()
    )


def _stored(request: Request, stored: StoredModel, *, seed: int) -> Measured:
    """Measure a stored network; once for each request, whatever the method."""
    experiment, settings = request.experiment, request.experiment.config["metrics"]
    of_what = (
        *(stored.key, request.splits.hash),
        *(settings["max_images"], tuple(settings["block_probes"])),
    )

    def measured() -> Findings:
        net = partial(stored.load, experiment)
        try:
            outputs = cached_outputs(experiment, net, request.splits, stored.folder)
        except DivergedError as error:  # of a reference, not of what is audited
            raise UsageError(f"{stored.folder}: {error}") from error
        return measure(request, outputs)

    found = _once(_MEASURED, of_what, measured)
    samples, figures = dict(found.samples), dict(found.figures)
    return Measured(found.outputs, samples, figures, seed, stored.key, stored.seconds)


def _weights(experiment: Experiment, stored: StoredModel) -> Weights:
    return _once(_WEIGHTS, stored.key, lambda: stored.load(experiment).state_dict())


_MEASURED: OrderedDict[Hashable, Findings] = OrderedDict()
_WEIGHTS: OrderedDict[Hashable, Weights] = OrderedDict()
"""Figures and weights of the stored networks that this process has met last: two thirds of an
audit, and the same for each cell of a table that differs in its method alone."""

_KEPT = 8  # an original and up to seven retrained networks

T = TypeVar("T")


def _once(kept: OrderedDict[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    """Return what is kept under the key, made if it is not; the oldest makes room."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)
    return kept[key]


def _accuracies(original: Measured) -> Accuracies:
    return Accuracies(original.figures["acc/forget_test"], original.figures["acc/retain_test"])
