"""Outputs of networks that know, leak or hide a class, made of random numbers."""

import numpy as np

from orthounlearn.metrics.findings import Findings, compare
from orthounlearn.metrics.suite import AUDITED, CLASSIFIER, Outputs, probed_layers

NAMES = ("a", "b", "c", "d")


def outputs(
    *,
    gain: float = 6.0,
    leak: float = 0.0,
    masked: bool = False,
    known: float = 6.0,
    seed: int = 0,
) -> Outputs:
    """A network that knows all classes; class 0 is the forgotten one.

    Its features separate the classes by `gain`, the forgotten one by `known`.
    """
    rng = np.random.default_rng(seed)
    logits, labels, features = {}, {}, {}
    for split in AUDITED:
        count = 300
        truth = np.zeros(count, int) if split.startswith("forget") else rng.integers(1, 4, count)
        z = rng.normal(size=(count, 4)) * 2
        z[np.arange(count), truth] += gain + (leak if split == "forget_train" else 0)
        if masked:
            z[:, 0] = -1e4
        logits[split], labels[split] = z.astype(np.float32), truth
        features[split] = {}
        for layer in probed_layers(split, ("1", "2", CLASSIFIER)):
            h = rng.normal(size=(count, 4)) * 2
            h[np.arange(count), truth] += np.where(truth == 0, known, gain)
            features[split][layer] = h.astype(np.float16)
    return Outputs(logits, labels, features)


def findings(outputs: Outputs) -> Findings:
    return Findings.of(outputs, forget=[0], class_names=NAMES)


def full(ours: Outputs, retrained: Outputs, original: Outputs) -> dict[str, float]:
    """The figures of a network beside one retrained one and the original."""
    found = findings(ours)
    compare(found, findings(original), [findings(retrained)])
    return found.figures


RETRAINED = outputs(masked=True, known=0.0, seed=1)
