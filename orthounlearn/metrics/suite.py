"""The audit of one network: all figures under the keys that logs and tables use."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics import accuracy, compat, divergence, membership, neighbour, probe
from orthounlearn.metrics.scores import Ints, margin

_ACCURATE = ("forget_train", "forget_test", "retain_train", "retain_val", "retain_test")

AUDITED = (*_ACCURATE, "forget_probe")
"""The splits that the audit runs a network on."""

CLASSIFIER = "classifier"
"""The layer whose features are what the network's classifier reads; blocks go by number."""

_FITTED = ("forget_probe", "retain_val")  # what probes are fitted on
_ASKED = ("forget_test", "retain_test")  # and asked about


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


def audit(
    outputs: Outputs, *, forget: Sequence[int], class_names: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """Return every figure that needs this network alone.

    Args:
        outputs: On the splits of `AUDITED`.
        forget: The forgotten classes.
        class_names: K names.
        seed: Of the attackers' draws.
    """
    values = {f"acc/{split}": accuracy.micro_accuracy(*outputs[split]) for split in _ACCURATE}
    for split in ("forget_train", "forget_test", "retain_test"):
        values[f"loss/{split}"] = accuracy.negative_log_likelihood(*outputs[split])
    (forget_logits, forget_labels), (retain_logits, retain_labels) = (
        outputs["forget_test"],
        outputs["retain_test"],
    )
    values["acc/test_all"] = accuracy.micro_accuracy(
        np.concatenate([forget_logits, retain_logits]),
        np.concatenate([forget_labels, retain_labels]),
    )
    values["ece/retain_test"] = accuracy.expected_calibration_error(*outputs["retain_test"])
    by_class = accuracy.per_class_accuracy(*outputs["retain_test"])
    for label, name in enumerate(class_names):
        if label not in forget:
            values[f"acc/retain_test_per_class/{name}"] = float(by_class[label])
    for name, share in zip(
        class_names, accuracy.prediction_histogram(outputs.logits["forget_test"]), strict=True
    ):
        values[f"pred/forget_hist/{name}"] = float(share)
    attacks = membership.population_attacks(
        *outputs["forget_train"], *outputs["forget_test"], forget=forget, seed=seed
    )
    values.update({f"mia/{key}": value for key, value in attacks.items()})
    parts = outputs["retain_train"], outputs["retain_test"], outputs["forget_train"]
    efficacy = compat.salun_efficacy(*parts, seed=seed)
    values.update({f"compat/{key}": value for key, value in efficacy.items()})
    values["compat/golatkar_mia"] = compat.golatkar_mia(*parts, seed=seed)
    return values | _probes(outputs, seed)


def _probes(outputs: Outputs, seed: int) -> dict[str, float]:
    layers = outputs.features.get(_ASKED[0], {})
    values: dict[str, float] = {}
    for layer in layers:
        fit, forgotten = _joined(outputs, _FITTED, layer), _joined(outputs, _ASKED[:1], layer)
        if layer != CLASSIFIER:
            shots = probe.most_shots(fit)
            found = probe.linear_probe(fit, forgotten, shots=shots, seed=seed)
            values[f"depth/{layer}"] = found["recall"]
            continue
        retained = _joined(outputs, _ASKED[1:], layer)
        for shots in probe.SHOTS:
            found = probe.linear_probe(fit, forgotten, retained, shots=shots, seed=seed)
            values |= {f"probe/k{shots}": found["recall"], f"probe/k{shots}_auc": found["auc"]}
        values["proto/recall"] = probe.prototype_recall(
            fit, forgotten, shots=min(probe.SHOTS), seed=seed
        )
    return values


def _joined(outputs: Outputs, splits: Sequence[str], layer: str) -> probe.Features:
    return probe.Features(
        np.concatenate([outputs.features[split][layer] for split in splits]),
        np.concatenate([outputs.labels[split] for split in splits]),
    )


def against_both(
    values: Mapping[str, float], original: Mapping[str, float], retrained: Mapping[str, float]
) -> dict[str, float]:
    """Return where the network stands on the way from the original to the retrained one.

    Over the depth it is one number, Σ_b (u_b − r_b) / Σ_b (o_b − r_b) over the blocks b: a mean of
    the blocks' own indices would be ruled by early blocks, where original and retrained network
    hardly differ and an index is noise.
    """
    shared = [key for key in values if key in original and key in retrained]
    found = {
        f"{key}_index": probe.probe_index([values[key]], [original[key]], [retrained[key]])
        for key in (f"probe/k{shots}" for shots in probe.SHOTS)
        if key in shared
    }
    depth = [key for key in shared if key.startswith("depth/")]
    if depth:
        found["depth/index"] = probe.probe_index(
            *([figures[key] for key in depth] for figures in (values, original, retrained))
        )
    return found


def against_original(
    values: Mapping[str, float], original: Mapping[str, float]
) -> dict[str, float]:
    """Return what the request cost: retained accuracy as a share, and the worst class.

    Args:
        values: Of the unlearned network, from `audit`.
        original: Of the original network.
    """
    prefix = "acc/retain_test_per_class/"
    drops = [original[key] - values[key] for key in values if key.startswith(prefix)]
    before = original["acc/retain_test"]
    return {
        "retain_ratio": values["acc/retain_test"] / before if before else float("nan"),
        "drift/retain_test": values["acc/retain_test"] - before,
        "acc/nearest_class_drop": float(np.nanmax(drops)),
    }


def against_retrained(
    outputs: Outputs,
    values: Mapping[str, float],
    retrained_outputs: Outputs,
    retrained: Mapping[str, float],
) -> dict[str, float]:
    """Return distances to the retrained network: every figure's gap, and those of the outputs.

    Args:
        outputs: Of the unlearned network.
        values: Its figures, from `audit`.
        retrained_outputs: Of the retrained network, on the same splits.
        retrained: Its figures.
    """
    gaps = {
        f"{key}_gap": value - retrained[key] for key, value in values.items() if key in retrained
    }
    gaps |= _distances(outputs, retrained_outputs)
    gaps |= _neighbour(outputs, retrained_outputs)
    # ToW (Zhao et al., RUM, arXiv 2406.01257): forget accuracy on the training images.
    factors = [
        1 - abs(gaps[f"acc/{s}_gap"]) for s in ("forget_train", "retain_train", "retain_test")
    ]
    gaps["tow"] = float(np.prod(factors))
    # The four of SalUn's table, in the same unit: UA, RA, TA, MIA-efficacy.
    four = ("acc/forget_train", "acc/retain_train", "acc/retain_test", "compat/salun_confidence")
    gaps["avg_gap"] = float(np.mean([abs(gaps[f"{key}_gap"]) for key in four]))
    gaps["mia/pop_margin/auc_gap_low"], gaps["mia/pop_margin/auc_gap_high"] = _margin_interval(
        outputs, retrained_outputs
    )
    return gaps


def between_retrained(retrained: Sequence[Outputs]) -> dict[str, float]:
    """Return the floor of each distance: its mean over pairs of retrained networks; {} for one."""
    pairs = [_distances(one, other) for one, other in permutations(retrained, 2)]
    keys = pairs[0] if pairs else ()
    return {f"{key}_floor": float(np.mean([pair[key] for pair in pairs])) for key in keys}


def _distances(outputs: Outputs, retrained: Outputs) -> dict[str, float]:
    found = {}
    for kind in ("forget", "retain"):
        ours, theirs = outputs.logits[f"{kind}_test"], retrained.logits[f"{kind}_test"]
        found[f"kl/{kind}"] = divergence.kl(theirs, ours)
        found[f"js/{kind}"] = divergence.js(ours, theirs)
    found["routing_js"] = divergence.routing_js(
        accuracy.prediction_histogram(outputs.logits["forget_test"]),
        accuracy.prediction_histogram(retrained.logits["forget_test"]),
    )
    return found


def _neighbour(outputs: Outputs, retrained: Outputs) -> dict[str, float]:
    """Return the neighbour-class attack's AUC and its gap; {} for several forgotten classes."""
    forget = np.unique(outputs.labels["forget_test"])
    if len(forget) != 1:
        return {}
    label = int(forget[0])
    nearest = neighbour.nearest_class(retrained.logits["forget_test"], label)
    ours, theirs = (
        neighbour.neighbour_auc(
            one.logits["forget_test"],
            one.logits["retain_test"][one.labels["retain_test"] == nearest],
            label=label,
            neighbour=nearest,
        )
        for one in (outputs, retrained)
    )
    return {"mia/neighbour/auc": ours, "mia/neighbour/auc_gap": ours - theirs}


def _margin_interval(outputs: Outputs, retrained: Outputs) -> tuple[float, float]:
    """Paired 95 % interval of the margin attack's AUC gap; nan for several forgotten classes."""
    if len(np.unique(outputs.labels["forget_test"])) != 1:
        return float("nan"), float("nan")
    return membership.paired_bootstrap(
        (margin(*outputs["forget_train"]), margin(*outputs["forget_test"])),
        (margin(*retrained["forget_train"]), margin(*retrained["forget_test"])),
    )
