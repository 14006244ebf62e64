"""The audit of one network beside others: what they differ by, and which images say so."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from orthounlearn.metrics import divergence, neighbour, privacy, probe, similarity
from orthounlearn.metrics.check import DEPTH
from orthounlearn.metrics.sample import (
    ENDS,
    Mean,
    Part,
    Ranking,
    Routing,
    Sample,
    Samples,
    interval,
    on_draws,
)
from orthounlearn.metrics.scores import Floats
from orthounlearn.metrics.suite import CLASSIFIER, PROBES, Outputs

_INDICES = {f"probe/{name}": f"probe/{name}_index" for name in PROBES} | {DEPTH: "depth/index"}
"""Recall -> its place between the retrained and the original network."""

_TOW = ("acc/forget_train", "acc/retain_train", "acc/retain_test")
# Forget accuracy on the training images, as in RUM (Zhao et al., arXiv 2406.01257).

_AVG_GAP = (*_TOW, "compat/salun_confidence")
# The four of SalUn's table, in the same unit: UA, RA, TA, MIA-efficacy.


def against_both(
    figures: Mapping[str, float], original: Mapping[str, float], retrained: Mapping[str, float]
) -> dict[str, float]:
    """Return where the network stands on the way from the original to the retrained one.

    Over the depth it is one number, Σ_b (u_b − r_b) / Σ_b (o_b − r_b) over the blocks b: a mean of
    the blocks' own indices would be ruled by early blocks, where original and retrained network
    hardly differ and an index is noise.
    """
    return {
        index: float(probe.probe_index(figures[key], original[key], retrained[key]))
        for key, index in _INDICES.items()
        if all(key in one for one in (figures, original, retrained))
    }


def against_original(
    figures: Mapping[str, float], original: Mapping[str, float]
) -> dict[str, float]:
    """Return what the request cost: retained accuracy as a share, and the worst class.

    Args:
        figures: Of the unlearned network, from `audit`.
        original: Of the original network.
    """
    prefix = "acc/retain_test_per_class/"
    drops = [original[key] - figures[key] for key in figures if key.startswith(prefix)]
    before = original["acc/retain_test"]
    return {
        "retain_ratio": figures["acc/retain_test"] / before if before else float("nan"),
        "drift/retain_test": figures["acc/retain_test"] - before,
        "acc/nearest_class_drop": float(np.nanmax(drops)),
    }


def similarities(outputs: Outputs, reference: Outputs) -> dict[str, float]:
    """Return how alike the blocks of two networks represent images: forgotten, and retained ones.

    Both are held out: the unlearned network has been trained on neither.

    Args:
        outputs: Of one network.
        reference: Of another, on the same splits.

    Returns:
        `forget/BLOCK` and `retain/BLOCK` -> CKA.
    """
    found: dict[str, float] = {}
    for kind, split in (("forget", "forget_test"), ("retain", "retain_val")):
        pair = [
            {k: v for k, v in one.features.get(split, {}).items() if k != CLASSIFIER}
            for one in (outputs, reference)
        ]
        layers = similarity.layer_similarity(*pair)
        found |= {f"{kind}/{block}": value for block, value in layers.items()}
    return found


def gaps(figures: Mapping[str, float], retrained: Mapping[str, float]) -> dict[str, float]:
    """Return `KEY_gap`, the difference to retraining, of every figure that both have.

    Args:
        figures: Of the unlearned network.
        retrained: The means of those of the retrained networks.
    """
    return {
        f"{key}_gap": value - retrained[key] for key, value in figures.items() if key in retrained
    }


def floors(retrained: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return what retrained networks differ by: the mean of |r_i − r_j| over pairs, by key.

    Args:
        retrained: The figures of each; nothing is returned for one.
    """
    pairs = list(combinations(retrained, 2))
    return {
        key: float(np.mean([abs(one[key] - other[key]) for one, other in pairs]))
        for key in (retrained[0] if pairs else ())
        if all(key in one for one in retrained)
    }


def composites(figures: Mapping[str, float], retrained: Mapping[str, float]) -> dict[str, float]:
    """Return the figures that are made of several gaps: ToW, and the average gap.

    Args:
        figures: Of one network.
        retrained: The means of those of others.

    Returns:
        Those of which all parts are there.
    """
    shared = figures.keys() & retrained.keys()
    gaps = {key: np.abs(figures[key] - retrained[key]) for key in _AVG_GAP if key in shared}
    return {key: float(value) for key, value in _composed(gaps).items()}


