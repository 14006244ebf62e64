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

_BINS = 512
"""Values of a feature that are told apart in fitting. An SVC on n images takes n² steps, on bins
none of that. On CIFAR-10, 2,000 images a side, the value is within 0.0005 of that of an SVC on
single images that is solved to 1e-5 (16 cases); solved to the usual 1e-3, that one is itself up
to 0.002 off."""

_TOLERANCE = 1e-5
"""Of the solver: free on bins, and the value no longer depends on where it stopped."""


def salun_efficacy(
    retain_train: tuple[NDArray[np.floating], Ints],
    retain_test: tuple[NDArray[np.floating], Ints],
    forget_train: tuple[NDArray[np.floating], Ints],
    *,
    seed: int = 0,
) -> dict[str, Floats]:
    """Return which images of D_f the attacker calls NON-member (1 or 0, (N,) per feature).

    Their mean is "MIA-efficacy"; 1 is best.

    Definition of SalUn and l1-sparse: SVC(C=3, rbf, gamma="auto") on one feature, members D_r
    against test images, value = 1 − mean(predict(D_f)). Papers quote `confidence`.
    Deviations: their fifth feature, all probabilities at once, is left out; sides of equal size
    (the public imbalance of 4 to 1 makes the attacker constant), drawn at random from all classes;
    values in one of 512 bins are fitted as their mean, with their number as weight.

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
        "m_entropy": lambda z, y: -scores.modified_entropy(z, y),
    }
    return {
        f"salun_{name}": 1.0
        - _called_member(
            SVC(C=3, gamma="auto", kernel="rbf", tol=_TOLERANCE),
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
) -> Floats:
    """Return which images of D_f a logistic attacker on the output's entropy calls MEMBER (N,).

    The mean is the figure, by the definition of Golatkar, Bad Teacher and SSD (SSD's balanced
    logistic form). Lower means more forgotten, but the retrained network's own value is the
    target, not 0.
    """
    parts = [-scores.entropy(*part) for part in (retain_train, retain_test, forget_train)]
    return _called_member(LogisticRegression(class_weight="balanced"), parts, seed)


def _called_member(attacker: SVC | LogisticRegression, parts: list[Floats], seed: int) -> Floats:
    members, others, asked = parts
    count = min(len(members), len(others))
    if not count or not len(asked):
        return np.full(len(asked), np.nan)
    rng = np.random.default_rng(seed)
    drawn = [side[rng.permutation(len(side))[:count]] for side in (others, members)]
    low, high = (limit([limit(part) for part in (*drawn, asked)]) for limit in (np.min, np.max))
    edges = np.linspace(low, high, _BINS + 1)
    (x_0, n_0), (x_1, n_1) = (_binned(part, edges) for part in drawn)
    attacker.fit(
        np.concatenate([x_0, x_1])[:, None],
        np.repeat([0, 1], [len(x_0), len(x_1)]),
        sample_weight=np.concatenate([n_0, n_1]),
    )
    # Bins are for fitting: one with a twentieth of the images in it may lie across the boundary.
    at_edges = attacker.predict(edges[:, None])
    bins = _bin(asked, edges)
    called: Floats = at_edges[bins].astype(np.float64)
    crossed = at_edges[bins] != at_edges[bins + 1]
    if crossed.any():
        called[crossed] = attacker.predict(asked[crossed, None])
    return called


def _bin(values: Floats, edges: Floats) -> Ints:
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)


def _binned(values: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the number of the values in each bin that has some."""
    bins = _bin(values, edges)
    counts = np.bincount(bins).astype(np.float64)
    sums = np.bincount(bins, weights=values)
    kept = counts > 0
    return sums[kept] / counts[kept], counts[kept]
