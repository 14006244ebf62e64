"""Edits that are made one by one learn to add up: a request may name any classes, in any order."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from orthounlearn.masking.transport import beliefs_without, transported
from orthounlearn.methods.base import Context
from orthounlearn.methods.class_edits.descent import Descent
from orthounlearn.methods.class_edits.distil import GRADIENT_NORM, distances, divergence
from orthounlearn.methods.class_edits.inputs import (
    Edits,
    Place,
    Recipe,
    Seen,
    reading,
    whole_pass,
)

_MEMORY = 0.99  # of the mean squared gradient
_TEMPERATURE = 0.25  # below 1: an image goes to the class that it is most like, not in between


def learn_sums(
    original: nn.Module,
    context: Context,
    place: Place,
    seen: Seen,
    recipe: Recipe,
    edits: Mapping[int, Sequence[Tensor]],
) -> Edits:
    """Change the edits of all classes so that the sum of any of them forgets just these classes.

    In each step a random set S of classes is forgotten by the sum of their edits. Its images are
    to be seen as the network with the one edit of their own class sees them, and if that takes
    them for another class of S, as `transported` on to what is left; all other images as the
    original sees them. Every edit of S moves along with the network, 1/√|S| as far.

    Source: ours.

    Args:
        original: The network that is edited.
        context: For its seed and precision.
        place: Where.
        seen: What the original makes of the images.
        recipe: `sum_steps` steps, the highest rate `sum_learning_rate`.
        edits: Of each class that has images, by `learn_edit`.

    Returns:
        New edits of the same classes; the same where no two can be forgotten at once.
    """
    counts_K = torch.bincount(seen.labels_N, minlength=seen.logits_NK.shape[1]).cpu()
    draws = _Draws(counts_K, seed=context.seed * 1_000_003 + len(counts_K))
    labels = [label for label in edits if counts_K[label]]
    summed = _Summed(original, place, edits)
    most = min(len(labels), len(draws.classes) - 1)
    if most < 2 or not recipe.sum_steps:
        return summed.edits
    loss = _Loss(place, seen, recipe, *_alone(summed, labels, context, place, seen))
    # Without momentum: one step's gradient says nothing about the edits of the next one's set.
    optimizer = torch.optim.Adam(
        summed.parameters, lr=recipe.sum_learning_rate, betas=(0.0, _MEMORY), foreach=True
    )
    schedule = OneCycleLR(
        optimizer,
        recipe.sum_learning_rate,
        total_steps=recipe.sum_steps + 1,
        pct_start=0.05,
        cycle_momentum=False,
    )
    descent = Descent(context, summed.parameters, optimizer, schedule, longest=GRADIENT_NORM)
    with reading(summed.net, place.layers) as read:
        for _ in range(recipe.sum_steps):
            chosen = draws.some(labels, most)
            others = [label for label in draws.classes if label not in chosen]
            images_B = torch.cat([draws.images(c, recipe.batch_size) for c in (chosen, others)])
            summed.forget(chosen)
            logits_BK = seen.inputs.forward(summed.net, context, images_B)
            descent.step(loss(logits_BK, read, images_B, chosen))
            summed.learn(chosen)
    return summed.edits


class _Summed:
    """A network whose weights are the original's and the sum of some edits.

    Attributes:
        net: The network.
        parameters: Its edited ones; only they have gradients.
        edits: Class -> edit.
    """

    def __init__(
        self, original: nn.Module, place: Place, edits: Mapping[int, Sequence[Tensor]]
    ) -> None:
        self.net = copy.deepcopy(original).eval().requires_grad_(False)
        self.parameters = [
            self.net.get_parameter(name).requires_grad_(True) for name in place.names
        ]
        self.edits = {label: [tensor.clone() for tensor in edit] for label, edit in edits.items()}
        self._original = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def forget(self, labels: Sequence[int]) -> None:
        """Add the edits of these classes to the original's weights."""
        self._sum = [tensor.clone() for tensor in self._original]
        for label in labels:
            torch._foreach_add_(self._sum, self.edits[label])
        torch._foreach_copy_(self.parameters, self._sum)

    @torch.no_grad()
    def learn(self, labels: Sequence[int]) -> None:
        """Let the edits follow where the parameters have gone since `forget`."""
        moved = [now - then for now, then in zip(self.parameters, self._sum, strict=True)]
        for label in labels:
            torch._foreach_add_(self.edits[label], moved, alpha=len(labels) ** -0.5)


