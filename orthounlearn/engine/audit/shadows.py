"""Shadow attacks on a request: a pool of networks on known halves of the data, each unlearned too.

The pool is trained once for data, model and recipe; its shadows halve all classes at once, so one
pool serves every request. A method pays for unlearning each shadow, with its own settings. Every
shadow is the target once, attacked with the other pairs: what is audited is the method on networks
of this recipe with half of the images, not the one checkpoint of the request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from lightning import seed_everything
from torch import nn

from orthounlearn.config.build import build, settings
from orthounlearn.data.splits import Splits
from orthounlearn.engine.audit.predict import audited, cached_outputs
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.own_code import sources
from orthounlearn.engine.request import AUDIT_VERSION
from orthounlearn.engine.store import StoredModel, ensure_trained, stored_model
from orthounlearn.engine.timing import run_once
from orthounlearn.errors import UsageError
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.metrics import lira, rmia, roc, shadow
from orthounlearn.metrics.sample import Part, Ranking, gap_intervals
from orthounlearn.metrics.scores import Floats, Ints, confidence, margin, rest
from orthounlearn.metrics.shadow import Bools
from orthounlearn.metrics.suite import Outputs

_SPLITS = ("forget_train", "forget_probe", "retain_train")


@dataclass(frozen=True)
class Shadowed:
    """What the attacks found, by phase.

    "original" are the shadows as they were trained (the positive control), "retrained" those that
    never saw the classes (the negative control; absent where such networks are not stored).

    Attributes:
        figures: Phase -> key -> value.
        curves: Phase -> key -> true-positive rates at `roc.CURVE_FPR`, (T,).
        arrays: What each target's attack says of each image, for an .npz file:
            `PHASE/ATTACK` (K, N) and `members/SPLIT` (K, N), whether the target was trained on it.
    """

    figures: dict[str, dict[str, float]]
    curves: dict[str, dict[str, Floats]]
    arrays: dict[str, Any]


@dataclass(frozen=True)
class Family:
    """What K networks, one per shadow, say of the audited images.

    Attributes:
        labels_N: Of the forgotten classes' training images.
        forget_KN: Their margins.
        rest_KN: Their margins where the forgotten classes are left out.
        retain_KM: Margins of the retained ones.
        confidence_KN: log p_y of the forgotten classes' training images.
        population_labels_Z: Of images of the forgotten classes that nobody was trained on.
        population_KZ: Their log p_y.
    """

    labels_N: Ints
    forget_KN: Floats
    rest_KN: Floats
    retain_KM: Floats
    confidence_KN: Floats
    population_labels_Z: Ints
    population_KZ: Floats

    @classmethod
    def of(cls, outputs: list[Outputs]) -> "Family":
        """Return the family of the networks' outputs on `_SPLITS`."""

        def rows(score: Callable[..., Floats], split: str) -> Floats:
            return np.stack([score(*one[split]) for one in outputs])

        labels_N = outputs[0].labels["forget_train"]
        forget = [int(label) for label in np.unique(labels_N)]
        return cls(
            labels_N=labels_N,
            forget_KN=rows(margin, "forget_train"),
            rest_KN=rows(lambda logits, _: rest(logits, forget), "forget_train"),
            retain_KM=rows(margin, "retain_train"),
            confidence_KN=rows(confidence, "forget_train"),
            population_labels_Z=outputs[0].labels["forget_probe"],
            population_KZ=rows(confidence, "forget_probe"),
        )


