"""Relearning: an attack that trains a copy of a network on a few fresh images of the class."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from orthounlearn.data.augment import BatchTransform
from orthounlearn.errors import UsageError
from orthounlearn.lit.loss_method import fit_loss_method
from orthounlearn.methods.base import Batch, LossMethod
from orthounlearn.methods.head import find_classifier
from orthounlearn.methods.layers import evaluating
from orthounlearn.metrics.relearn import Curve
from orthounlearn.metrics.scores import Floats

Evaluate = Callable[[nn.Module], tuple[Floats, float]]
"""(network in eval mode) -> (which images of the forgotten classes get their class, as 0 and 1
(N,), accuracy on those of the other classes)."""


def ready_to_relearn(
    net: nn.Module, example: Tensor, *, forget: Sequence[int], reset_row: bool, seed: int
) -> nn.Module:
    """Return a copy of a network without what only edits its outputs.

    Such an edit is no forgetting, but it would pass for it. A logit lowered by 10⁴ gets a gradient
    of at most 1, so no training of this length brings it back, and the network breaks under the
    push that never lets go, although every feature of the class was there. Hence:

    - A module around the network that edits its logits (a mask, a clamp) is taken off: what is left
      is the outermost module that reads the images and returns what a linear layer said.
    - A bias of a forgotten class that is below those of all other classes is lifted to the lowest
      of them. Other biases, and the classifier's weights, stay as they are.

    A network whose logits come from no linear layer is copied as it is.

    Args:
        net: Any classifier; left as it is.
        example: Images (B, C, H, W) that it accepts, on its device.
        forget: The forgotten classes.
        reset_row: Draw the classifier's rows of these classes anew, weights and biases, as
            `nn.Linear` does: how fast the class comes back then depends on the features alone.
        seed: Of these rows.

    Raises:
        UsageError: `reset_row` for a network whose logits come from no linear layer.
    """
    bare = _without_output_edits(copy.deepcopy(net), example)
    try:
        classifier = find_classifier(bare, example)
    except UsageError:
        if reset_row:
            raise
        return bare
    forgotten = list(forget)
    with torch.no_grad():
        if reset_row:
            _draw_rows(classifier, forgotten, seed)
        elif classifier.bias is not None:
            others = [k for k in range(classifier.out_features) if k not in forgotten]
            lowest = classifier.bias[others].min()
            classifier.bias[forgotten] = classifier.bias[forgotten].maximum(lowest)
    return bare


def _without_output_edits(net: nn.Module, example: Tensor) -> nn.Module:
    said: list[Tensor] = []
    candidates: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor):
            return
        copied = output.clone()  # a wrapper may edit it in place
        if isinstance(module, nn.Linear):
            said.append(copied)
        if inputs and inputs[0] is example:
            candidates.append((module, copied))

    handles = [module.register_forward_hook(note) for module in net.modules()]
    try:
        with evaluating(net), torch.no_grad():
            logits = net(example)
    finally:
        for handle in handles:
            handle.remove()
    for module, output in reversed(candidates):  # hooks run from the inside out
        if output.shape == logits.shape and any(torch.equal(output, line) for line in said):
            return module
    return net


def _draw_rows(classifier: nn.Linear, forgotten: list[int], seed: int) -> None:
    bound = 1 / math.sqrt(classifier.in_features)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same rows on every device
    for tensor in (classifier.weight, classifier.bias):
        if tensor is not None:
            rows = torch.empty(len(forgotten), *tensor.shape[1:])
            tensor[forgotten] = rows.uniform_(-bound, bound, generator=generator).to(tensor)


def relearn(
    net: nn.Module,
    *,
    loaders: Callable[[], Mapping[str, Iterable[Batch]]],
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    steps: int,
    every: int,
    batch_norm: Literal["train", "frozen"],
    evaluate: Evaluate,
    trainer: Callable[[int], Trainer],
    transform: BatchTransform,
    seed: int,
) -> Curve:
    """Train a copy of a network on forgotten and retained images, and watch the class come back.

    A step is one batch of each set, augmented as in training and put into one batch, and the
    cross-entropy of it. This is the loop of a loss method, since that knows devices, precisions,
    transforms and frozen statistics; only the number of steps is the Trainer's.

    Args:
        net: Where it starts; it, its modes and the random state of its device are left as they are.
        loaders: Makes uint8 batches by name of the set; the sets cycle until the steps are done.
        optimizer: Called with the parameters, returns the optimiser.
        steps: Of the optimiser.
        every: Steps from one point of the curve to the next; it divides `steps`.
        batch_norm: "frozen" normalises with the statistics that the network came with, "train"
            with those of the batch.
        evaluate: Called with the copy, in eval mode, at step 0 and at every point.
        trainer: Makes a Trainer for a number of steps.
        transform: Normalisation and augmentation.
        seed: Of augmentation and dropout.

    Returns:
        steps // every + 1 points; nan from where the loss was no longer finite.
    """
    copied = copy.deepcopy(net)
    method = _Relearning(optimizer, every, batch_norm, evaluate)
    cuda = {p.device for p in copied.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        method.note(copied)
        try:
            fit_loss_method(
                copied,
                method,
                loaders=lambda *_: loaders(),
                trainer=lambda _: trainer(steps),
                transform=transform,
                seed=seed,
            )
        except _DivergedError:
            missing = steps // every + 1 - len(method.points)
            method.points += [(np.full_like(method.points[0][0], np.nan), math.nan)] * missing
    right, retain = zip(*method.points, strict=True)
    return Curve(np.arange(0, steps + 1, every), np.stack(right), np.array(retain))


class _DivergedError(Exception):
    pass


class _Relearning(LossMethod):
    def __init__(
        self,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        every: int,
        batch_norm: Literal["train", "frozen"],
        evaluate: Evaluate,
    ) -> None:
        # Their number and their size are the trainer's and the loaders'.
        super().__init__(optimizer=optimizer, epochs=1, batch_size=1, batch_norm=batch_norm)
        self._every = every
        self._evaluate = evaluate
        self._done = 0
        self.points: list[tuple[Floats, float]] = []

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        images, labels = (torch.cat(part) for part in zip(*batch.values(), strict=True))
        loss = F.cross_entropy(net(images), labels)
        if not torch.isfinite(loss):
            raise _DivergedError
        return loss

    def after_step(self, net: nn.Module, optimizer: Optimizer) -> None:  # noqa: ARG002
        self._done += 1
        if self._done % self._every == 0:
            self.note(net)

    def note(self, net: nn.Module) -> None:
        with evaluating(net):
            self.points.append(self._evaluate(net))