def _composed(gaps: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return ToW and the average gap of |Δ| by key; those of which all parts are there."""
    found: dict[str, Floats] = {}
    if all(key in gaps for key in _TOW):
        found["tow"] = np.prod([1 - gaps[key] for key in _TOW], axis=0)
    if all(key in gaps for key in _AVG_GAP):
        found["avg_gap"] = np.mean([gaps[key] for key in _AVG_GAP], axis=0)
    return found


def composite_intervals(
    ours: Samples, original: Samples | None, retrained: Sequence[Samples]
) -> dict[str, float]:
    """Return the 95 % bootstrap interval of what is made of several figures.

    All networks are asked about the same draws of the images, as in `sample.gap_intervals`.

    Args:
        ours: Of the network.
        original: Of the network before the request; without it there is no index.
        retrained: Of one or more others.

    Returns:
        `KEY_low` and `KEY_high` of the indices, of ToW and of the average gap.
    """
    networks = [ours, *retrained, *([original] if original is not None else [])]
    shared = [key for key in (*_INDICES, *_AVG_GAP) if all(key in one for one in networks)]
    u, *others = (on_draws({key: one[key] for key in shared}) for one in networks)
    r = {key: np.mean([one[key] for one in others[: len(retrained)]], axis=0) for key in shared}
    found = _composed({key: np.abs(u[key] - r[key]) for key in _AVG_GAP if key in shared})
    if original is not None:
        o = others[-1]
        found |= {
            index: probe.probe_index(u[key], o[key], r[key])
            for key, index in _INDICES.items()
            if key in shared
        }
    return {
        f"{key}_{end}": value
        for key, values_B in found.items()
        for end, value in zip(ENDS, interval(values_B), strict=True)
    }


def distance_samples(outputs: Outputs, retrained: Sequence[Outputs]) -> dict[str, Sample]:
    """Return how far a network's outputs are from retrained ones, image by image.

    Beside it stands the distance of each retrained network to the others, which is the floor.

    Args:
        outputs: Of the network.
        retrained: Of one or more others, on the same splits; a distance is the mean of those to
            each.
    """
    found: dict[str, Sample] = {}
    for kind in ("forget", "retain"):
        split = f"{kind}_test"
        ours, theirs = outputs.logits[split], [one.logits[split] for one in retrained]
        found[f"kl/{kind}"] = Mean.whole(
            split, np.mean([divergence.kl(r, ours) for r in theirs], axis=0)
        )
        found[f"js/{kind}"] = Mean.whole(
            split, np.mean([divergence.js(ours, r) for r in theirs], axis=0)
        )
    routes = [
        Part.whole("forget_test", one.logits["forget_test"].argmax(1).astype(float))
        for one in (outputs, *retrained)
    ]
    classes = outputs.logits["forget_test"].shape[1]
    found["routing_js"] = Routing(routes[0], tuple(routes[1:]), classes)
    return found


def worst_case_privacy(outputs: Outputs, retrained: Sequence[Outputs]) -> dict[str, float]:
    """Return what one output of a forgotten image gives away; the mean over retrained networks.

    Args:
        outputs: Of the network.
        retrained: Of one or more others.
    """
    ours, *theirs = (
        privacy.forgotten_scores(*one["forget_train"]) for one in (outputs, *retrained)
    )
    return {"privacy/worst": float(np.mean([privacy.worst_case(ours, one) for one in theirs]))}


def neighbour_samples(
    networks: Sequence[Outputs], retrained: Sequence[Outputs]
) -> list[dict[str, Sample]]:
    """Return the neighbour-class attack on each network; several forgotten classes count alike.

    {} each where no two retained classes are left to compare.

    Args:
        networks: What to attack.
        retrained: One or more; they say which class is the nearest.
    """
    forget = np.unique(retrained[0].labels["forget_test"])
    if retrained[0].logits["forget_test"].shape[1] - len(forget) < 2:
        return [{} for _ in networks]
    nearest = {}
    for label in forget:
        own_N = retrained[0].labels["forget_test"] == label
        said = [one.logits["forget_test"][own_N] for one in retrained]
        nearest[label] = neighbour.nearest_class(said, forget)

    def attacked(one: Outputs) -> dict[str, Sample]:
        def part(split: str, label: int, neighbour_class: int) -> Part:
            labels_N = one.labels[split]
            rows = np.flatnonzero(labels_N == label)
            score_N = neighbour.neighbour_score(
                one.logits[split][rows], forget=forget, neighbour=neighbour_class
            )
            return Part(split, score_N, rows, len(labels_N))

        pairs = [
            (part("forget_test", label, near), part("retain_test", near, near))
            for label, near in nearest.items()
        ]
        return {"mia/neighbour/": Ranking(tuple(pairs))}

    return [attacked(one) for one in networks]
