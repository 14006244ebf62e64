"""ROC figures with the field's traps closed; see each function."""

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from orthounlearn.metrics.scores import Floats

MIN_FALSE_POSITIVES = 10
"""A false-positive rate is reported only if it allows this many negatives: resolution is 1/n."""


def auc(members: Floats, others: Floats) -> float:
    """Return the area under the ROC, P(member > other) + P(tie) / 2; nan if a side is empty.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    if not len(members) or not len(others):
        return float("nan")
    return float(roc_auc_score(_truth(members, others), np.concatenate([members, others])))


def advantage(area: float) -> float:
    """Return 2·|AUC − ½| in [0, 1]: an attacker may turn the score around.

    >>> advantage(0.25)
    0.5
    """
    return 2 * abs(area - 0.5)


def tpr_at_fpr(members: Floats, others: Floats, alpha: float) -> float:
    """Return the largest true-positive rate among thresholds with a false-positive rate ≤ alpha.

    All thresholds count: with `drop_intermediate` scikit-learn may drop the one that matters.
    """
    if not len(members) or not len(others):
        return float("nan")
    fpr, tpr, _ = roc_curve(
        _truth(members, others), np.concatenate([members, others]), drop_intermediate=False
    )
    return float(tpr[fpr <= alpha].max())


def resolved_tpr(members: Floats, others: Floats, alpha: float) -> float:
    """Return `tpr_at_fpr`, or nan if alpha allows fewer than `MIN_FALSE_POSITIVES` negatives."""
    if alpha * len(others) < MIN_FALSE_POSITIVES:
        return float("nan")
    return tpr_at_fpr(members, others, alpha)


def balanced_accuracy(members: Floats, others: Floats, *, seed: int = 0) -> float:
    """Return the balanced accuracy of the threshold that is best on another half.

    Halves are drawn once and used both ways, so that no image is judged by a threshold that it
    helped to choose. nan with fewer than two images on a side.
    """
    if min(len(members), len(others)) < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    cut_m, cut_o = (np.array_split(rng.permutation(side), 2) for side in (members, others))
    values = []
    for a, b in ((0, 1), (1, 0)):
        threshold, direction = _best_threshold(cut_m[a], cut_o[a])
        hit = np.mean(direction * cut_m[b] >= direction * threshold)
        rejected = np.mean(direction * cut_o[b] < direction * threshold)
        values.append((hit + rejected) / 2)
    return float(np.mean(values))


def _best_threshold(members: Floats, others: Floats) -> tuple[float, int]:
    best: tuple[float, float, int] = (-1.0, 0.0, 1)
    for direction in (1, -1):
        fpr, tpr, thresholds = roc_curve(
            _truth(members, others), direction * np.concatenate([members, others])
        )
        index = int(np.argmax(tpr - fpr))
        if tpr[index] - fpr[index] > best[0]:
            best = (float(tpr[index] - fpr[index]), float(direction * thresholds[index]), direction)
    return best[1], best[2]


def _truth(members: Floats, others: Floats) -> Floats:
    return np.concatenate([np.ones(len(members)), np.zeros(len(others))])
