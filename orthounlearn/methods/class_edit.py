"""Learning the edit of one class: a short distillation towards a network that does not know it."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from orthounlearn.masking.transport import Moments, beliefs_without, class_moments, transported
from orthounlearn.methods.base import Context, SplitName
from orthounlearn.methods.critics import Critics
from orthounlearn.methods.layers import evaluating
from orthounlearn.models.blocks import block_outputs, parameters_after

_PASS = 500  # images per pass without gradients: memory and speed, not the result
GRADIENT_NORM = 5.0  # of a step; the first ones, far from the targets, would throw the net off


@dataclass(frozen=True)
class Recipe:
    """How an edit is learned; see `methods.class_transport.ClassTransport` for the symbols.

    Attributes:
        temperature: Of the beliefs that choose the destination.
        overshoot: a.
        feature_weight: λ.
        retain_weight: ρ.
        critic_weight: κ.
        steps: Of the optimiser.
        batch_size: Images of the class, and as many others, in a step.
        learning_rate: The highest of the cycle.
        sum_steps: In which the edits learn to add up (`methods.edit_sums`).
        sum_learning_rate: The highest of their cycle.
    """

    temperature: float
    overshoot: float
    feature_weight: float
    retain_weight: float
    critic_weight: float
    steps: int
    batch_size: int
    learning_rate: float
    sum_steps: int
    sum_learning_rate: float


@dataclass(frozen=True)
class Place:
    """Where a network is edited.

    Attributes:
        cut: The last block that stays as it is; None: all are edited.
        layers: The blocks after it.
        names: The parameters after it.
    """

    cut: str | None
    layers: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def after(cls, net: nn.Module, example: Tensor, share: float) -> "Place":
        """Return the place after a share of the blocks, in [0, 1)."""
        blocks = block_outputs(net, example)
        untouched = int(share * len(blocks))
        if not untouched:
            return cls(None, blocks, tuple(name for name, _ in net.named_parameters()))
        cut = blocks[untouched - 1]
        return cls(cut, blocks[untouched:], parameters_after(net, example, cut))

    @property
    def watched(self) -> tuple[str, ...]:
        """The layers that critics look at."""
        return self.layers if self.cut is None else (self.cut, *self.layers)


@dataclass(frozen=True)
class Seen:
    """What the original network makes of the images to learn from, in the order of the classes.

    Attributes:
        images_N: float16 (N, C, H, W).
        labels_N: int64 (N,).
        logits_NK: (N, K).
        features: Watched layer -> pooled output (N, C).
        moments: Watched layer -> its moments.
    """

    images_N: Tensor
    labels_N: Tensor
    logits_NK: Tensor
    features: dict[str, Tensor]
    moments: dict[str, Moments]

    @property
    def absent(self) -> list[int]:
        """Classes without images: earlier requests have deleted them."""
        counts_K = torch.bincount(self.labels_N, minlength=self.logits_NK.shape[1])
        return [int(label) for label in torch.nonzero(counts_K == 0)]


def look(net: nn.Module, context: Context, place: Place, *, max_images: int) -> Seen:
    """Run the original network over the images to learn from.

    Args:
        net: The original.
        context: Whose prepared sets are read.
        place: Whose watched layers are kept.
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
    images_N, labels_N = torch.cat(images)[by_class], labels_N[by_class]
    logits_NK, whole = whole_pass(net, context, images_N, place.watched)
    moments = {
        layer: class_moments(values_NC, labels_N, context.num_classes)
        for layer, values_NC in whole.items()
    }
    return Seen(images_N, labels_N, logits_NK, whole, moments)


