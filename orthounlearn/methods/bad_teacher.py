"""A student between two teachers, one of whom knows nothing (Bad Teacher)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, LossMethod, Phase, Training
from orthounlearn.methods.teachers import (
    draw_share,
    forgotten_classes,
    frozen_copy,
    kl_divergence,
)

_TOKEN_STD = 0.02
"""Of parameters without `reset_parameters` (attention, class tokens, positions), as in ViT."""


class BadTeacher(LossMethod):
    r"""Minimise KL(t(x) ‖ p_θ(x)): t is a random network on D_f, the original on part of D_r.

    Forgotten and retained images come shuffled together, at temperature 1.

    Source: Chundawat et al., "Can Bad Teaching Induce Forgetting?", arXiv 2205.08096;
    vikram2000b/bad-teaching-unlearning@f1aa988 (Adam 1e-4, 1 epoch, batch 256, 30 % of D_r).

    Deviations:
        The mean is over images; their `kl_div(reduction="mean")` also divides by the number of
        classes.
        30 % of D_r is drawn anew in each epoch (they run one); see `draw_share`.

    Args:
        optimizer: See `LossMethod`.
        epochs: Passes over D_f and that share of D_r.
        batch_size: Images per step before the rest of the retained ones is left out.
        batch_norm: See `LossMethod`.
        retain_share: Share of D_r, in [0, 1].
    """

    uses = frozenset({"forget_train", "retain_train"})

    def __init__(
        self,
        *,
        retain_share: float = 0.3,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if not 0 <= retain_share <= 1:
            raise UsageError(f"Expected method.retain_share in [0, 1], but got {retain_share}.")
        self.retain_share = retain_share

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Make the teachers."""
        self._forgotten_K = forgotten_classes(context)
        self._competent = frozen_copy(net)
        self._incompetent = frozen_copy(reinitialised(net))
        return net

    def phases(self) -> Sequence[Phase]:
        """Return the one phase, on both sets shuffled together."""
        return [Phase(self.loss, {"all": ("forget_train", "retain_train")}, self.epochs)]

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the divergence from the teacher that each image calls for."""
        images, labels = batch["all"]
        forgotten_B = self._forgotten_K[labels]
        drawn_B = draw_share(len(labels), self.retain_share, always_B=forgotten_B)
        images, forgotten_B = images[drawn_B], forgotten_B[drawn_B]
        teacher_BK = torch.where(
            forgotten_B[:, None], self._incompetent(images), self._competent(images)
        )
        return kl_divergence(net(images), teacher_BK)


def reinitialised(net: nn.Module) -> nn.Module:
    """Return a copy with fresh weights and running statistics in every layer."""
    fresh = copy.deepcopy(net)
    for module in fresh.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
        else:
            for parameter in module.parameters(recurse=False):
                nn.init.normal_(parameter, std=_TOKEN_STD)
    return fresh
