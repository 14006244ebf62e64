"""ROC figures with the field's traps closed; see each function."""

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics.scores import Floats, Ints

MIN_FALSE_POSITIVES = 10
"""A false-positive rate is reported only if it allows this many negatives: resolution is 1/n."""

CURVE_FPR = np.unique(np.concatenate([np.logspace(-3, 0, 61), np.linspace(0.05, 1, 39)]).round(5))
"""The false-positive rates that curves are kept at, (T,): even on either kind of axis."""


def auc(members: Floats, others: Floats) -> float:
    """Return the area under the ROC, P(member > other) + P(tie) / 2; nan if a side is empty.

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    if not len(members) or not len(others):
        return float("nan")
    return float(weighted_auc(members, others, *_once(members, others))[0])


def advantage(area: float) -> float:
    """Return 2·|AUC − ½| in [0, 1]: an attacker may turn the score around.

    >>> advantage(0.25)
    0.5
    """
    return 2 * abs(area - 0.5)


def tpr_at_fpr(members: Floats, others: Floats, alpha: float) -> float:
    """Return the largest true-positive rate among thresholds with a false-positive rate ≤ alpha."""
    return float(_tpr_at(members, others, np.array([alpha]))[0])


def resolved_tpr(members: Floats, others: Floats, alpha: float) -> float:
    """Return `tpr_at_fpr`, or nan if alpha allows fewer than `MIN_FALSE_POSITIVES` negatives."""
    if alpha * len(others) < MIN_FALSE_POSITIVES:
        return float("nan")
    return tpr_at_fpr(members, others, alpha)


def curve(members: Floats, others: Floats) -> Floats:
    """Return `tpr_at_fpr` at each of `CURVE_FPR`, (T,); nan at rates below one of the others."""
    if not len(others):
        return np.full(len(CURVE_FPR), np.nan)
    resolved = len(others) * CURVE_FPR >= 1
    return np.where(resolved, _tpr_at(members, others, CURVE_FPR), np.nan)


def _tpr_at(members: Floats, others: Floats, fpr_T: Floats) -> Floats:
    if not len(members) or not len(others):
        return np.full(len(fpr_T), np.nan)
    (tpr,), (fpr,) = weighted_rates(members, others, *_once(members, others))
    return np.asarray(tpr[np.searchsorted(fpr, fpr_T, side="right") - 1])


def weighted_rates(
    members_N: Floats, others_M: Floats, drawn_BN: Floats, drawn_BM: Floats
) -> tuple[Floats, Floats]:
    """Return true- and false-positive rates (B, T + 1) at all thresholds, for draws of the images.

    Args:
        members_N: Scores.
        others_M: Scores.
        drawn_BN: How often each draw has each member.
        drawn_BM: How often each draw has each of the others.

    Returns:
        From no image called member to all of them; T is the number of different scores, from the
        highest on.
    """
    scores = np.concatenate([members_N, others_M])
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    is_member = order < len(members_N)

    def rates(drawn: Floats, own: NDArray[np.bool_], offset: int) -> Floats:
        # Sums over the side's own images alone, read at the thresholds of both.
        sums = np.zeros((len(drawn), drawn.shape[1] + 1))
        np.cumsum(drawn[:, order[own] - offset], axis=1, out=sums[:, 1:])
        reached = np.append(0, np.cumsum(own)[last])
        return _share(sums[:, reached], sums[:, -1:])

    return rates(drawn_BN, is_member, 0), rates(drawn_BM, ~is_member, len(members_N))


def weighted_auc(members_N: Floats, others_M: Floats, drawn_BN: Floats, drawn_BM: Floats) -> Floats:
    """Return the areas under the ROC (B,) for draws of the images; see `auc`.

    Args:
        members_N: Scores.
        others_M: Scores.
        drawn_BN: How often each draw has each member.
        drawn_BM: How often each draw has each of the others.

    Returns:
        The areas; nan of a draw without any members, or without any others.
    """
    order = np.argsort(others_M)
    below_BM = np.zeros((len(drawn_BM), len(others_M) + 1))
    np.cumsum(drawn_BM[:, order], axis=1, out=below_BM[:, 1:])
    ends = (np.searchsorted(others_M[order], members_N, side=side) for side in ("left", "right"))
    beaten_BN = sum(below_BM[:, end] for end in ends) / 2  # ties count half
    pairs_B = drawn_BN.sum(1) * drawn_BM.sum(1)
    return _share((drawn_BN * beaten_BN).sum(1), pairs_B)


def _share(part: Floats, whole: Floats) -> Floats:
    """Return part / whole; nan of a draw that has none of few images."""
    with np.errstate(invalid="ignore"):
        return np.asarray(part / whole)


def balanced_hits(members: Floats, others: Floats, *, seed: int = 0) -> list[tuple[Ints, Floats]]:
    """Return where the threshold that is best on another half of the images is right.

    Halves are drawn once and used both ways, so that no image is judged by a threshold that it
    helped to choose. The balanced accuracy is the mean of the four means.

    Returns:
        Indices and 1 or 0 for each: of the members' halves, then of the others'; all empty with
        fewer than two images on a side.
    """
    if min(len(members), len(others)) < 2:
        return [(np.empty(0, np.int64), np.empty(0))] * 4
    rng = np.random.default_rng(seed)
    cut_m, cut_o = (np.array_split(rng.permutation(len(side)), 2) for side in (members, others))
    hits, rejections = [], []
    for a, b in ((0, 1), (1, 0)):
        threshold, direction = _best_threshold(members[cut_m[a]], others[cut_o[a]])
        hit = direction * members[cut_m[b]] >= direction * threshold
        rejected = direction * others[cut_o[b]] < direction * threshold
        hits.append((cut_m[b], hit.astype(np.float64)))
        rejections.append((cut_o[b], rejected.astype(np.float64)))
    return [*hits, *rejections]


def _best_threshold(members: Floats, others: Floats) -> tuple[float, int]:
    best: tuple[float, float, int] = (-1.0, 0.0, 1)
    scores = np.unique(np.concatenate([members, others]))
    for direction in (1, -1):
        tpr_BT, fpr_BT = weighted_rates(
            direction * members, direction * others, *_once(members, others)
        )
        thresholds = np.append(direction * np.inf, scores[::-direction])
        index = int(np.argmax(gain := (tpr_BT - fpr_BT)[0]))
        if gain[index] > best[0]:
            best = (float(gain[index]), float(thresholds[index]), direction)
    return best[1], best[2]


def _once(members: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Return the draw that has every image once."""
    return np.ones((1, len(members))), np.ones((1, len(others)))