def shadow_audit(experiment: Experiment, splits: Splits) -> Shadowed:
    """Attack a request's method with shadows, and beside it no unlearning and retraining.

    Args:
        experiment: With the method, and a K that `shadow.check_count` accepts, `metrics.shadows`.
        splits: Of the request.

    Returns:
        Of the phases "original", "unlearned", and "retrained" (unless metrics.reference=train,
        only where all such networks are stored).

    Raises:
        UsageError: A stored shadow was trained on other images than the design says, or the method
            diverged.
    """
    count = experiment.config["metrics"]["shadows"]
    member_KT = experiment.shadow_members(count)
    members = {name: member_KT[:, audited(experiment, splits, name)] for name in _SPLITS[::2]}
    trained = [ensure_trained(experiment, seed=k, shadow=k) for k in range(count)]
    for k, stored in enumerate(trained):
        _check_design(experiment, stored, k)
    families = {
        "original": Family.of([_cached(experiment, splits, stored) for stored in trained]),
        "unlearned": Family.of(
            [_unlearned(experiment, splits, stored, k) for k, stored in enumerate(trained)]
        ),
    }
    retrained = _retrained(experiment, splits, count)
    if retrained:
        families["retrained"] = Family.of(retrained)
    attacks = {phase: attack(family, members) for phase, family in families.items()}
    samples = {
        phase: {name: scores.sample for name, scores in attacked.items()}
        for phase, attacked in attacks.items()
    }
    figures = {phase: attack_figures(attacked) for phase, attacked in attacks.items()}
    if retrained:
        figures["unlearned"] |= _efficacy(
            families["unlearned"], families["retrained"], members["forget_train"]
        )
        figures["unlearned"] |= gap_intervals(samples["unlearned"], [samples["retrained"]])
    inside, outside = shadow.fewest(member_KT)
    figures["unlearned"] |= {
        "shadows/count": float(count),
        "shadows/fewest_in": float(inside),
        "shadows/fewest_out": float(outside),
    }
    curves = {
        phase: {name.rstrip("/_"): sample.curve for name, sample in of.items()}
        for phase, of in samples.items()
    }
    arrays: dict[str, Any] = {f"members/{split}": of_KN for split, of_KN in members.items()}
    for phase, attacked in attacks.items():
        for name, scores in attacked.items():
            arrays[f"{phase}/{name.rstrip('/_')}"] = scores.scores_KN.astype(np.float32)
    return Shadowed(figures, curves, arrays)


def _check_design(
    experiment: Experiment, stored: StoredModel, k: int, forget: Sequence[int] = ()
) -> None:
    """Refuse a shadow that was trained on other images than the attack takes for its own.

    Raises:
        UsageError: It was.
    """
    trained_on = Splits.load(stored.folder / "splits.npz").hash
    expected = experiment.splits(forget, shadow=k).hash
    if trained_on != expected:
        raise UsageError(
            f"Expected shadow {k} in {stored.folder} to be trained on its half of the images "
            f"(splits {expected[:8]}), but it was trained on others (splits {trained_on[:8]}): the "
            "attack would take members for strangers. Delete the folder, and it is trained again."
        )


def _cached(experiment: Experiment, splits: Splits, stored: StoredModel) -> Outputs:
    return cached_outputs(
        experiment, partial(stored.load, experiment), splits, stored.folder, _SPLITS
    )


def _unlearned(experiment: Experiment, splits: Splits, stored: StoredModel, k: int) -> Outputs:
    """Let a shadow forget its own half of the classes, and ask it about all of the images.

    What it says is kept: the pool has seeds of its own, and serves the requests of every seed.
    """
    node = experiment.config["method"]

    def forget() -> nn.Module:
        method = build(node, UnlearningMethod)
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
        return net

    by = [AUDIT_VERSION, settings(node), sources([node])]
    return cached_outputs(experiment, forget, splits, stored.folder, _SPLITS, after=by)


def _retrained(experiment: Experiment, splits: Splits, count: int) -> list[Outputs]:
    """Return the outputs of shadows retrained without the classes; [] if they are not there."""
    found = []
    for k in range(count):
        if experiment.config["metrics"]["reference"] == "train":
            ensure_trained(experiment, without=splits.forget, seed=k, shadow=k)
        stored = stored_model(experiment, without=splits.forget, seed=k, shadow=k)
        if not stored.is_trained:
            return []
        _check_design(experiment, stored, k, splits.forget)
        found.append(_cached(experiment, splits, stored))
    return found


@dataclass(frozen=True)
class Scores:
    """Scores of one attack on every target.

    Attributes:
        scores_KN: From `shadow.leave_one_out`.
        member_KN: Which images each target was trained on.
        labels_N: Classes, each of which is attacked on its own; None: all images are one group.
        split: Of the images.
    """

    scores_KN: Floats
    member_KN: Bools
    labels_N: Ints | None
    split: str

    @property
    def sample(self) -> Ranking:
        """The rates of `shadow.summarise`, image by image."""
        count = self.scores_KN.shape[1]
        labels_N = np.zeros(count, int) if self.labels_N is None else self.labels_N

        def part(chosen_N: Bools, scores_N: Floats) -> Part:
            rows = np.flatnonzero(chosen_N & ~np.isnan(scores_N))
            return Part(self.split, scores_N[rows], rows, count)

        pairs = [
            (part(own_N & member_N, scores_N), part(own_N & ~member_N, scores_N))
            for scores_N, member_N in zip(self.scores_KN, self.member_KN, strict=True)
            for own_N in (labels_N == label for label in np.unique(labels_N))
        ]
        return Ranking(tuple(pairs), rates=shadow.RATES)