@torch.no_grad()
def whole_pass(
    net: nn.Module, context: Context, images_N: Tensor, layers: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits (N, K) of all images, and layer -> pooled output (N, C)."""
    logits: list[Tensor] = []
    features: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with evaluating(net), reading(net, layers) as read:
        for batch in torch.split(images_N, _PASS):
            with context.autocast():
                logits.append(net(batch.float()).float())
            for layer in layers:
                features[layer].append(read[layer])
    return torch.cat(logits), {layer: torch.cat(parts) for layer, parts in features.items()}


def learn_edit(
    original: nn.Module, context: Context, place: Place, seen: Seen, recipe: Recipe, label: int
) -> list[Tensor]:
    """Distil the network that does not know a class; return what its parameters differ by.

    All zero for a class without images, and where no other class has any.
    """
    before = {name: original.get_parameter(name).detach() for name in place.names}
    ours = torch.nonzero(seen.labels_N == label)[:, 0]
    others = torch.nonzero(seen.labels_N != label)[:, 0]
    if not len(ours) or not len(others):
        return [torch.zeros_like(tensor) for tensor in before.values()]
    net = copy.deepcopy(original).eval()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in before)
    edited = [net.get_parameter(name) for name in place.names]
    optimizer = torch.optim.AdamW(edited, lr=recipe.learning_rate, weight_decay=0.0, foreach=True)
    schedule = OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps + 1, pct_start=0.2
    )
    loss = _Loss(place, seen, recipe, label, ours)
    draws = torch.Generator().manual_seed(context.seed * 1_000_003 + label)
    with reading(net, place.watched) as read:
        for _ in range(recipe.steps):
            chosen_B = torch.cat([_draw(part, recipe.batch_size, draws) for part in (ours, others)])
            with context.autocast():
                logits_BK = net(seen.images_N[chosen_B].float())
            optimizer.zero_grad()
            torch.autograd.backward(loss(logits_BK.float(), read, chosen_B))
            nn.utils.clip_grad_norm_(edited, GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            loss.follow(read, chosen_B)
    return [now.detach() - then for now, then in zip(edited, before.values(), strict=True)]


class _Loss:
    """The loss of a step on images of the class, which come first, and as many others."""

    def __init__(self, place: Place, seen: Seen, recipe: Recipe, label: int, ours: Tensor) -> None:
        self._place, self._seen, self._recipe, self._label = place, seen, recipe, label
        gone = [label, *seen.absent]
        self._beliefs_NK = seen.logits_NK.softmax(1)
        self._beliefs_NK[ours] = beliefs_without(seen.logits_NK[ours], gone)
        nearest_NK = beliefs_without(seen.logits_NK[ours], gone, temperature=recipe.temperature)
        self._wanted = {layer: seen.features[layer].clone() for layer in place.layers}
        for layer, wanted_NC in self._wanted.items():
            wanted_NC[ours] = transported(
                wanted_NC[ours],
                seen.moments[layer],
                label=label,
                beliefs_NK=nearest_NK,
                overshoot=recipe.overshoot,
            )
        num_classes = seen.logits_NK.shape[1]
        self._critics = Critics(seen.features, num_classes)
        # Half of a batch is of the class, but to a critic all classes are equal.
        self._weights_B = seen.logits_NK.new_ones(2 * recipe.batch_size)
        self._weights_B[: recipe.batch_size] = 1 / (num_classes - len(seen.absent) - 1)

    def __call__(self, logits_BK: Tensor, read: Mapping[str, Tensor], chosen_B: Tensor) -> Tensor:
        """Return the scalar loss."""
        recipe = self._recipe
        loss = divergence(logits_BK, self._beliefs_NK[chosen_B])
        of_class = {layer: values_BC[: recipe.batch_size] for layer, values_BC in read.items()}
        recognition = self._critics.recognition(of_class, self._label)
        allowed = recognition[self._place.cut].detach() if self._place.cut else loss.new_zeros(())
        for layer, wanted_NC in self._wanted.items():
            ours, others = distances(read[layer], wanted_NC[chosen_B], self._seen.moments[layer])
            removed = recipe.feature_weight * ours + recipe.critic_weight * recognition[layer]
            loss = loss + (recognition[layer].detach() > allowed) * removed
            loss = loss + recipe.feature_weight * recipe.retain_weight * others
        return loss

    def follow(self, read: Mapping[str, Tensor], chosen_B: Tensor) -> None:
        """Let the critics learn what the network now computes."""
        self._critics.learn(read, self._seen.labels_N[chosen_B], self._weights_B)


def divergence(logits_BK: Tensor, beliefs_BK: Tensor) -> Tensor:
    """Return KL(beliefs ‖ softmax of the logits), summed over both halves' means."""
    summed = F.kl_div(F.log_softmax(logits_BK, 1), beliefs_BK, reduction="sum")
    return 2 * summed / len(logits_BK)


def distances(read_BC: Tensor, wanted_BC: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """Return the mean squared distance, in standard deviations, of the first half and the other."""
    ours_HC, others_HC = ((read_BC - wanted_BC) / moments.deviation_C).square().chunk(2)
    return ours_HC.mean(), others_HC.mean()


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


def _draw(part: Tensor, count: int, draws: torch.Generator) -> Tensor:
    return part[torch.randint(len(part), (count,), generator=draws)]


def _within(room_K: Tensor, labels_B: Tensor) -> Tensor:
    """Return which images still have room in their class, and take it up."""
    one_hot_BK = F.one_hot(labels_B, len(room_K))
    earlier_B = (one_hot_BK.cumsum(0) * one_hot_BK).sum(1)  # 1 for the first of a class
    taken_B = earlier_B <= room_K[labels_B]
    room_K -= one_hot_BK[taken_B].sum(0)
    return taken_B
