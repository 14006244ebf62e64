"""What a request did to the channels of a network, for the record of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChannelEdit:
    """The channels of one site.

    Attributes:
        score_C: By which the method has ranked them for this request.
        strength_C: How much of each has gone, in [0, 1]: 1 is pruned, 0 untouched.
        alone_KC: The strengths of a request of each class alone; 0 for a class without images.
    """

    score_C: Tensor
    strength_C: Tensor
    alone_KC: Tensor


def record_edits(
    names: Sequence[str],
    counts_K: Tensor,
    forget: tuple[int, ...],
    *,
    scores: Callable[[tuple[int, ...]], Sequence[Tensor]],
    strengths: Callable[[tuple[int, ...]], Sequence[Tensor]],
) -> dict[str, ChannelEdit]:
    """Return site -> what a method that ranks channels by class has done there.

    Args:
        names: Of the sites, from the images to the classifier.
        counts_K: Images of each class: a class that is gone has none, and no channels.
        forget: The classes of the request.
        scores: Request -> scores (C,) of each site.
        strengths: Request -> strengths (C,) of each site.
    """
    alone = [
        strengths((label,)) if count else [torch.zeros_like(s) for s in strengths(forget)]
        for label, count in enumerate(counts_K.tolist())
    ]
    found = zip(names, scores(forget), strengths(forget), *alone, strict=True)
    return {
        name: ChannelEdit(score_C, strength_C, torch.stack(rows))
        for name, score_C, strength_C, *rows in found
    }
