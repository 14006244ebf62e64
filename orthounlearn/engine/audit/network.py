"""The audit of one network beside its references: every figure that a run reports.

How much is measured is the choice of `metrics` (fast, standard, full); what a figure means stands
in `metrics/catalog.py`.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray
from torch import nn

from orthounlearn.data.splits import SPLIT_NAMES
from orthounlearn.engine.audit.latency import latency
from orthounlearn.engine.audit.predict import cached_outputs, predict
from orthounlearn.engine.audit.relearn import cached_relearn, relearn
from orthounlearn.engine.audit.shadows import Shadowed, shadow_audit
from orthounlearn.engine.checkpoints import load_network
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import Request
from orthounlearn.engine.store import StoredModel, ensure_trained, stored_model
from orthounlearn.engine.timing import Timed
from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.files import file_digest
from orthounlearn.metrics.relearn import Accuracies, ain, area_ratio
from orthounlearn.metrics.roc import CURVE_FPR
from orthounlearn.metrics.sample import Ranking, Sample, gap_intervals, values
from orthounlearn.metrics.suite import (
    Outputs,
    against_both,
    against_original,
    block_shots,
    composite_intervals,
    composites,
    distance_samples,
    floors,
    gaps,
    neighbour_samples,
    samples,
    similarities,
    worst_case_privacy,
)
from orthounlearn.metrics.verdict import TITLES, judge

_log = logging.getLogger(__name__)

Figures = dict[str, float]
Curve = NDArray[np.floating]


@dataclass(frozen=True)
class Measured:
    """A network, and what it says.

    Attributes:
        outputs: On the request's splits.
        samples: What each image adds to its figures.
        figures: Of the audit.
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


@dataclass(frozen=True)
class Audited:
    """What an audit found.

    Attributes:
        metrics: `phase/key` -> value; nan where it is undefined.
        outputs: Of the network.
        original: Of the network before the request; None if nobody said which that was.
        retrained: The references, the request's own seed first, without the network itself.
        curves: Of what is attacked step by step, and at each price, for an .npz file:
            `PHASE/relearn/LEARNING_RATE/{steps,forget,retain}` (S,), `PHASE/roc/ATTACK` (T,), and
            the latter's false-positive rates, `fpr` (T,). Means over the retrained networks.
    """

    metrics: Figures
    outputs: Outputs
    original: Outputs | None
    retrained: list[Measured]
    curves: dict[str, Curve]


@isolate_rng()  # whoever trains on afterwards draws what it would have drawn without an audit
def audit_network(request: Request, net: nn.Module, *, timed: Timed | None) -> Audited:
    """Measure a network, and what it is compared with.

    Network, modes and random numbers are left as they were.

    Args:
        request: Says which images, references and attacks.
        net: As it was written to disk.
        timed: What the request cost; None for a network that was unlearned elsewhere.

    Raises:
        UsageError: A setting of the audit is out of range.
    """
    experiment = request.experiment
    settings = experiment.config["metrics"]
    ours = _measured(request, predict(experiment, net, request.splits))
    outputs, figures = ours.outputs, ours.figures
    original = _original(request, elsewhere=timed is None)
    retrained = _retrained(request, net, original)
    if settings["relearn"] and original is not None:
        _relearn(request, ours, net, original=original)
    elif settings["relearn"]:
        _log.info("Relearning is measured against the network before the request: original=FILE.")
    metrics: Figures = {}
    if retrained:
        measured = [ours, *([original] if original else []), *retrained]
        _add_neighbours(measured, retrained)
        for network in measured:
            _add_distances(network, [one for one in retrained if one is not network])
    if original is not None:
        figures |= against_original(figures, original.figures)
        metrics |= {f"original/{key}": value for key, value in original.figures.items()}
    if retrained:
        theirs, spread = _mean(retrained), _spread(retrained)
        figures |= gaps(figures, theirs)
        figures |= gap_intervals(ours.samples, [reference.samples for reference in retrained])
        figures |= _relearning_compared(figures, theirs)
        among = floors([reference.figures for reference in retrained])
        metrics |= {f"retrained/{key}": value for key, value in theirs.items()}
        metrics |= {f"retrained_sd/{key}": value for key, value in spread.items()}
        metrics |= {f"retrained_floor/{key}": value for key, value in among.items()}
        if original is not None:
            figures |= against_both(figures, original.figures, theirs)
        figures |= composite_intervals(
            ours.samples,
            original.samples if original else None,
            [reference.samples for reference in retrained],
        )
    figures |= _similarities(outputs, original, retrained) | block_shots(outputs)
    if timed is not None:
        figures |= {"time/prep_s": timed.prepare_s, "time/unlearn_s": timed.unlearn_s}
        figures |= _against_retraining(timed, retrained)
        figures["sequence/step"] = float(len(request.steps))
    if settings["latency"]:
        figures |= latency(experiment, net, original.net if original else None)
    phases = {"unlearned": [ours], "original": [original] if original else [],
              "retrained": retrained}  # fmt: skip
    curves = {
        f"{phase}/{key}": curve
        for phase, networks in phases.items()
        for key, curve in _curves(networks).items()
    }
    if settings["shadows"] and timed is not None:
        shadowed = shadow_audit(experiment, request.splits)
        figures |= _shadows(shadowed, metrics)
        curves |= {
            f"{phase}/roc/{key}": curve
            for phase, of in shadowed.curves.items()
            for key, curve in of.items()
        }
    elif settings["shadows"]:
        _log.info(
            "No shadow attacks (metrics.shadows=%d): the network was unlearned elsewhere, and the "
            "shadows would have to be unlearned in the same way.",
            settings["shadows"],
        )
    figures |= _verdict(request, figures, original, retrained)
    metrics |= {f"unlearned/{key}": value for key, value in figures.items()}
    before = original.outputs if original else None
    return Audited(metrics, outputs, before, retrained, curves | {"fpr": CURVE_FPR})


