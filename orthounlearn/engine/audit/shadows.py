"""Shadow attacks on a request: a pool of networks on known halves of the data, each unlearned too.

The pool is trained once for data, model and recipe; its shadows halve all classes at once, so one
pool serves every request. A method pays for unlearning each shadow, with its own settings. Every
shadow is the target once, attacked with the other pairs: what is audited is the method on networks
of this recipe with half of the images, not the one checkpoint of the request.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from lightning import seed_everything
from torch import nn

from orthounlearn.config.build import build
from orthounlearn.data.splits import Splits
from orthounlearn.engine.audit.predict import audited, cached_outputs, predict
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import StoredModel, ensure_trained, stored_model
from orthounlearn.engine.timing import run_once
from orthounlearn.errors import UsageError
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.metrics import lira, rmia, shadow
from orthounlearn.metrics.scores import Floats, Ints, confidence, margin
from orthounlearn.metrics.shadow import Bools
from orthounlearn.metrics.suite import Outputs

_SPLITS = ("forget_train", "forget_probe", "retain_train")

_FEWEST = 6
"""A target's own pair is left out, and LiRA's deviation needs two shadows of each kind."""


@dataclass(frozen=True)
class Family:
    """What K networks, one per shadow, say of the audited images.

    Attributes:
        forget_KN: Margins of the forgotten classes' training images.
        retain_KM: Margins of the retained ones.
        confidence_KN: log p_y of the forgotten classes' training images.
        population_KZ: log p_y of images of the forgotten classes that nobody was trained on.
    """

    forget_KN: Floats
    retain_KM: Floats
    confidence_KN: Floats
    population_KZ: Floats

    @classmethod
    def of(cls, outputs: list[Outputs]) -> "Family":
        """Return the family of the networks' outputs on `_SPLITS`."""

        def rows(score: Callable[..., Floats], split: str) -> Floats:
            return np.stack([score(*one[split]) for one in outputs])

        return cls(
            forget_KN=rows(margin, "forget_train"),
            retain_KM=rows(margin, "retain_train"),
            confidence_KN=rows(confidence, "forget_train"),
            population_KZ=rows(confidence, "forget_probe"),
        )


def shadow_audit(experiment: Experiment, splits: Splits) -> dict[str, dict[str, float]]:
    """Attack a request's method with shadows, and beside it no unlearning and retraining.

    Args:
        experiment: With the method, and `metrics.shadows` K of at least 6, even.
        splits: Of the request.

    Returns:
        Phase -> figures: "original" for shadows as they were trained (the positive control),
        "unlearned", "retrained" (the negative control; absent unless all such networks are stored
        or metrics.reference=train).

    Raises:
        UsageError: K is odd or below 6, or the method diverged.
    """
    count = experiment.config["metrics"]["shadows"]
    if count < _FEWEST or count % 2:
        raise UsageError(
            f"Expected metrics.shadows to be an even number of at least {_FEWEST}, or 0 for no "
            f"shadows, but got {count}."
        )
    member_KT = experiment.shadow_members(count)
    members = {name: member_KT[:, audited(experiment, splits, name)] for name in _SPLITS[::2]}
    trained = [ensure_trained(experiment, seed=k, shadow=k) for k in range(count)]
    families = {
        "original": Family.of([_cached(experiment, splits, stored) for stored in trained]),
        "unlearned": Family.of(
            [_unlearned(experiment, splits, stored, k) for k, stored in enumerate(trained)]
        ),
    }
    retrained = _retrained(experiment, splits, count)
    if retrained:
        families["retrained"] = Family.of(retrained)
    figures = {phase: _attack(family, members) for phase, family in families.items()}
    if retrained:
        figures["unlearned"]["lira/efficacy"] = _efficacy(
            families["unlearned"], families["retrained"], members["forget_train"]
        )
    return figures


def _cached(experiment: Experiment, splits: Splits, stored: StoredModel) -> Outputs:
    net = stored.load(experiment)
    return cached_outputs(experiment, net, splits, stored.folder, _SPLITS)


def _unlearned(experiment: Experiment, splits: Splits, stored: StoredModel, k: int) -> Outputs:
    """Let a shadow forget its own half of the classes, and ask it about all of the images."""
    method = build(experiment.config["method"], UnlearningMethod)
    seed_everything(k, workers=True, verbose=False)
    context = RequestContext(
        experiment,
        method,
        splits=experiment.splits(splits.forget, shadow=k),
        seed=k,
        kept_folder=stored.folder,
        shadow=k,
    )
    net: nn.Module = run_once(method, stored.load(experiment), context)
    return predict(experiment, net, splits, _SPLITS)


def _retrained(experiment: Experiment, splits: Splits, count: int) -> list[Outputs]:
    """Return the outputs of shadows retrained without the classes; [] if they are not there."""
    found = []
    for k in range(count):
        if experiment.config["metrics"]["reference"] == "train":
            ensure_trained(experiment, without=splits.forget, seed=k, shadow=k)
        stored = stored_model(experiment, without=splits.forget, seed=k, shadow=k)
        if not stored.is_trained:
            return []
        found.append(_cached(experiment, splits, stored))
    return found


def _attack(family: Family, members: dict[str, Bools]) -> dict[str, float]:
    """Return the figures of LiRA and RMIA over leave-one-out targets."""
    forget_KN, retain_KM = members["forget_train"], members["retain_train"]

    def lira_on(phi_KN: Floats, member_KN: Bools) -> dict[str, float]:
        def attack(rows: Ints, target: int) -> Floats:
            return lira.pooled(phi_KN[target], *lira.fit_both(phi_KN[rows], member_KN[rows]))

        return shadow.over_targets(shadow.leave_one_out(member_KN, attack), member_KN)

    def rmia_attack(rows: Ints, target: int) -> Floats:
        own, others = family.confidence_KN, family.population_KZ
        return rmia.score(
            own[target],
            rmia.online_reference(own[rows]),
            others[target],
            rmia.online_reference(others[rows]),
        )

    found = {f"lira/{key}": value for key, value in lira_on(family.forget_KN, forget_KN).items()}
    by_rmia = shadow.over_targets(shadow.leave_one_out(forget_KN, rmia_attack), forget_KN)
    found |= {f"rmia/{key}": by_rmia[key] for key in ("auc", "auc_sd")}
    retained = lira_on(family.retain_KM, retain_KM)
    found |= {f"lira/retained_{key}": retained[key] for key in ("auc", "worst5")}
    return found


def _efficacy(unlearned: Family, retrained: Family, member_KN: Bools) -> float:
    """Return the mean log-likelihood ratio of members, "unlearned" against "never trained on"."""
    phi_KN = unlearned.forget_KN

    def attack(rows: Ints, target: int) -> Floats:
        never_KN = retrained.forget_KN
        return lira.efficacy(phi_KN[target], phi_KN[rows], member_KN[rows], never_KN[rows])

    ratios_KN = shadow.leave_one_out(member_KN, attack)
    return float(np.nanmean(ratios_KN[member_KN]))
