"""A student that disobeys its teacher on the forget set alone (SCRUB, SCRUB+R)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, LossMethod, Phase, Training
from orthounlearn.methods.layers import evaluating
from orthounlearn.methods.teachers import frozen_copy, kl_divergence


class Scrub(LossMethod):
    r"""Alternate epochs on −KL_T(p₀ ‖ p_θ) over D_f and on γ·CE + α·KL_T(p₀ ‖ p_θ) over D_r.

    p₀ is the original. Each of the first `forget_epochs` epochs begins with a pass over D_f; every
    epoch has one over D_r. KL_T includes the factor T².

    Source: Kurmanji et al., "Towards Unbounded Machine Unlearning", arXiv 2302.09880 (large scale:
    SGD 5e-4, momentum 0.9, weight decay 5e-4, γ 0.99, α 0.001, T 4, 3 epochs, 2 of them with a
    pass over D_f; membership experiments: γ 1, α 0.5, 5 epochs, 3 of them). Their decay of the
    learning rate begins after epoch 3, so it never comes.

    Deviations:
        BatchNorm statistics are frozen in passes over D_f, since forget-only batches in train mode
        destroy them. The first step is then at p_θ = p₀, where the gradient of the divergence is
        0: what starts the ascent is weight decay and rounding, or the pass over D_r before it.
        Both sets come in batches of one size (theirs: 128 retained, 32 forgotten images).

    Args:
        optimizer: See `LossMethod`.
        epochs: Passes over D_r.
        batch_size: See `LossMethod`.
        batch_norm: In passes over D_r.
        forget_epochs: Epochs that begin with a pass over D_f, at least 0.
        ce_weight: γ ≥ 0.
        kl_weight: α ≥ 0.
        temperature: T > 0.
    """

    uses = frozenset({"forget_train", "retain_train"})

    def __init__(
        self,
        *,
        forget_epochs: int = 2,
        ce_weight: float = 0.99,
        kl_weight: float = 0.001,
        temperature: float = 4.0,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if forget_epochs < 0:
            raise UsageError(
                f"Expected method.forget_epochs of at least 0, but got {forget_epochs}."
            )
        if ce_weight < 0 or kl_weight < 0:
            raise UsageError(
                "Expected method.ce_weight and method.kl_weight of at least 0, "
                f"but got {ce_weight} and {kl_weight}."
            )
        if temperature <= 0:
            raise UsageError(f"Expected method.temperature above 0, but got {temperature}.")
        self.forget_epochs = forget_epochs
        self.ce_weight = ce_weight
        self.kl_weight = kl_weight
        self.temperature = temperature

    def start(self, net: nn.Module, context: Context) -> nn.Module:  # noqa: ARG002 - a hook
        """Keep the original as the teacher."""
        self._teacher = frozen_copy(net)
        return net

    def phases(self) -> Sequence[Phase]:
        """Return the passes of all epochs."""
        return [phase for epoch in range(self.epochs) for phase in self.passes(epoch)]

    def passes(self, epoch: int) -> list[Phase]:
        """Return the passes of one epoch."""
        over_forget = Phase(self.forget_loss, {"forget_train": ("forget_train",)}, 1)
        over_retain = Phase(self.loss, {"retain_train": ("retain_train",)}, 1)
        return [over_forget, over_retain] if epoch < self.forget_epochs else [over_retain]

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of a pass over D_r: be right, and agree with the teacher."""
        images, labels = batch["retain_train"]
        logits = net(images)
        divergence = kl_divergence(logits, self._teacher(images), temperature=self.temperature)
        return self.ce_weight * F.cross_entropy(logits, labels) + self.kl_weight * divergence

    def forget_loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the loss of a pass over D_f: disagree with the teacher."""
        images, _ = batch["forget_train"]
        with frozen_norms(net):
            logits = net(images)
        return -kl_divergence(logits, self._teacher(images), temperature=self.temperature)


class ScrubRewind(Scrub):
    r"""SCRUB+R: SCRUB, then back to the epoch e that minimises |err_e(D_f) − err_E(V_f)|.

    V_f are validation images of the forgotten classes. Their error under the last weights θ_E says
    how far images of these classes are forgotten that nobody trained on: more error than that on
    D_f would give its images away. Candidates are the weights at the end of each epoch.

    Source: Kurmanji et al., arXiv 2302.09880, section 3 and membership notebook.

    Deviations: those of `Scrub`. Of several equally close epochs the last is taken, the one with
    the most passes over D_r; their code takes the first. Where a whole class is forgotten, errors
    of 100 % make ties frequent.
    """

    uses = Scrub.uses | {"forget_val"}

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Keep the original as the teacher; nothing is noted yet."""
        self._epochs_ended: list[dict[str, Tensor]] = []
        return super().start(net, context)

    def passes(self, epoch: int) -> list[Phase]:
        """Return the passes of one epoch; the first of them notes what the epoch before left."""
        first, *others = super().passes(epoch)
        if epoch > 0:
            first = replace(first, begin=self._note)
        return [first, *others]

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Train, then choose the epoch."""
        student = super().unlearn(net, context)
        self._note(student)
        wanted = error(student, context.batches("forget_val", batch_size=self.batch_size))
        distances = []
        for state in self._epochs_ended:
            student.load_state_dict(state)
            reached = error(student, context.batches("forget_train", batch_size=self.batch_size))
            distances.append(abs(reached - wanted))
        student.load_state_dict(self._epochs_ended[last_smallest(distances)])
        return student

    def _note(self, net: nn.Module, _: Optimizer | None = None) -> None:
        state = net.state_dict()
        self._epochs_ended.append({name: tensor.clone() for name, tensor in state.items()})


@contextmanager
def frozen_norms(net: nn.Module) -> Iterator[None]:
    """Let BatchNorm use its running statistics and leave them alone, then as before."""
    norms = {m: m.training for m in net.modules() if isinstance(m, _BatchNorm)}
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm, training in norms.items():
            norm.train(training)


def last_smallest(values: Sequence[float]) -> int:
    """Return the last index of the smallest value.

    >>> last_smallest([3.0, 1.0, 2.0, 1.0, 2.0])
    3
    """
    return max(index for index, value in enumerate(values) if value == min(values))


def error(net: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the share of wrongly classified images, in eval mode."""
    wrong = count = 0
    with evaluating(net), torch.no_grad():
        for images, labels in batches:
            wrong += int((net(images).argmax(1) != labels).sum())
            count += len(labels)
    return wrong / count