def attack(family: Family, members: dict[str, Bools]) -> dict[str, Scores]:
    """Attack every network of a family with the other pairs: by LiRA, and by RMIA.

    Members and non-members are of the same class, as in the population attacks. Retained images are
    one group: of a hundred classes, the sample has too few images each.

    Args:
        family: What the shadows say.
        members: Which images of "forget_train" and of "retain_train" each was trained on.

    Returns:
        Beginning of the figures' keys -> scores.
    """
    forget_KN, retain_KN = members["forget_train"], members["retain_train"]

    def by_lira(phi_KN: Floats, member_KN: Bools) -> Floats:
        def one(rows: Ints, target: int) -> Floats:
            inside, outside = lira.fit_both(phi_KN[rows], member_KN[rows])
            fewest = min(inside.count_N.min(), outside.count_N.min())
            score = lira.online if fewest >= lira.OWN_DEVIATION_FROM else lira.pooled
            return score(phi_KN[target], inside, outside)

        return shadow.leave_one_out(member_KN, one)

    forgotten = {
        "lira/": by_lira(family.forget_KN, forget_KN),
        "lira/rest_": by_lira(family.rest_KN, forget_KN),
        "rmia/": shadow.leave_one_out(forget_KN, _rmia(family)),
    }
    found = {
        name: Scores(scores_KN, forget_KN, family.labels_N, "forget_train")
        for name, scores_KN in forgotten.items()
    }
    retained_KN = by_lira(family.retain_KM, retain_KN)
    return found | {"lira/retained_": Scores(retained_KN, retain_KN, None, "retain_train")}


def attack_figures(attacks: Mapping[str, Scores]) -> dict[str, float]:
    """Return the figures of attacks over their targets."""
    found = {
        f"{name}{key}": value
        for name, of in attacks.items()
        for key, value in shadow.over_targets(of.scores_KN, of.member_KN, of.labels_N).items()
    }
    del found["rmia/worst5"]  # scores of RMIA are shares of the population, at most 1
    return found


def _rmia(family: Family) -> shadow.Attack:
    """Return RMIA with a population of the image's own class."""
    classes = [
        (family.labels_N == label, family.population_labels_Z == label)
        for label in np.unique(family.labels_N)
    ]

    def attack(rows: Ints, target: int) -> Floats:
        own, others = family.confidence_KN, family.population_KZ
        scores_N = np.empty(own.shape[1])
        for of_N, of_Z in classes:
            scores_N[of_N] = rmia.score(
                own[target, of_N],
                rmia.online_reference(own[rows][:, of_N]),
                others[target, of_Z],
                rmia.online_reference(others[rows][:, of_Z]),
            )
        return scores_N

    return attack


def _efficacy(unlearned: Family, retrained: Family, member_KN: Bools) -> dict[str, float]:
    """Return how well "trained on, then unlearned" is told from "never trained on", by members.

    The AUC is that of the same ratio on the same images, under the unlearned and under the
    retrained target. Asked of margins, and of those where the forgotten classes are left out.
    """
    return _efficacy_by(unlearned.forget_KN, retrained.forget_KN, member_KN, "ulira/") | (
        _efficacy_by(unlearned.rest_KN, retrained.rest_KN, member_KN, "ulira/rest_")
    )


def _efficacy_by(
    phi_KN: Floats, never_KN: Floats, member_KN: Bools, beginning: str
) -> dict[str, float]:
    def ratios(target_KN: Floats) -> Floats:
        def attack(rows: Ints, target: int) -> Floats:
            return lira.efficacy(target_KN[target], phi_KN[rows], member_KN[rows], never_KN[rows])

        return shadow.leave_one_out(member_KN, attack)

    ours_KN, theirs_KN = ratios(phi_KN), ratios(never_KN)
    areas = [
        roc.auc(ours_N[member_N], theirs_N[member_N])
        for ours_N, theirs_N, member_N in zip(ours_KN, theirs_KN, member_KN, strict=True)
    ]
    return {
        f"{beginning}efficacy_llr": float(np.nanmean(ours_KN[member_KN])),
        f"{beginning}efficacy_auc": float(np.mean(areas)),
    }