class _Draws:
    """Random classes and images, which lie in the order of the classes.

    Attributes:
        classes: Those that have images.
    """

    def __init__(self, counts_K: Tensor, *, seed: int) -> None:
        self.classes = [int(label) for label in torch.nonzero(counts_K)]
        self._counts_K, self._starts_K = counts_K, counts_K.cumsum(0) - counts_K
        self._generator = torch.Generator().manual_seed(seed)

    def some(self, labels: Sequence[int], most: int) -> list[int]:
        """Return 1 to `most` different labels; each number is as likely."""
        size = int(torch.randint(1, most + 1, (1,), generator=self._generator))
        order = torch.randperm(len(labels), generator=self._generator)
        return [labels[number] for number in order[:size].tolist()]

    def images(self, classes: Sequence[int], count: int) -> Tensor:
        """Return the numbers (count,) of images of some classes; each class is as likely."""
        drawn = torch.randint(len(classes), (count,), generator=self._generator)
        label_B = torch.tensor(classes)[drawn]
        share_B = torch.rand(count, generator=self._generator, dtype=torch.float64)
        return self._starts_K[label_B] + (share_B * self._counts_K[label_B]).long()


def _alone(
    summed: _Summed, labels: Sequence[int], context: Context, place: Place, seen: Seen
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits and features of every image when its own class alone is forgotten."""
    logits_NK = seen.logits_NK.clone()
    features = {layer: seen.features[layer].clone() for layer in place.layers}
    for label in labels:
        own = torch.nonzero(seen.labels_N == label)[:, 0]
        summed.forget([label])
        logits_NK[own], read = whole_pass(summed.net, context, seen.inputs, own, place.layers)
        for layer, values_NC in read.items():
            features[layer][own] = values_NC
    return logits_NK, features


class _Loss:
    """The loss of a step on images of forgotten classes, which come first, and as many others."""

    def __init__(
        self,
        place: Place,
        seen: Seen,
        recipe: Recipe,
        logits_NK: Tensor,
        features: Mapping[str, Tensor],
    ) -> None:
        self._place, self._seen, self._recipe = place, seen, recipe
        self._logits_NK, self._features = logits_NK, features  # under each image's own edit

    def __call__(
        self,
        logits_BK: Tensor,
        read: Mapping[str, Tensor],
        images_B: Tensor,
        chosen: Sequence[int],
    ) -> Tensor:
        """Return the scalar loss."""
        recipe, seen, gone = self._recipe, self._seen, [*chosen, *self._seen.absent]
        ours_B, others_B = images_B.chunk(2)
        own_BK = self._logits_NK[ours_B]
        beliefs_BK = beliefs_without(torch.cat([own_BK, seen.logits_NK[others_B]]), gone)
        loss = divergence(logits_BK, beliefs_BK)
        taken_for_B = own_BK.argmax(1)
        nearest_BK = beliefs_without(own_BK, gone, temperature=_TEMPERATURE)
        for layer in self._place.layers:
            moments = seen.moments[layer]
            wanted_BC = self._features[layer][ours_B]
            for label in chosen:
                hit_B = taken_for_B == label
                wanted_BC[hit_B] = transported(
                    wanted_BC[hit_B],
                    moments,
                    label=label,
                    beliefs_NK=nearest_BK[hit_B],
                )
            wanted_BC = torch.cat([wanted_BC, seen.features[layer][others_B]])
            ours, others = distances(read[layer], wanted_BC, moments)
            loss = loss + recipe.feature_weight * (ours + recipe.retain_weight * others)
        return loss
