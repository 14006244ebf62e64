"""The worst case of what one output gives away: can it be told from that of a retrained network?"""

from collections.abc import Mapping
from math import exp, nan

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from orthounlearn.metrics import scores
from orthounlearn.metrics.scores import Floats, Ints

_THRESHOLDS = 63  # tried for each score, at even shares of the images
_ERROR = 0.025  # of each of the two bounds: 95 % for their ratio
_FEWEST = 8  # images of each half, below which no event could show anything


def forgotten_scores(logits_NK: NDArray[np.floating], labels_N: Ints) -> dict[str, Floats]:
    """Return the scores of membership of images whose classes are all forgotten, by name."""
    return {
        "margin": scores.margin(logits_NK, labels_N),
        "entropy": scores.entropy(logits_NK, labels_N),
        "mentr": scores.modified_entropy(logits_NK, labels_N),
        "rest": scores.rest(logits_NK, [int(label) for label in np.unique(labels_N)]),
    }


def worst_case(
    ours: Mapping[str, Floats], retrained: Mapping[str, Floats], *, seed: int = 0
) -> float:
    """Return e^−ε in (0, 1]: 1 is as after retraining, 0.1 is odds of ten to one in some case.

    ε = max over events E of |log P_u(E) / P_r(E)|, where E is that a score of a forgotten image is
    above, or below, a threshold, in the unlearned and in the retrained network: the ε of
    differential privacy that an attacker who sees one score would prove. The event is chosen on
    half of the images; ε is the 95 % lower bound (Clopper and Pearson) on the other half, so that
    chance alone gives 1. How low it can get depends on the number of images.

    Sources: the ε of the unlearning challenge (Triantafillou et al., arXiv 2406.09073), as a
    worst case over attacks as in the Machine Unlearning Comparator (arXiv 2508.12730). Both take
    the largest empirical ratio; the split and the bound are ours.

    Args:
        ours: Name of a score -> of each forgotten image (N,).
        retrained: The same of the retrained network, on the same images.
        seed: Of the halves.

    Returns:
        e^−ε; nan for fewer than 16 images.
    """
    count = len(next(iter(ours.values())))
    order = np.random.default_rng(seed).permutation(count)
    choose, judge = order[: count // 2], order[count // 2 :]
    if len(choose) < _FEWEST:
        return nan
    found = [
        (epsilon, name, cut)
        for name in ours
        for epsilon, cut in [_strongest(ours[name][choose], retrained[name][choose])]
    ]
    _, name, cut = max(found)
    return exp(-float(_epsilons(ours[name][judge], retrained[name][judge], np.array([cut]))[0]))


def _strongest(ours_N: Floats, theirs_N: Floats) -> tuple[float, float]:
    """Return the largest ε of one score over the thresholds, and its threshold."""
    shares = np.arange(1, _THRESHOLDS + 1) / (_THRESHOLDS + 1)
    cuts = np.quantile(np.concatenate([ours_N, theirs_N]), shares, method="higher")
    epsilons = _epsilons(ours_N, theirs_N, cuts)
    return float(epsilons.max()), float(cuts[epsilons.argmax()])


def _epsilons(ours_N: Floats, theirs_N: Floats, cuts_T: Floats) -> Floats:
    """Return for each threshold the lower bound of |log P_u(E) / P_r(E)|, at least 0.

    E is "at least the threshold" or its opposite, whichever tells more.
    """
    counts = [_at_least(values_N, cuts_T) for values_N in (ours_N, theirs_N)]
    total = len(ours_N)
    ratios = [np.ones(len(cuts_T))]
    for one, other in (counts, counts[::-1]):
        ratios.append(_lower(one, total) / _upper(other, total))
        ratios.append(_lower(total - one, total) / _upper(total - other, total))
    return np.asarray(np.log(np.max(ratios, axis=0)))


def _at_least(values_N: Floats, cuts_T: Floats) -> Ints:
    return np.asarray(len(values_N) - np.searchsorted(np.sort(values_N), cuts_T, side="left"))


def _lower(hits: Ints, total: int) -> Floats:
    """Return the lower end of the Clopper-Pearson interval of a share."""
    return np.where(hits > 0, betaincinv(np.maximum(hits, 1), total - hits + 1, _ERROR), 0.0)


def _upper(hits: Ints, total: int) -> Floats:
    """Return the upper end of the Clopper-Pearson interval of a share."""
    return 1 - _lower(total - hits, total)