def _measured(
    request: Request, outputs: Outputs, *, seed: int | None = None, key: str | None = None
) -> Measured:
    found = samples(
        outputs,
        forget=request.splits.forget,
        class_names=request.experiment.data.class_names,
        seed=request.splits.seed,
        block_probes=request.experiment.config["metrics"]["block_probes"],
    )
    return Measured(outputs, found, values(found), seed, key)


def _add_neighbours(networks: list[Measured], retrained: list[Measured]) -> None:
    """Attack each network by the class that the retrained ones send the forgotten images to."""
    attacks = neighbour_samples(
        [network.outputs for network in networks], [reference.outputs for reference in retrained]
    )
    for network, attack in zip(networks, attacks, strict=True):
        network.samples.update(attack)
        network.figures.update(values(attack))


def _add_distances(network: Measured, others: list[Measured]) -> None:
    """Measure how far a network is from retrained ones; a retrained one from those beside it."""
    if not others:
        return
    said = [other.outputs for other in others]
    distances = distance_samples(network.outputs, said)
    network.samples.update(distances)
    network.figures.update(values(distances))
    network.figures.update(worst_case_privacy(network.outputs, said))
    network.figures.update(composites(network.figures, _mean(others)))


def _accuracies(original: Measured) -> Accuracies:
    return Accuracies(original.figures["acc/forget_test"], original.figures["acc/retain_test"])


def _original(request: Request, *, elsewhere: bool) -> Measured | None:
    """Return the network before the request; None if nobody said which that was."""
    experiment, config = request.experiment, request.experiment.config
    given = config["original"] if elsewhere else config["checkpoint"]
    if given:
        net = _loaded(experiment, given)
        outputs = predict(experiment, net, request.splits)
        reference = replace(_measured(request, outputs), net=net)
        _relearn(request, reference, net, original=reference)
        return reference
    stored = stored_model(experiment, seed=config["seed"])
    if elsewhere or not stored.is_trained:
        return None
    net = stored.load(experiment)
    reference = replace(_stored(request, stored, net, seed=config["seed"]), net=net)
    _relearn(request, reference, stored, original=reference)
    return reference


def _retrained(request: Request, net: nn.Module, original: Measured | None) -> list[Measured]:
    """Return the retrained networks, of the request's own seed first; [] if there is none.

    Those of somebody else, if files are given, take the place of stored ones.

    A retrained network is compared with the others, if there are any: beside itself it looks better
    than any two trainings are, and can have no verdict.
    """
    experiment, settings = request.experiment, request.experiment.config["metrics"]
    found, others = [], []

    def add(theirs: nn.Module, reference: Measured, stored: StoredModel | None) -> None:
        if original is not None:
            _relearn(request, reference, stored or theirs, original=original)
        found.append(reference)
        if not _same_weights(net, theirs):
            others.append(reference)

    for path in experiment.config["retrained"]:
        theirs = _loaded(experiment, path)
        outputs = predict(experiment, theirs, request.splits)
        add(theirs, _measured(request, outputs, key=file_digest(Path(path))), None)
    for seed in request.reference_seeds:
        stored = ensure_trained(experiment, without=request.splits.forget, seed=seed)
        theirs = stored.load(experiment)
        add(theirs, _stored(request, stored, theirs, seed=seed), stored)
    if not found and settings["reference"] != "none":
        _log.info(
            "No retrained model is stored, so nothing is compared with it "
            "(metrics.reference=train trains one)."
        )
    return others or [replace(reference, itself=True) for reference in found]


def _loaded(experiment: Experiment, path: str) -> nn.Module:
    """Return the network of a user's file."""
    net = experiment.new_net(0)
    load_network(net, Path(path))
    return net.to(experiment.device)


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(
        name in theirs and torch.equal(value, theirs[name])
        for name, value in one.state_dict().items()
    )


