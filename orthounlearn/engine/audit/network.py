"""The audit of one network beside its references: every figure that a run reports.

How much is measured is the choice of `metrics` (fast, standard, full); what a figure means stands
in `metrics/catalog.py`.
"""

import logging
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from orthounlearn.data.splits import SPLIT_NAMES
from orthounlearn.engine.audit.latency import latency
from orthounlearn.engine.audit.measured import (
    Curve,
    Figures,
    Measured,
    add_relearning,
    mean_curves,
    measure,
    original_of,
    retrained_of,
)
from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.audit.shadows import Shadowed, shadow_audit
from orthounlearn.engine.request import Request
from orthounlearn.engine.timing import Timed
from orthounlearn.metrics.relearn import ain, area_ratio
from orthounlearn.metrics.roc import CURVE_FPR
from orthounlearn.metrics.sample import gap_intervals, values
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
    similarities,
    worst_case_privacy,
)
from orthounlearn.metrics.verdict import TITLES, judge

_log = logging.getLogger(__name__)


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
        shadows: `Shadowed.arrays`; {} without shadows.
    """

    metrics: Figures
    outputs: Outputs
    original: Outputs | None
    retrained: list[Measured]
    curves: dict[str, Curve]
    shadows: dict[str, Any]


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
    ours = measure(request, predict(experiment, net, request.splits))
    outputs, figures = ours.outputs, ours.figures
    original = original_of(request, elsewhere=timed is None)
    retrained = retrained_of(request, net, original)
    if settings["relearn"] and original is not None:
        add_relearning(request, ours, net, original=original)
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
        for key, curve in mean_curves(networks).items()
    }
    shadows: dict[str, Any] = {}
    if settings["shadows"] and timed is not None:
        shadowed = shadow_audit(experiment, request.splits)
        figures |= _shadows(shadowed, metrics)
        shadows = shadowed.arrays
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
    curves["fpr"] = CURVE_FPR
    return Audited(metrics, outputs, before, retrained, curves, shadows)


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
