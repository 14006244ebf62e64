"""Retraining from scratch: the reference of every other method."""

from torch import nn

from orthounlearn.methods.base import Context, UnlearningMethod


class Retrain(UnlearningMethod):
    """Fresh weights and BatchNorm statistics, the original's own recipe, D_r only.

    Fresh means that nothing of the training with D_f is left. The weights that the training starts
    from are drawn by the seed, so they are those that the original started from, unless
    `seed_offset` draws others.

    The engine trains it once and stores it under the key of what determines it, since every other
    method is measured against it. `unlearn_seconds` is the time of that training.

    Source: the definition of exact unlearning; every layer and every running statistic is new.

    Deviations: none.

    Args:
        seed_offset: Added to the seed of the original, to draw another retrained network.
    """

    uses = frozenset({"retain_train"})

    def __init__(self, *, seed_offset: int = 0) -> None:
        self.seed_offset = seed_offset

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:  # noqa: ARG002 - interface
        """Return the retrained network; `net` plays no part."""
        retrained, self.unlearn_seconds = context.retrained(seed=context.seed + self.seed_offset)
        return retrained