def _stored(request: Request, stored: StoredModel, net: nn.Module, *, seed: int) -> Measured:
    """Measure a stored network; once for each request, whatever the method."""
    try:
        outputs = cached_outputs(request.experiment, lambda: net, request.splits, stored.folder)
    except DivergedError as error:  # of a reference, not of what is audited
        raise UsageError(f"{stored.folder}: {error}") from error
    settings = request.experiment.config["metrics"]
    of_what = (
        *(stored.key, request.splits.hash),
        *(settings["max_images"], tuple(settings["block_probes"])),
    )
    if of_what not in _MEASURED:
        measured = _measured(request, outputs)
        _MEASURED[of_what] = measured.samples, measured.figures
    drawn, figures = _MEASURED[of_what]
    return Measured(outputs, dict(drawn), dict(figures), seed, stored.key, stored.seconds)


_MEASURED: dict[tuple[Any, ...], tuple[dict[str, Sample], Figures]] = {}
"""Figures of stored networks in this process: two thirds of an audit, and the same for each cell
of a table that differs in its method alone."""


def _relearn(
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
    network.figures.update(found.values)
    network.curves.update(found.arrays)


def _similarities(
    outputs: Outputs, original: Measured | None, retrained: list[Measured]
) -> Figures:
    """Return the similarity to the original, and the mean over that to the retrained networks."""
    found: Figures = {}
    for name, references in (
        ("original", [original] if original else []),
        ("retrained", retrained),
    ):
        each = [similarities(outputs, reference.outputs) for reference in references]
        for key in each[0] if each else ():
            found[f"cka/{name}/{key}"] = float(np.mean([one[key] for one in each]))
    return found


def _mean(references: list[Measured]) -> Figures:
    """Return the mean of each figure that all references have."""
    return {key: float(np.mean(values)) for key, values in _gathered(references).items()}


def _spread(references: list[Measured]) -> Figures:
    """Return the standard deviation of each figure over the references; {} for one."""
    if len(references) < 2:
        return {}
    return {key: float(np.std(values, ddof=1)) for key, values in _gathered(references).items()}


def _gathered(references: list[Measured]) -> dict[str, list[float]]:
    return {
        key: [reference.figures[key] for reference in references]
        for key in references[0].figures
        if all(key in reference.figures for reference in references)
    }


def _against_retraining(timed: Timed, retrained: list[Measured]) -> Figures:
    """Return how long the retrained networks took, and how many times as long as the request."""
    seconds = [one.seconds for one in retrained if one.seconds is not None]
    if not seconds:
        return {}
    mean = float(np.mean(seconds))
    speedup = mean / timed.unlearn_s if timed.unlearn_s else float("nan")
    return {"time/retrain_s": mean, "time/speedup": speedup}


def _relearning_compared(figures: Figures, retrained: Figures) -> Figures:
    """Return AIN and the ratio of areas for each learning rate."""
    found: Figures = {}
    for key in figures:
        if key.startswith("relearn/") and key.endswith("/steps") and key in retrained:
            base = key.removesuffix("/steps")
            steps = [_uncensored(values[key]) for values in (figures, retrained)]
            index = ain(*steps)
            found[f"{base}/ain"] = float("nan") if index is None else index
            areas = [values[f"{base}/area"] for values in (figures, retrained)]
            found[f"{base}/area_ratio"] = area_ratio(*areas)
    return found


def _uncensored(steps: float) -> int | None:
    return int(steps) if isfinite(steps) else None


def _curves(networks: list[Measured]) -> dict[str, Curve]:
    """Return the mean curves of networks: `relearn/…` and `roc/…`; {} of none."""
    found: dict[str, list[Curve]] = defaultdict(list)
    for network in networks:
        for key, curve in network.curves.items():
            found[f"relearn/{key}"].append(curve)
        for key, sample in network.samples.items():
            if isinstance(sample, Ranking) and key.startswith("mia/"):
                found[f"roc/{key.rstrip('/')}"].append(sample.curve)
    return {key: np.mean(curves, axis=0) for key, curves in found.items()}


def _shadows(shadowed: Shadowed, metrics: Figures) -> Figures:
    """Return the shadow attacks' figures of the method; `metrics` gets those of the controls."""
    found = shadowed.figures
    for phase in found.keys() - {"unlearned"}:
        metrics.update({f"{phase}/{key}": value for key, value in found[phase].items()})
    unlearned, retrained = found["unlearned"], found.get("retrained", {})
    gaps = {f"{key}_gap": unlearned[key] - value for key, value in retrained.items()}
    return unlearned | gaps


def _verdict(
    request: Request, figures: Figures, original: Measured | None, retrained: list[Measured]
) -> Figures:
    """Return 1 for the headline of the verdict and 0 for the others, so that means are shares."""
    verdict = judge(
        figures,
        original.figures if original else None,
        [reference.figures for reference in retrained],
        images={name: len(request.splits[name]) for name in SPLIT_NAMES},
        itself=any(reference.itself for reference in retrained),
    )
    return {f"verdict/{headline}": float(headline == verdict.headline) for headline in TITLES}
