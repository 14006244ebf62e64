"""Bookkeeping of shadow models: who was trained on what, and who may attack whom.

Shadows are networks made like the target (same data, recipe, unlearning), each on a known half of
the audited images; what they say of an image with and without it tells what the target saw.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from orthounlearn.errors import UsageError
from orthounlearn.metrics import roc
from orthounlearn.metrics.scores import Floats, Ints

Bools = NDArray[np.bool_]

Attack = Callable[[Ints, int], Floats]
"""From the rows of the shadows and the row of the target to scores (N,), higher = member."""

FEWEST = 6
"""A target's own pair is left out, and LiRA's deviation needs two shadows of each kind."""

RATES = {"tpr@fpr1e-2": 0.01, "tpr@fpr5e-2": 0.05}
"""Figures that are a true-positive rate, and at which false-positive rate."""

_WORST = 0.05  # share of the members whose mean score tells what an average hides


def check_count(count: int) -> None:
    """Check the number K of shadows that attacks are asked for.

    Raises:
        UsageError: It is odd, or below `FEWEST` and not 0.
    """
    if count and (count < FEWEST or count % 2):
        raise UsageError(
            f"Expected metrics.shadows to be an even number of at least {FEWEST}, or 0 for no "
            f"shadows, but got {count}."
        )


def balanced_membership(n_examples: int, n_shadows: int, seed: int) -> Bools:
    """Draw which examples each shadow is trained on: IN (True) or OUT.

    Rows 2j and 2j + 1 are a random half and its complement. Hence each example is IN exactly half
    of the shadows, each shadow has n_examples / 2 members (± ½), the design stays balanced when a
    pair is left out, and a larger design begins with the smaller one of the same seed.

    Args:
        n_examples: N.
        n_shadows: K, even.
        seed: Of the draw.

    Returns:
        (K, N).

    Raises:
        UsageError: K is odd or below 2, or N is below 2.

    >>> member_KN = balanced_membership(5, 4, seed=0)
    >>> member_KN.sum(0).tolist(), member_KN.sum(1).tolist()
    ([2, 2, 2, 2, 2], [2, 3, 2, 3])
    """
    if n_shadows < 2 or n_shadows % 2:
        raise UsageError(f"Expected an even number of shadows, 2 or more, but got {n_shadows}.")
    if n_examples < 2:
        raise UsageError(f"Expected 2 or more examples for shadows, but got {n_examples}.")
    member_KN = np.zeros((n_shadows, n_examples), dtype=bool)
    for pair in range(n_shadows // 2):
        # One stream per pair: adding shadows does not change those that are trained already.
        order = np.random.default_rng([seed, pair]).permutation(n_examples)
        member_KN[2 * pair, order[: n_examples // 2]] = True
        member_KN[2 * pair + 1] = ~member_KN[2 * pair]
    return member_KN


def leave_one_out(member_KN: Bools, attack: Attack) -> Floats:
    """Attack each shadow in turn, with the other pairs as its shadows.

    A target's own pair is left out as a whole. If only the target were, an example would be IN one
    shadow less exactly where the target was trained on it: that count alone tells members, and
    puts LiRA's AUC at 0.47 instead of ½ where nothing leaks (K = 8, in the tests).

    Args:
        member_KN: From `balanced_membership`.
        attack: Is given the K − 2 rows that it may use as shadows, and the target's row.

    Returns:
        (K, N): the scores of every target.

    Raises:
        UsageError: There are fewer than two pairs, or rows 2j and 2j + 1 are not complements.
    """
    count = len(member_KN)
    if count < 4 or count % 2:
        raise UsageError(f"Expected an even number of shadows, 4 or more, but got {count}.")
    if not np.array_equal(member_KN[::2], ~member_KN[1::2]):
        raise UsageError(
            "Expected rows 2j and 2j + 1 of the membership to be complements, but got others. "
            "Valid are designs of balanced_membership, in its order."
        )
    rows = np.arange(count)
    return np.stack([attack(rows[rows // 2 != target // 2], target) for target in range(count)])


def fewest(member_KN: Bools) -> tuple[int, int]:
    """Return the smallest number of IN and of OUT shadows that an image has in `leave_one_out`.

    Args:
        member_KN: From `balanced_membership`.
    """
    inside_KN = leave_one_out(member_KN, lambda rows, _: member_KN[rows].sum(0))
    return int(inside_KN.min()), int(len(member_KN) - 2 - inside_KN.max())


def summarise(scores_N: Floats, member_N: Bools) -> dict[str, float]:
    """Return how well scores tell a target's members from the other audited images.

    Args:
        scores_N: Higher = member; nan where undefined, left out.
        member_N: Which images the target was trained on.

    Returns:
        `auc` in [0, 1]; `tpr@fpr1e-2` and `tpr@fpr5e-2`, nan if too few negatives resolve them;
        `worst5`, the mean score of the 5 % of members (at least one) with the highest, in nats for
        likelihood ratios: an average over all hides a few images that leak. All are to be compared
        with those of retrained models. nan if a side is empty.
    """
    members, others = (scores_N[side & ~np.isnan(scores_N)] for side in (member_N, ~member_N))
    worst = np.sort(members)[len(members) - int(np.ceil(_WORST * len(members))) :]
    return {
        "auc": roc.auc(members, others),
        **{key: roc.resolved_tpr(members, others, alpha) for key, alpha in RATES.items()},
        "worst5": float(np.mean(worst)) if len(worst) else float("nan"),
    }


def over_targets(
    scores_KN: Floats, member_KN: Bools, labels_N: Ints | None = None
) -> dict[str, float]:
    """Return the mean of each figure of `summarise` over targets, and `auc_sd`.

    Args:
        scores_KN: From `leave_one_out`.
        member_KN: The membership.
        labels_N: Classes, each of which is attacked on its own, the figures averaged; None for one
            attack on all images.

    Returns:
        nan where a figure is undefined for any target. `auc_sd` is the standard deviation (K − 1)
        over targets; they share shadows, so that sd / √K is too small for an error of the mean.
    """
    labels_N = np.zeros(scores_KN.shape[1], np.int64) if labels_N is None else labels_N
    classes = [labels_N == label for label in np.unique(labels_N)]
    rows = [
        _mean([summarise(scores_N[one], member_N[one]) for one in classes])
        for scores_N, member_N in zip(scores_KN, member_KN, strict=True)
    ]
    figures = _mean(rows)
    return figures | {"auc_sd": float(np.std([row["auc"] for row in rows], ddof=1))}


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
