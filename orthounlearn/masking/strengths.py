"""From scores to strengths: how much of each channel goes."""

import math

import torch
from torch import Tensor

from orthounlearn.errors import UsageError


def rank_strengths(score_C: Tensor, *, rate: float, floor: float) -> Tensor:
    """Return the published rank strengths (C,): max(floor, 1 − r/k) for the top k, else 0.

    k = ⌈rate·C⌉ channels of highest score get rank r = 1..k, so the first one keeps a factor of
    1/k and the later half keeps 1 − floor. `floor=1` is hard pruning. Ties go to the lower index.
    Source: arXiv 2506.19891v2 as re-implemented second-hand (k from 25 %, floor 0.5).

    Args:
        score_C: Higher means more of the class.
        rate: Share of the channels, in (0, 1].
        floor: Smallest strength of a chosen channel, in [0, 1].

    Raises:
        UsageError: An argument is out of its range.

    >>> rank_strengths(torch.tensor([4.0, 3.0, 2.0, 1.0]), rate=1.0, floor=0.5).tolist()
    [0.75, 0.5, 0.5, 0.5]
    """
    if not 0 < rate <= 1:
        raise UsageError(f"Expected method.rate to be in (0, 1], but got {rate}.")
    if not 0 <= floor <= 1:
        raise UsageError(f"Expected method.floor to be in [0, 1], but got {floor}.")
    count = math.ceil(rate * len(score_C) - 1e-9)  # 0.1 * 30 is 3.0000000000000004
    order = torch.argsort(score_C, descending=True, stable=True)[:count]
    ranks = torch.arange(1, count + 1, dtype=score_C.dtype)
    strengths = torch.zeros_like(score_C)
    strengths[order] = (1 - ranks / count).clamp_min(floor)
    return strengths
