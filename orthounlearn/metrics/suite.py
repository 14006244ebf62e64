"""The audit of one network: all figures under the keys that logs and tables use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics import (
    accuracy,
    compat,
    divergence,
    membership,
    neighbour,
    privacy,
    probe,
    scores,
    similarity,
)
from orthounlearn.metrics.check import DEPTH, SHOTS_OF_BLOCKS
from orthounlearn.metrics.sample import (
    ENDS,
    Calibration,
    Mean,
    Part,
    Ranking,
    Routing,
    Sample,
    Samples,
    interval,
    on_draws,
    values,
)
from orthounlearn.metrics.scores import Floats, Ints

_ACCURATE = ("forget_train", "forget_test", "retain_train", "retain_val", "retain_test")

AUDITED = (*_ACCURATE, "forget_probe")
"""The splits that the audit runs a network on."""

CLASSIFIER = "classifier"
"""The layer whose features are what the network's classifier reads; blocks go by number."""

PROBES = {**{f"k{shots}": shots for shots in probe.SHOTS}, "kall": None}
"""Images per class that the probes of the classifier's features are fitted on, by name."""

_FITTED = ("forget_probe", "retain_val")  # what probes are fitted on
_ASKED = ("forget_test", "retain_test")  # and asked about


_INDICES = {f"probe/{name}": f"probe/{name}_index" for name in PROBES} | {DEPTH: "depth/index"}
"""Recall -> its place between the retrained and the original network."""

_TOW = ("acc/forget_train", "acc/retain_train", "acc/retain_test")
# Forget accuracy on the training images, as in RUM (Zhao et al., arXiv 2406.01257).

_AVG_GAP = (*_TOW, "compat/salun_confidence")
# The four of SalUn's table, in the same unit: UA, RA, TA, MIA-efficacy.


