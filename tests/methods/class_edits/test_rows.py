"""The row of a forgotten class: gone from the classifier, a constant for every image."""

import copy
import functools

import pytest
import torch
from torch import Tensor, nn

from orthounlearn.methods.class_edits.inputs import Edits, Place, Seen, look
from orthounlearn.methods.class_edits.rows import delete_rows
from tests.methods.test_class_transport import SHIFTED, carried_out, trained
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy


@functools.cache
def seen() -> tuple[Place, Seen]:
    net = trained()
    place = Place.after(net, IMAGES, 0.0)
    return place, look(net, Toy(0, images=SHIFTED), place, max_images=40)


def random_edits(net: nn.Module, place: Place) -> Edits:
    draws = torch.Generator().manual_seed(3)
    shapes = [net.get_parameter(name).shape for name in place.names]
    return {
        label: [0.01 * torch.randn(shape, generator=draws) for shape in shapes]
        for label in range(CLASSES)
    }


@torch.no_grad()
def logits_after(net: nn.Module, place: Place, edits: list[list[Tensor]]) -> Tensor:
    net = copy.deepcopy(net)
    parameters = [net.get_parameter(name) for name in place.names]
    for edit in edits:
        torch._foreach_add_(parameters, edit)
    return net(SHIFTED)


@pytest.mark.parametrize("label", range(CLASSES))
def test_its_logit_is_three_deviations_below_the_mean_of_the_others(label: int):
    net, (place, inputs) = trained(), seen()
    edits = delete_rows(net, IMAGES, place, inputs, random_edits(net, place))
    with torch.no_grad():
        others = net(SHIFTED)[label != LABELS, label]
    found_N = logits_after(net, place, [edits[label]])[:, label]
    wanted = others.mean() - 3 * others.std(correction=0)
    # Images are kept in half precision.
    torch.testing.assert_close(found_N, wanted.expand_as(found_N), rtol=1e-4, atol=1e-3)


def test_all_but_its_own_row_is_as_it_was_learned():
    net, (place, inputs) = trained(), seen()
    before = random_edits(net, place)
    given = copy.deepcopy(before)
    after = delete_rows(net, IMAGES, place, inputs, given)
    for label, edit in after.items():
        for old, kept, new in zip(before[label], given[label], edit, strict=True):
            assert torch.equal(old, kept)  # what came in is left alone
            rows = [n for n in range(len(new)) if not torch.equal(new[n], old[n])]
            assert rows in ([], [label])
    changed = [not torch.equal(a, b) for a, b in zip(after[0], before[0], strict=True)]
    assert sum(changed) == 2  # the weight and the bias of the classifier


def test_a_class_without_images_keeps_its_row():
    net, place = trained(), seen()[0]
    left = LABELS != 1
    inputs = look(net, Toy(0, images=SHIFTED[left], labels=LABELS[left]), place, max_images=40)
    before = random_edits(net, place)
    after = delete_rows(net, IMAGES, place, inputs, before)
    assert all(map(torch.equal, after[1], before[1]))
    assert not all(map(torch.equal, after[2], before[2]))


class Scaled(nn.Module):
    """A network whose logits do not come straight out of its classifier."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return 2 * self.net(images)


def test_where_logits_are_computed_further_the_edit_stays_as_it_is():
    net = Scaled(trained())
    place = Place.after(net, IMAGES, 0.0)
    inputs = look(net, Toy(0, images=SHIFTED), place, max_images=40)
    before = random_edits(net, place)
    after = delete_rows(net, IMAGES, place, inputs, before)
    assert all(all(map(torch.equal, after[label], before[label])) for label in range(CLASSES))


def test_nothing_of_a_forgotten_class_is_left_in_its_row():
    net = carried_out(trained(), 2)
    with torch.no_grad():
        assert net(SHIFTED)[:, 2].std() < 1e-5
