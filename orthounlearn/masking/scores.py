"""How much a channel belongs to the classes of a request: one score per channel."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""(sums_KC, counts_K, forget) -> score_C; higher means more of the forgotten classes."""

_EPSILON = 1e-12


def _split_means(sums_KC: Tensor, counts_K: Tensor, forget: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the mean activation over the images of D_f and over those of D_r, each (C,)."""
    chosen = torch.zeros(len(counts_K), dtype=torch.bool)
    chosen[list(forget)] = True
    return (
        sums_KC[chosen].sum(0) / counts_K[chosen].sum(),
        sums_KC[~chosen].sum(0) / counts_K[~chosen].sum(),
    )


def activation_difference(sums_KC: Tensor, counts_K: Tensor, forget: Sequence[int]) -> Tensor:
    """Return s_j = mean_{x∈D_f} a_j(x) − mean_{x∈D_r} a_j(x), the published score.

    >>> sums = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    >>> activation_difference(sums, torch.tensor([2.0, 1.0]), [0]).tolist()
    [0.0, -3.0]
    """
    forget_C, retain_C = _split_means(sums_KC, counts_K, forget)
    return forget_C - retain_C


def normalised_difference(sums_KC: Tensor, counts_K: Tensor, forget: Sequence[int]) -> Tensor:
    """Return (μ_F − μ_R) / (μ_F + μ_R), in [−1, 1]: selective channels before strong ones."""
    forget_C, retain_C = _split_means(sums_KC, counts_K, forget)
    return (forget_C - retain_C) / (forget_C + retain_C + _EPSILON)


def tf_idf(sums_KC: Tensor, counts_K: Tensor, forget: Sequence[int]) -> Tensor:
    """Return TF·IDF: a channel's share of the class's activation times its rarity over classes.

    TF_j = A_Fj / Σ_j A_Fj; IDF_j = log((1 + K) / (1 + #{c : A_cj ≥ mean_c A_cj})), over the K
    classes that have images.
    Source: Wang et al., "Federated Unlearning via Class-Discriminative Pruning", WWW 2022,
    arXiv 2110.11794; the direction is the paper's (high scores are pruned).
    """
    present = counts_K > 0  # an earlier request may have left a class without images
    means_KC = sums_KC[present] / counts_K[present, None]
    forget_C, _ = _split_means(sums_KC, counts_K, forget)
    frequent = (means_KC >= means_KC.mean(0)).sum(0)
    rarity = torch.log((1 + len(means_KC)) / (1 + frequent))
    return forget_C / (forget_C.sum() + _EPSILON) * rarity


SCORES: dict[str, Score] = {
    "activation_difference": activation_difference,
    "normalised_difference": normalised_difference,
    "tf_idf": tf_idf,
}