def probed_layers(split: str, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layers whose features of a split some probe reads."""
    if split == "retain_test":  # only the classifier's probe has an ROC
        return tuple(layer for layer in layers if layer == CLASSIFIER)
    return tuple(layers) if split in (*_FITTED, *_ASKED) else ()


@dataclass(frozen=True)
class Outputs:
    """What a network says about the splits.

    Attributes:
        logits: Split name -> float32 (N, K).
        labels: Split name -> int64 (N,).
        features: Split name -> layer of `probed_layers` -> (N, C): block "1", "2", … its pooled
            output, `CLASSIFIER` what the classifier reads (absent in a network whose logits do
            not come straight out of a linear layer).
    """

    logits: Mapping[str, NDArray[np.float32]]
    labels: Mapping[str, Ints]
    features: Mapping[str, Mapping[str, NDArray[np.float16]]] = field(default_factory=dict)

    def __getitem__(self, split: str) -> tuple[NDArray[np.float32], Ints]:
        return self.logits[split], self.labels[split]


def samples(
    outputs: Outputs,
    *,
    forget: Sequence[int],
    class_names: Sequence[str],
    seed: int = 0,
    block_probes: Sequence[str] = (),
) -> dict[str, Sample]:
    """Return every figure that needs this network alone, image by image.

    Args:
        outputs: On the splits of `AUDITED`.
        forget: The forgotten classes.
        class_names: K names.
        seed: Of the attackers' draws.
        block_probes: Of `PROBES`, by name: further probes of every block.
    """
    found: dict[str, Sample] = {}
    for split in _ACCURATE:
        found[f"acc/{split}"] = _mean(split, scores.correctness(*outputs[split]))
    for split in ("forget_train", "forget_test", "retain_test"):
        found[f"loss/{split}"] = _mean(split, -scores.confidence(*outputs[split]))
    found["acc/test_all"] = _pooled(found["acc/forget_test"], found["acc/retain_test"])
    labels_N = outputs.labels["retain_test"]
    right_N = scores.correctness(*outputs["retain_test"])
    for label, name in enumerate(class_names):
        if label not in forget:
            rows = np.flatnonzero(labels_N == label)
            part = Part("retain_test", right_N[rows], rows, len(labels_N))
            found[f"acc/retain_test_per_class/{name}"] = Mean((part,))
    gaps_N, bins_N = accuracy.calibration(*outputs["retain_test"])
    found["ece/retain_test"] = Calibration(Part.whole("retain_test", gaps_N), bins_N)
    routes_N = outputs.logits["forget_test"].argmax(1)
    for label, name in enumerate(class_names):
        found[f"pred/forget_hist/{name}"] = _mean("forget_test", (routes_N == label).astype(float))
    attacks = membership.population_attacks(
        *outputs["forget_train"], *outputs["forget_test"], forget=forget, seed=seed
    )
    found |= {f"mia/{key}": attack for key, attack in attacks.items()}
    parts = outputs["retain_train"], outputs["retain_test"], outputs["forget_train"]
    found["mia/retained_margin/"] = membership.retained_attack(*parts[:2])
    for key, called_N in compat.salun_efficacy(*parts, seed=seed).items():
        found[f"compat/{key}"] = _mean("forget_train", called_N)
    golatkar_N = compat.golatkar_mia(*parts, seed=seed)
    found["compat/golatkar_mia"] = _mean("forget_train", golatkar_N)
    return found | _probes(outputs, seed, block_probes)


def audit(
    outputs: Outputs, *, forget: Sequence[int], class_names: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """Return the figures of `samples`."""
    return values(samples(outputs, forget=forget, class_names=class_names, seed=seed))


def _mean(split: str, values_N: Floats) -> Mean:
    return Mean((Part.whole(split, values_N),))


def _pooled(*each: Sample) -> Mean:
    """Return the mean over the images of several samples together."""
    parts = tuple(part for sample in each for part in sample.parts)
    count = sum(part.total for part in parts)
    return Mean(parts, tuple(part.total / count for part in parts))


def _probes(outputs: Outputs, seed: int, block_probes: Sequence[str]) -> dict[str, Sample]:
    layers = outputs.features.get(_ASKED[0], {})
    found: dict[str, Sample] = {}
    blocks: list[Floats] = []
    for layer in layers:
        fit, forgotten = _joined(outputs, _FITTED, layer), _joined(outputs, _ASKED[:1], layer)
        if layer != CLASSIFIER:
            each: dict[str, int | None] = {"depth": probe.most_shots(fit)}
            each |= {f"depth_{name}": PROBES[name] for name in block_probes}
            for name, shots_or_all in each.items():
                probed = probe.linear_probe(fit, forgotten, shots=shots_or_all, seed=seed)
                found[f"{name}/{layer}"] = _mean("forget_test", probed.found_N)
                if name == "depth":
                    blocks.append(probed.found_N)
            continue
        retained = _joined(outputs, _ASKED[1:], layer)
        for name, shots_or_all in PROBES.items():
            probed = probe.linear_probe(fit, forgotten, retained, shots=shots_or_all, seed=seed)
            found[f"probe/{name}"] = _mean("forget_test", probed.found_N)
            pairs = [
                (Part.whole("forget_test", one), Part.whole("retain_test", other))
                for one, other in probed.scores
            ]
            found[f"probe/{name}_"] = Ranking(tuple(pairs))
        recalled_N = probe.prototype_recall(fit, forgotten, shots=min(probe.SHOTS), seed=seed)
        found["proto/recall"] = _mean("forget_test", recalled_N)
    if blocks:
        found[DEPTH] = _mean("forget_test", np.mean(blocks, axis=0))
    return found


def _joined(outputs: Outputs, splits: Sequence[str], layer: str) -> probe.Features:
    return probe.Features(
        np.concatenate([outputs.features[split][layer] for split in splits]),
        np.concatenate([outputs.labels[split] for split in splits]),
    )


def block_shots(outputs: Outputs) -> dict[str, float]:
    """Return how many images of each class the blocks' probes are fitted on; {} without blocks."""
    layers = [layer for layer in outputs.features.get(_ASKED[0], {}) if layer != CLASSIFIER]
    if not layers:
        return {}
    return {SHOTS_OF_BLOCKS: float(probe.most_shots(_joined(outputs, _FITTED, layers[0])))}


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
        found[f"kl/{kind}"] = _mean(
            split, np.mean([divergence.kl(r, ours) for r in theirs], axis=0)
        )
        found[f"js/{kind}"] = _mean(
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
