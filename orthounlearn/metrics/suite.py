"""The audit of one network by itself, under the keys that logs and tables use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orthounlearn.errors import DivergedError
from orthounlearn.metrics import accuracy, compat, membership, probe, scores
from orthounlearn.metrics.check import DEPTH, SHOTS_OF_BLOCKS
from orthounlearn.metrics.sample import Calibration, Mean, Part, Ranking, Sample, values
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


def probed_layers(split: str, layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layers whose features of a split some probe reads."""
    if split == "retain_test":  # only the classifier's probe has an ROC
        return tuple(layer for layer in layers if layer == CLASSIFIER)
    return tuple(layers) if split in (*_FITTED, *_ASKED) else ()


@dataclass(frozen=True, eq=False)  # two are the same only if they are one
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


def usable_logits(logits_NK: NDArray[np.float32], split: str) -> NDArray[np.float32]:
    """Return logits in which −∞, a masked output, is a number that is as good as that.

    Attacks subtract and standardise logits, and refuse what is infinite. Masking is the cheapest
    way of hiding a class, and has to be audited, not refused.

    Raises:
        DivergedError: There is nan or +∞ among them, or a row without any number.
    """
    masked = np.isneginf(logits_NK)
    usable = (masked | np.isfinite(logits_NK)).all() and not masked.all(axis=1).any()
    if not usable:
        what = "nan" if np.isnan(logits_NK).any() else "infinity"
        raise DivergedError(
            f"Expected logits, but the network puts out {what} on {split}: its training or "
            "unlearning diverged, or its checkpoint is damaged. Nothing can be audited."
        )
    if not masked.any():
        return logits_NK
    return np.where(masked, logits_NK[~masked].min() - _MASK, logits_NK)


_MASK = np.float32(100)
"""A logit that is so far below the others has probability 0 in single precision."""


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
        found[f"acc/{split}"] = Mean.whole(split, scores.correctness(*outputs[split]))
    for split in ("forget_train", "forget_test", "retain_test"):
        found[f"loss/{split}"] = Mean.whole(split, -scores.confidence(*outputs[split]))
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
        found[f"pred/forget_hist/{name}"] = Mean.whole(
            "forget_test", (routes_N == label).astype(float)
        )
    attacks = membership.population_attacks(
        *outputs["forget_train"], *outputs["forget_test"], forget=forget, seed=seed
    )
    found |= {f"mia/{key}": attack for key, attack in attacks.items()}
    parts = outputs["retain_train"], outputs["retain_test"], outputs["forget_train"]
    found["mia/retained_margin/"] = membership.retained_attack(*parts[:2])
    for key, called_N in compat.salun_efficacy(*parts, seed=seed).items():
        found[f"compat/{key}"] = Mean.whole("forget_train", called_N)
    golatkar_N = compat.golatkar_mia(*parts, seed=seed)
    found["compat/golatkar_mia"] = Mean.whole("forget_train", golatkar_N)
    return found | _probes(outputs, seed, block_probes)


def audit(
    outputs: Outputs, *, forget: Sequence[int], class_names: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """Return the figures of `samples`."""
    return values(samples(outputs, forget=forget, class_names=class_names, seed=seed))


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
                found[f"{name}/{layer}"] = Mean.whole("forget_test", probed.found_N)
                if name == "depth":
                    blocks.append(probed.found_N)
            continue
        retained = _joined(outputs, _ASKED[1:], layer)
        for name, shots_or_all in PROBES.items():
            probed = probe.linear_probe(fit, forgotten, retained, shots=shots_or_all, seed=seed)
            found[f"probe/{name}"] = Mean.whole("forget_test", probed.found_N)
            pairs = [
                (Part.whole("forget_test", one), Part.whole("retain_test", other))
                for one, other in probed.scores
            ]
            found[f"probe/{name}_"] = Ranking(tuple(pairs))
        recalled_N = probe.prototype_recall(fit, forgotten, shots=min(probe.SHOTS), seed=seed)
        found["proto/recall"] = Mean.whole("forget_test", recalled_N)
    if blocks:
        found[DEPTH] = Mean.whole("forget_test", np.mean(blocks, axis=0))
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
