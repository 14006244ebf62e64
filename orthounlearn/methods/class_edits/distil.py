"""Learning the edit of one class: a short distillation towards a network that never saw it."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.masking.transport import Moments
from orthounlearn.methods.base import Context
from orthounlearn.methods.class_edits.critics import Critics
from orthounlearn.methods.class_edits.descent import Descent
from orthounlearn.methods.class_edits.held_out import HeldOut, hold_out
from orthounlearn.methods.class_edits.inputs import Place, Recipe, Seen, draw, one_cycle, reading

GRADIENT_NORM = 5.0  # of a step; the first ones, far from the targets, would throw the net off


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
    held_out = hold_out(original, context, place, seen, recipe, label)
    net = copy.deepcopy(original).eval()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in before)
    edited = [net.get_parameter(name) for name in place.names]
    cycle = one_cycle(edited, recipe, recipe.steps)
    descent = Descent(context, edited, *cycle, longest=GRADIENT_NORM)
    loss = _Loss(place, seen, recipe, label, ours, held_out)
    draws = torch.Generator().manual_seed(context.seed * 1_000_003 + label)
    with reading(net, place.layers) as read:
        for _ in range(recipe.steps):
            chosen_B = torch.cat([draw(part, recipe.batch_size, draws) for part in (ours, others)])
            logits_BK = seen.inputs.forward(net, context, chosen_B)
            descent.step(loss(logits_BK, read, chosen_B))
            loss.follow(read, chosen_B)
    return [now.detach() - then for now, then in zip(edited, before.values(), strict=True)]


class _Loss:
    """The loss of a step on images of the class, which come first, and as many others."""

    def __init__(
        self,
        place: Place,
        seen: Seen,
        recipe: Recipe,
        label: int,
        ours: Tensor,
        held_out: HeldOut,
    ) -> None:
        self._seen, self._recipe, self._label = seen, recipe, label
        self._allowed = held_out.recognition
        self._beliefs_NK = seen.logits_NK.softmax(1)
        self._beliefs_NK[ours] = held_out.beliefs_MK
        self._wanted = {layer: seen.features[layer].clone() for layer in place.layers}
        for layer, wanted_NC in self._wanted.items():
            wanted_NC[ours] = held_out.features[layer]
        self._critics = Critics(seen.features, seen.logits_NK.shape[1])
        self._weights_B = seen.weights(recipe.batch_size)

    def __call__(self, logits_BK: Tensor, read: Mapping[str, Tensor], chosen_B: Tensor) -> Tensor:
        """Return the scalar loss."""
        recipe = self._recipe
        loss = divergence(logits_BK, self._beliefs_NK[chosen_B])
        of_class = {layer: values_BC[: recipe.batch_size] for layer, values_BC in read.items()}
        recognition = self._critics.recognition(of_class, self._label)
        for layer, wanted_NC in self._wanted.items():
            ours, others = distances(read[layer], wanted_NC[chosen_B], self._seen.moments[layer])
            loss = loss + recipe.feature_weight * (ours + recipe.retain_weight * others)
            too_sure = recognition[layer].detach() > self._allowed[layer]
            loss = loss + too_sure * recipe.critic_weight * recognition[layer]
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
