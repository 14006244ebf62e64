"""A student that disobeys its teacher on the forget set alone (SCRUB, SCRUB+R)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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

    In epoch e (from 1) the learning rate is η · d^n, n the number of `decay_epochs` below e.

    Source: Kurmanji et al., "Towards Unbounded Machine Unlearning", arXiv 2302.09880;
    meghdadk/SCRUB@98ffb11 (large scale: SGD 5e-4, momentum 0.9, weight decay 5e-4, γ 0.99,
    α 0.001, T 4, 3 epochs, 2 of them with a pass over D_f; membership experiments: γ 1, α 0.5,
    5 epochs, 3 of them; in both d 0.1 after epochs 3, 5 and 9, which 3 epochs never reach).

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
        decay_epochs: Those after which the learning rate falls, counted from 1.
        decay_rate: d in (0, 1].
    """

    uses = frozenset({"forget_train", "retain_train"})

    def __init__(
        self,
        *,
        forget_epochs: int = 2,
        ce_weight: float = 0.99,
        kl_weight: float = 0.001,
        temperature: float = 4.0,
        decay_epochs: Sequence[int] = (3, 5, 9),
        decay_rate: float = 0.1,
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
        if any(epoch < 1 for epoch in decay_epochs) or not 0 < decay_rate <= 1:
            raise UsageError(
                "Expected method.decay_epochs of at least 1 and method.decay_rate in (0, 1], "
                f"but got {list(decay_epochs)} and {decay_rate}."
            )
        self.forget_epochs = forget_epochs
        self.ce_weight = ce_weight
        self.kl_weight = kl_weight
        self.temperature = temperature
        self.decay_epochs = list(decay_epochs)
        self.decay_rate = decay_rate

    def start(self, net: nn.Module, context: Context) -> nn.Module:  # noqa: ARG002 - a hook
        """Keep the original as the teacher."""
        self._teacher = frozen_copy(net)
        return net

    def phases(self) -> Sequence[Phase]:
        """Return the passes of all epochs; the first of each begins the epoch."""
        passes = []
        for epoch in range(self.epochs):
            over_forget = Phase(self.forget_loss, {"forget_train": ("forget_train",)}, 1)
            over_retain = Phase(self.loss, {"retain_train": ("retain_train",)}, 1)
            both = [over_forget, over_retain] if epoch < self.forget_epochs else [over_retain]
            both[0] = replace(both[0], begin=partial(self.begin_epoch, ended=epoch))
            passes += both
        return passes

    def begin_epoch(self, net: nn.Module, optimizer: Optimizer, *, ended: int) -> None:  # noqa: ARG002 - a hook
        """Let the learning rate fall where it is due after so many epochs."""
        for group in optimizer.param_groups:
            group["lr"] *= self.decay_rate ** self.decay_epochs.count(ended)

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

    V_f is `forget_val`, one of the two sets that tuning judges methods on. That takes part in the
    method, as published, so its accuracy there flatters it; it has the values of `scrub` and no
    search of its own, and the audit reads other images.

    Source: Kurmanji et al., arXiv 2302.09880, section 3; meghdadk/SCRUB@98ffb11, its membership
    notebook.

    Deviations:
        Those of `Scrub`.
        Of several equally close epochs the last is taken, the one with the most passes over D_r;
        their code takes the first. Where a whole class is forgotten, errors of 100 % make ties
        frequent.
    """

    uses = Scrub.uses | {"forget_val"}

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Keep the original as the teacher; nothing is noted yet."""
        self._epochs_ended: list[dict[str, Tensor]] = []
        return super().start(net, context)

    def begin_epoch(self, net: nn.Module, optimizer: Optimizer, *, ended: int) -> None:
        """Note what the epoch before has left."""
        if ended > 0:
            self._note(net)
        super().begin_epoch(net, optimizer, ended=ended)

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

    def _note(self, net: nn.Module) -> None:
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
