"""A network that never saw a class: what it is, and what is read off it."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.masking.transport import LinearMap
from orthounlearn.methods.class_edits.held_out import (
    HeldOut,
    _drawn_anew,
    _targets,
    _trained_without,
    hold_out,
)
from orthounlearn.methods.class_edits.inputs import Place, Recipe, Seen, look, whole_pass
from tests.methods.test_class_transport import SHIFTED, trained
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy

RECIPE = Recipe(
    feature_weight=0.5, retain_weight=4.0, critic_weight=0.3, held_out_steps=200, steps=40,
    batch_size=16, learning_rate=1e-2, sum_steps=0, sum_learning_rate=1e-3,
)  # fmt: skip
CLASS = 2


def seen_by(net: nn.Module, images: Tensor = SHIFTED, labels: Tensor = LABELS) -> tuple[Seen, Toy]:
    context = Toy(CLASS, images=images, labels=labels)
    return look(net, context, whole(net), max_images=400), context


def whole(net: nn.Module) -> Place:
    return Place.after(net, IMAGES, 0.0)


def of_class(net: nn.Module, images: Tensor = SHIFTED) -> HeldOut:
    seen, context = seen_by(net, images)
    return hold_out(net, context, whole(net), seen, RECIPE, CLASS)


def without_class(images: Tensor = SHIFTED) -> nn.Module:
    net = trained()
    seen, context = seen_by(net, images)
    others = torch.nonzero(seen.labels_N != CLASS)[:, 0]
    draws = torch.Generator().manual_seed(0)
    return _trained_without(net, context, whole(net), seen, RECIPE, CLASS, others, draws)


def test_it_knows_the_others_and_not_the_class():
    found = without_class()(SHIFTED).argmax(1)
    assert (found[LABELS != CLASS] == LABELS[LABELS != CLASS]).float().mean() > 0.9
    assert not (found == CLASS).any()


def test_it_never_reads_an_image_of_the_class():
    spoilt = SHIFTED.clone()
    spoilt[LABELS == CLASS] = 1e3
    for one, other in zip(
        without_class().parameters(), without_class(spoilt).parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_it_shares_nothing_of_the_place_with_the_original():
    net = trained()
    for name, drawn in _drawn_anew(net, whole(net), seed=0).named_parameters():
        # What PyTorch always starts with is the same: scales of 1 and shifts of 0 of BatchNorm.
        assert not torch.equal(drawn, net.get_parameter(name)) or drawn.unique().numel() == 1


def test_what_lies_before_the_place_is_the_originals():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip
    net(IMAGES)  # BatchNorms measure
    drawn = _drawn_anew(net.eval(), Place.after(net, IMAGES, 0.5), seed=0)
    before, after = net.state_dict(), drawn.state_dict()
    anew = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert anew == {"3", "4", "8"}
    measures = [module.training for module in drawn if isinstance(module, nn.BatchNorm2d)]
    assert measures == [False, True]
    assert not after["4.running_mean"].any()
    assert before["4.running_mean"].any()


def test_random_numbers_are_left_as_they_were():
    net = trained()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    of_class(net)
    assert torch.equal(torch.rand(3), expected)


class Scaled(nn.Module):
    """A layer with parameters and no way to draw them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((4, 6), 5.0))
        self.shift = nn.Parameter(torch.full((4,), 5.0))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.shift)


def test_layers_of_a_users_own_are_drawn_anew_too():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Scaled())
    drawn = _drawn_anew(net, whole(net), seed=0)[3]
    assert (drawn.weight != 5).all()
    assert (drawn.shift == 5).all()


class Whole(nn.Module):
    """A network that draws all of its layers anew, and holds a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.head = nn.Parameter(torch.randn(6, CLASSES))

    def reset_parameters(self) -> None:
        self.first.reset_parameters()
        self.second.reset_parameters()
        nn.init.normal_(self.head)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).relu()).relu().mean((2, 3)) @ self.head


def test_a_network_that_draws_all_of_itself_keeps_what_lies_before_the_place():
    torch.manual_seed(5)
    net = Whole()
    drawn = _drawn_anew(net, Place.after(net, IMAGES, 0.5), seed=0)
    assert torch.equal(drawn.first.weight, net.first.weight)
    assert not torch.equal(drawn.second.weight, net.second.weight)
    assert not torch.equal(drawn.head, net.head)


def test_same_seed_same_view():
    one, other = of_class(trained()), of_class(trained())
    assert torch.equal(one.beliefs_MK, other.beliefs_MK)
    assert all(torch.equal(one.features[name], other.features[name]) for name in one.features)


def test_view_names_every_class_but_the_one_held_out():
    view = of_class(trained())
    assert view.beliefs_MK.shape == (10, CLASSES)
    assert not view.beliefs_MK[:, CLASS].any()
    torch.testing.assert_close(view.beliefs_MK.sum(1), torch.ones(10))


def test_features_are_translated_by_a_map_of_the_other_classes():
    net = trained()
    seen, context = seen_by(net)
    ours, others = (torch.nonzero((seen.labels_N == CLASS) == own)[:, 0] for own in (True, False))
    draws = torch.Generator().manual_seed(CLASS)  # seed 0 of the request, and the class
    blind = _trained_without(net, context, whole(net), seen, RECIPE, CLASS, others, draws)
    _, theirs = whole_pass(
        blind, context, seen.inputs, torch.arange(len(seen.inputs)), whole(net).layers
    )
    for layer, found in of_class(net).features.items():
        translate = LinearMap.fit(theirs[layer][others], seen.features[layer][others])
        torch.testing.assert_close(found, translate(theirs[layer][ours]), atol=1e-4, rtol=1e-4)


def test_class_is_recognised_less_than_one_that_was_learned():
    """In the last layer, of a class that looks like another one."""
    alike = SHIFTED.clone()
    alike[LABELS == CLASS] = SHIFTED[LABELS == 1] + 0.3 * IMAGES[LABELS == CLASS]
    net = copy.deepcopy(trained())
    last = whole(net).layers[-1]
    assert of_class(net, alike).recognition[last] < of_class(net).recognition[last]


@pytest.mark.parametrize("doubt", [0.1, 0.3])
def test_targets_are_as_sure_as_the_original(doubt: float):
    """Labels of the present classes, smoothed as those that the original was trained on."""
    labels = torch.arange(40) % 4
    probabilities = torch.full((40, 5), doubt / 3)
    probabilities[torch.arange(40), labels] = 1 - doubt
    probabilities[:, 4] = 1e-9  # absent
    probabilities[0] = torch.tensor([0.01, 0.97, 0.01, 0.01, 1e-9])  # taken for another class
    seen = Seen(torch.empty(0), labels, probabilities.log(), {}, {})
    others = torch.nonzero(labels != 1)[:, 0]
    own = probabilities[4, 0] / (1 - doubt / 3)  # renormalised without the class held out
    targets = _targets(seen, 1, others)
    torch.testing.assert_close(targets[0, 0], own)
    torch.testing.assert_close(targets[0, [2, 3]], ((1 - own) / 2).expand(2))
    assert not targets[:, [1, 4]].any()
    torch.testing.assert_close(targets[[0, 2, 3]].sum(1), torch.ones(3))


def test_of_two_classes_the_other_is_certain():
    labels = torch.arange(10) % 2
    seen = Seen(torch.empty(0), labels, torch.zeros(10, 2), {}, {})
    assert _targets(seen, 0, torch.nonzero(labels)[:, 0])[1].tolist() == [0, 1]
