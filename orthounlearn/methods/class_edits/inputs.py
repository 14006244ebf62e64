"""What edits are learned from: recipe, place in the network, images and the original's view."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from orthounlearn.masking.transport import Moments, class_moments
from orthounlearn.methods.base import Context, SplitName
from orthounlearn.methods.class_edits.front import Inputs, can_replay, recording
from orthounlearn.methods.layers import evaluating
from orthounlearn.models.blocks import block_outputs, parameters_after

Edits = dict[int, list[Tensor]]
"""Class -> what the parameters of the place differ by."""

_PASS = 500  # images per pass without gradients: memory and speed, not the result


@dataclass(frozen=True)
class Recipe:
    """How an edit is learned; see `methods.class_transport.ClassTransport` for the symbols.

    Attributes:
        feature_weight: λ.
        retain_weight: ρ.
        critic_weight: κ.
        held_out_steps: Of the network that never sees the class (`methods.class_edits.held_out`).
        steps: Of the edit.
        batch_size: Images of the class, and as many others, in a step.
        learning_rate: The highest of both cycles.
        sum_steps: In which the edits learn to add up (`methods.class_edits.sums`).
        sum_learning_rate: The highest of their cycle.
    """

    feature_weight: float
    retain_weight: float
    critic_weight: float
    held_out_steps: int
    steps: int
    batch_size: int
    learning_rate: float
    sum_steps: int
    sum_learning_rate: float


@dataclass(frozen=True)
class Place:
    """Where a network is edited.

    Attributes:
        layers: The blocks after it.
        names: The parameters after it.
        before: The last block before it; None where nothing lies before.
    """

    layers: tuple[str, ...]
    names: tuple[str, ...]
    before: str | None = None

    @classmethod
    def after(cls, net: nn.Module, example: Tensor, share: float) -> "Place":
        """Return the place after a share of the blocks, in [0, 1)."""
        blocks = block_outputs(net, example)
        untouched = int(share * len(blocks))
        if not untouched:
            return cls(blocks, tuple(name for name, _ in net.named_parameters()))
        cut = blocks[untouched - 1]
        return cls(blocks[untouched:], parameters_after(net, example, cut), cut)


@dataclass(frozen=True)
class Seen:
    """What the original network makes of the images to learn from, in the order of the classes.

    Attributes:
        inputs: What the place reads of each.
        labels_N: int64 (N,).
        logits_NK: (N, K).
        features: Layer of the place -> pooled output (N, C).
        moments: Layer -> its moments.
    """

    inputs: Inputs
    labels_N: Tensor
    logits_NK: Tensor
    features: dict[str, Tensor]
    moments: dict[str, Moments]

    @property
    def absent(self) -> list[int]:
        """Classes without images: earlier requests have deleted them."""
        counts_K = torch.bincount(self.labels_N, minlength=self.logits_NK.shape[1])
        return [int(label) for label in torch.nonzero(counts_K == 0)]

    def weights(self, batch_size: int) -> Tensor:
        """Return the weights (2 B,) of a step's images to critics: all classes are equal to them.

        Half of a step's images are of the class that is forgotten, and come first.
        """
        others = self.logits_NK.shape[1] - len(self.absent) - 1
        weights_B = self.logits_NK.new_ones(2 * batch_size)
        weights_B[:batch_size] = 1 / others
        return weights_B


def look(net: nn.Module, context: Context, place: Place, *, max_images: int) -> Seen:
    """Run the original network over the images to learn from.

    Args:
        net: The original.
        context: Whose prepared sets are read.
        place: Whose layers are kept.
        max_images: Kept, spread evenly over the classes.
    """
    room_K = torch.full((context.num_classes,), max_images // context.num_classes)
    images, labels = [], []
    splits: tuple[SplitName, ...] = ("forget_train", "retain_train")
    for split in splits:
        for images_B, labels_B in context.batches(split, batch_size=_PASS):
            taken = _within(room_K, labels_B.cpu()).to(labels_B.device)
            images.append(images_B[taken].half())
            labels.append(labels_B[taken])
    labels_N = torch.cat(labels)
    # By class: which of them is asked for decides the order of the sets, but not the edits.
    by_class = torch.argsort(labels_N, stable=True)
    inputs, labels_N = Inputs(torch.cat(images)[by_class]), labels_N[by_class]
    block = place.before if can_replay(net, context, place.before, inputs) else None
    everything = torch.arange(len(labels_N))
    with recording(net, block) as outputs:
        logits_NK, whole = whole_pass(net, context, inputs, everything, place.layers)
    if outputs:
        inputs = Inputs(torch.cat(outputs), block)
    moments = {
        layer: class_moments(values_NC, labels_N, context.num_classes)
        for layer, values_NC in whole.items()
    }
    return Seen(inputs, labels_N, logits_NK, whole, moments)


@torch.no_grad()
def whole_pass(
    net: nn.Module, context: Context, inputs: Inputs, chosen_N: Tensor, layers: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits (N, K) of some images, and layer -> pooled output (N, C)."""
    logits: list[Tensor] = []
    features: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with evaluating(net), reading(net, layers) as read:
        for chosen_B in torch.split(chosen_N, _PASS):
            logits.append(inputs.forward(net, context, chosen_B))
            for layer in layers:
                features[layer].append(read[layer])
    return torch.cat(logits), {layer: torch.cat(parts) for layer, parts in features.items()}


@contextmanager
def reading(net: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that holds the pooled output (B, C) of each layer after every forward pass."""
    read: dict[str, Tensor] = {}
    handles = [
        net.get_submodule(layer).register_forward_hook(
            lambda _, __, output, layer=layer: read.__setitem__(layer, output.float().mean((2, 3)))
        )
        for layer in layers
    ]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def one_cycle(
    parameters: Sequence[Tensor], recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, OneCycleLR]:
    """Return AdamW and its schedule for a short training."""
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, weight_decay=0.0, foreach=True
    )
    schedule = OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps + 1, pct_start=0.2)
    return optimizer, schedule


def draw(part: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """Return `count` numbers of a set of images, each as likely, with replacement."""
    return part[torch.randint(len(part), (count,), generator=draws)]


def _within(room_K: Tensor, labels_B: Tensor) -> Tensor:
    """Return which images still have room in their class, and take it up."""
    one_hot_BK = F.one_hot(labels_B, len(room_K))
    earlier_B = (one_hot_BK.cumsum(0) * one_hot_BK).sum(1)  # 1 for the first of a class
    taken_B = earlier_B <= room_K[labels_B]
    room_K -= one_hot_BK[taken_B].sum(0)
    return taken_B
