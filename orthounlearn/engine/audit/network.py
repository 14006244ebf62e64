"""The audit of one network beside its references: every figure that a run reports.

How much is measured is the choice of `metrics` (fast, standard, full); what a figure means stands
in `metrics/catalog.py`.
"""

import logging
from dataclasses import dataclass
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
from orthounlearn.metrics.findings import compare
from orthounlearn.metrics.roc import CURVE_FPR
from orthounlearn.metrics.suite import Outputs
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
    metrics: Figures = compare(ours, original, retrained)
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


def _against_retraining(timed: Timed, retrained: list[Measured]) -> Figures:
    """Return how long the retrained networks took, and how many times as long as the request."""
    seconds = [one.seconds for one in retrained if one.seconds is not None]
    if not seconds:
        return {}
    mean = float(np.mean(seconds))
    speedup = mean / timed.unlearn_s if timed.unlearn_s else float("nan")
    return {"time/retrain_s": mean, "time/speedup": speedup}


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
