"""LiRA: is a margin more like those of models with the image, or like those without?

Source: Carlini et al., arXiv 2112.03570, algorithm 1 (online) and its offline variant; for
unlearned models (U-LiRA) Hayes et al., arXiv 2403.01218, here for a class. Margins φ are those of
`scores.margin`, under each shadow (K, N) and under the target (N,); nan or ±inf in them means
"missing". All scores are log-likelihood ratios or log-probabilities in nats, higher = member, and
nan where a side has no margin.

Deviations: a small number of shadows gives a deviation of what is left after each image's own
mean is subtracted; the authors' code pools the margins themselves, whose spread is mostly that
between images. The offline score is the one-sided test of the paper, not the density of its code.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, log_ndtr

from orthounlearn.metrics.scores import Floats, Ints
from orthounlearn.metrics.shadow import Bools

OWN_DEVIATION_FROM = 32
"""IN and OUT shadows of an image from which its own standard deviation is used: a variance needs
far more of them than a mean."""

_LEAST_DEVIATION = 1e-6  # margins of float32 logits do not resolve less


@dataclass(frozen=True)
class Margins:
    """What shadows of one kind (IN or OUT) say of each image; made by `fit`.

    Attributes:
        mean_N: Of the margins; nan without any.
        squares_N: Sum of squared deviations from the image's own mean.
        count_N: Margins of the image.
    """

    mean_N: Floats
    squares_N: Floats
    count_N: Ints


def fit(phi_KN: Floats) -> Margins:
    """Summarise margins of shadows of one kind.

    Args:
        phi_KN: (K, N); nan or ±inf where a shadow is of the other kind.
    """
    present_KN = np.isfinite(phi_KN)
    count_N = present_KN.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is nan, as promised
        mean_N = np.where(present_KN, phi_KN, 0).sum(0) / count_N
    residual_KN = np.subtract(phi_KN, mean_N, where=present_KN, out=np.zeros(phi_KN.shape))
    return Margins(mean_N, (residual_KN**2).sum(0), count_N)


def fit_both(phi_KN: Floats, member_KN: Bools) -> tuple[Margins, Margins]:
    """Return what the IN and what the OUT shadows say of each image.

    Args:
        phi_KN: Margins under each shadow.
        member_KN: Which images each shadow was trained on.
    """
    return fit(np.where(member_KN, phi_KN, np.nan)), fit(np.where(member_KN, np.nan, phi_KN))


def online(target_N: Floats, inside: Margins, outside: Margins) -> Floats:
    """Return log N(φ*; μ_in, σ_in) − log N(φ*; μ_out, σ_out).

    σ is the image's own with `OWN_DEVIATION_FROM` or more IN and as many OUT shadows; else that of
    the residuals of all images, one for IN and one for OUT. All nan unless some image has two IN
    and some has two OUT shadows: nothing else tells a deviation.

    Args:
        target_N: Margins φ* under the attacked model.
        inside: Of IN shadows.
        outside: Of OUT shadows.
    """
    own_N = _own(inside, outside)
    return _log_density(target_N, inside, own_N) - _log_density(target_N, outside, own_N)


def offline(target_N: Floats, outside: Margins) -> Floats:
    """Return log Φ((φ* − μ_out) / σ_out), at most 0: how few OUT models are as sure.

    One-sided, as in the paper: a two-sided density would also call surprisingly low margins
    members. σ_out is the image's own with `OWN_DEVIATION_FROM` or more OUT shadows, else pooled.

    Args:
        target_N: Margins φ* under the attacked model.
        outside: Of OUT shadows.
    """
    deviation_N = _deviation(outside, outside.count_N >= OWN_DEVIATION_FROM)
    return np.asarray(log_ndtr((_finite(target_N) - outside.mean_N) / deviation_N))


def pooled(target_N: Floats, inside: Margins, outside: Margins) -> Floats:
    """Return (μ_in − μ_out)(φ* − (μ_in + μ_out) / 2) / σ²: `online` with one σ for all.

    Linear in φ*: right where IN and OUT margins spread alike, weaker than `online` where they do
    not. All nan if no image has two shadows of the same kind.

    Args:
        target_N: Margins φ* under the attacked model.
        inside: Of IN shadows.
        outside: Of OUT shadows.
    """
    middle_N = (inside.mean_N + outside.mean_N) / 2
    distance_N = (inside.mean_N - outside.mean_N) / _pooled_deviation(inside, outside) ** 2
    return distance_N * (_finite(target_N) - middle_N)


def privacy(target_N: Floats, unlearned_KN: Floats, member_KN: Bools) -> Floats:
    """Return U-LiRA's ratio "trained on, then unlearned" against "never trained on, yet unlearned".

    0 for an image says that nobody can tell whether it was among the forgotten ones. It says
    nothing of what is left of the class as a whole: both sides saw other images of it.

    Args:
        target_N: Margins under the unlearned target.
        unlearned_KN: Margins under the unlearned shadows θ'_k.
        member_KN: Which images θ_k was trained on and then asked to forget.
    """
    return online(target_N, *fit_both(unlearned_KN, member_KN))


def efficacy(target_N: Floats, unlearned_KN: Floats, member_KN: Bools, never_MN: Floats) -> Floats:
    """Return U-LiRA's ratio "trained on, then unlearned" against "trained without the class".

    Its mean over members is 0 if unlearned models are like retrained ones, and large for residual
    memory and for over-unlearning alike: both tell the two kinds apart. What errors of the means
    and deviations add where nothing differs, ½(1/M − 1/n_in) nats and less, n_in the IN shadows of
    an image, is subtracted.

    Args:
        target_N: Margins under the unlearned target.
        unlearned_KN: Margins under the unlearned shadows θ'_k.
        member_KN: Which images θ_k was trained on and then asked to forget.
        never_MN: Margins under M models that never saw the class.
    """
    inside, _ = fit_both(unlearned_KN, member_KN)
    never = fit(never_MN)
    own_N = _own(inside, never)
    by_chance_N = _expected_density(inside, own_N) - _expected_density(never, own_N)
    return online(target_N, inside, never) - by_chance_N


def _own(inside: Margins, outside: Margins) -> Bools:
    """Return which images have shadows enough for standard deviations of their own."""
    return np.asarray(np.minimum(inside.count_N, outside.count_N) >= OWN_DEVIATION_FROM)


def _log_density(target_N: Floats, side: Margins, own_N: Bools) -> Floats:
    """Log-density of a normal distribution, less the constant −½ log 2π that every side has."""
    deviation_N = _deviation(side, own_N)
    return -0.5 * ((_finite(target_N) - side.mean_N) / deviation_N) ** 2 - np.log(deviation_N)


def _expected_density(side: Margins, own_N: Bools) -> Floats:
    """Return the mean of `_log_density`, plus log σ, for a target that is one of this side's kind.

    Of n normal margins the mean has variance σ²/n; a variance s² with freedom ν has E[σ²/s²] =
    ν / (ν − 2) and E[log s²/σ²] = ψ(ν/2) − log(ν/2).

    Returns:
        nan where ν is 2 or less: there is no such mean.
    """
    pooled = float(np.maximum(side.count_N - 1, 0).sum())
    freedom_N = np.where(own_N, side.count_N - 1.0, pooled)
    half_N = np.where(freedom_N > 2, freedom_N / 2, np.nan)
    with np.errstate(divide="ignore"):  # no margins: infinite, and nan in the density already
        spread_N = (1 + 1 / side.count_N) * half_N / (half_N - 1)
    return -0.5 * np.asarray(spread_N + digamma(half_N) - np.log(half_N))


def _deviation(side: Margins, own_N: Bools) -> Floats:
    """Return standard deviations (N,): an image's own where asked for, else the pooled one."""
    own_variance_N = side.squares_N / np.maximum(side.count_N - 1, 1)
    own_deviation_N = np.maximum(np.sqrt(own_variance_N), _LEAST_DEVIATION)
    return np.where(own_N, own_deviation_N, _pooled_deviation(side))


def _pooled_deviation(*sides: Margins) -> float:
    """Return one deviation for all images; each image and side with n margins has freedom n − 1."""
    freedom = sum(float(np.maximum(side.count_N - 1, 0).sum()) for side in sides)
    if not freedom:
        return float("nan")
    squares = sum(float(side.squares_N.sum()) for side in sides)
    return max(math.sqrt(squares / freedom), _LEAST_DEVIATION)


def _finite(target_N: Floats) -> Floats:
    return np.where(np.isfinite(target_N), target_N, np.nan)
