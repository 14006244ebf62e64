"""RMIA: is the target surer of this image, against what is usual for it, than of population images?

Source: Zarifzadeh et al., arXiv 2312.03262. Everything is in logarithms: after unlearning a class,
p_y is 1e-9 and less. The population z must be images of the audited class that no model was
trained on; with images of other classes the score would be the class, not membership.
Log-probabilities are those of `scores.confidence`; nan means "missing".
"""

import numpy as np
from scipy.special import logsumexp

from orthounlearn.errors import UsageError
from orthounlearn.metrics.scores import Floats


def online_reference(log_p_KN: Floats) -> Floats:
    """Return log p(x) (N,), p(x) the mean of p_k(x) over shadows, half of them IN.

    Args:
        log_p_KN: log p_k(x) under K shadows; nan is left out. A column of nan gives nan.
    """
    present_KN = ~np.isnan(log_p_KN)
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing there: −inf + inf is nan
        total_N = logsumexp(np.where(present_KN, log_p_KN, -np.inf), axis=0)
        return np.asarray(total_N - np.log(present_KN.sum(0)))


def offline_reference(log_out_KN: Floats, *, a: float) -> Floats:
    """Return log p(x) (N,), p(x) = ½[(1 + a)·mean p_out(x) + (1 − a)]: a guess at the IN half.

    Once the class is unlearned and p_out is far below 1 − a, the second term swamps the first and
    all images get the same reference; only a = 1 (no IN term) still tells them apart.

    Args:
        log_out_KN: log p_k(x) under K shadows; nan where a shadow was trained on the image.
        a: In [0, 1]; to be chosen by attacking a shadow that is not used otherwise.

    Raises:
        UsageError: `a` is out of range.
    """
    if not 0 <= a <= 1:
        raise UsageError(f"Expected a in [0, 1], but got {a}.")
    out_N = online_reference(log_out_KN) + np.log1p(a)
    return np.asarray(np.logaddexp(out_N, np.log1p(-a) if a < 1 else -np.inf) - np.log(2))


def score(
    log_p_N: Floats,
    reference_N: Floats,
    log_p_Z: Floats,
    reference_Z: Floats,
    *,
    gamma: float = 1.0,
) -> Floats:
    """Return s(x) = mean_z 1[(p_θ(x) / p(x)) / (p_θ(z) / p(z)) > γ], in [0, 1], higher = member.

    Sorted ratios are searched, O((N + Z) log Z), without a matrix of N × Z. Equal ratios do not
    count: > is strict. Undefined ratios of the population are left out; those of an image give
    nan, as does an empty population.

    Args:
        log_p_N: log p_θ(x) of the audited images under the target.
        reference_N: Their log p(x), from `online_reference` or `offline_reference`.
        log_p_Z: log p_θ(z) of the population.
        reference_Z: Its log p(z), made in the same way.
        gamma: γ, above 0.

    Raises:
        UsageError: γ is not above 0.

    >>> zero = np.zeros(4)
    >>> score(np.array([-2.0, -1.0]), zero[:2], np.array([-4.0, -2.0, -1.5, -1.0]), zero).tolist()
    [0.25, 0.75]
    """
    if not gamma > 0:
        raise UsageError(f"Expected gamma above 0, but got {gamma}.")
    with np.errstate(invalid="ignore"):  # −inf − (−inf): both probabilities are 0, undefined
        ratio_N = log_p_N - reference_N
        ratio_Z = log_p_Z - reference_Z
    usual_Z = np.sort(ratio_Z[~np.isnan(ratio_Z)] + np.log(gamma))
    if not len(usual_Z):
        return np.full(len(ratio_N), np.nan)
    below_N = np.searchsorted(usual_Z, ratio_N, side="left") / len(usual_Z)
    return np.where(np.isnan(ratio_N), np.nan, below_N)
