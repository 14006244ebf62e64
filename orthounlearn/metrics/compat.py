"""Figures of widely used codebases, for comparison with their tables only.

They answer another question than `membership`: the attacker is fitted on *retained* members
against test images, and then asked about the forgotten images. A retrained network and a masked
logit both get the best score, so they are no evidence.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from orthounlearn.metrics import scores
from orthounlearn.metrics.scores import Floats, Ints

_BINS = 2048
"""Values of a feature that are told apart. An SVC on n images takes n² steps, on weighted bins none
of that; the value moves by 0.0015 at most (16 cases, CIFAR-10, 2,000 images a side, 5 to 19 times
faster; the factor grows with n)."""


def salun_efficacy(
    retain_train: tuple[NDArray[np.floating], Ints],
    retain_test: tuple[NDArray[np.floating], Ints],
    forget_train: tuple[NDArray[np.floating], Ints],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Return "MIA-efficacy": the share of D_f that the attacker calls NON-member; 1 is best.

    Definition of SalUn and l1-sparse: SVC(C=3, rbf, gamma="auto") on one feature, members D_r
    against test images, value = 1 − mean(predict(D_f)). Papers quote `confidence`.
    Deviations: sides of equal size (the public imbalance of 4 to 1 makes the attacker constant),
    drawn at random from all classes; equal values are fitted as one with their number as weight.

    Args:
        retain_train: Logits and labels of members.
        retain_test: Logits and labels of non-members.
        forget_train: Logits and labels of D_f.
        seed: Of the draw.
    """
    features: dict[str, Callable[[NDArray[np.floating], Ints], Floats]] = {
        "correctness": scores.correctness,
        "confidence": lambda z, y: np.exp(scores.confidence(z, y)),
        "entropy": lambda z, y: -scores.entropy(z, y),
    }
    return {
        f"salun_{name}": 1
        - _called_member(
            SVC(C=3, gamma="auto", kernel="rbf"),
            [feature(*part) for part in (retain_train, retain_test, forget_train)],
            seed,
        )
        for name, feature in features.items()
    }


def golatkar_mia(
    retain_train: tuple[NDArray[np.floating], Ints],
    retain_test: tuple[NDArray[np.floating], Ints],
    forget_train: tuple[NDArray[np.floating], Ints],
    *,
    seed: int = 0,
) -> float:
    """Return the share of D_f called MEMBER by a logistic attacker on the entropy of the output.

    Definition of Golatkar, Bad Teacher and SSD (SSD's balanced logistic form). Lower means more
    forgotten, but the retrained network's own value is the target, not 0.
    """
    parts = [-scores.entropy(*part) for part in (retain_train, retain_test, forget_train)]
    return _called_member(LogisticRegression(class_weight="balanced"), parts, seed)


def _called_member(attacker: SVC | LogisticRegression, parts: list[Floats], seed: int) -> float:
    members, others, asked = parts
    count = min(len(members), len(others))
    if not count or not len(asked):
        return float("nan")
    rng = np.random.default_rng(seed)
    drawn = [side[rng.permutation(len(side))[:count]] for side in (others, members)]
    low, high = (limit([limit(part) for part in (*drawn, asked)]) for limit in (np.min, np.max))
    (x_0, n_0), (x_1, n_1), (x, n) = (_binned(part, low, high) for part in (*drawn, asked))
    attacker.fit(
        np.concatenate([x_0, x_1])[:, None],
        np.repeat([0, 1], [len(x_0), len(x_1)]),
        sample_weight=np.concatenate([n_0, n_1]),
    )
    return float(np.average(attacker.predict(x[:, None]), weights=n))


def _binned(values: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """Return the mean and the number of the values in each bin that has some."""
    width = (high - low) / _BINS or 1.0
    bins = np.minimum(((values - low) / width).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins).astype(np.float64)
    sums = np.bincount(bins, weights=values)
    kept = counts > 0
    return sums[kept] / counts[kept], counts[kept]
