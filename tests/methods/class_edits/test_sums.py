"""Edits learn to add up: the sum of any of them forgets just their classes."""

import copy
import functools
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.methods.class_edits.sums import _Draws
from orthounlearn.methods.class_transport import ClassTransport
from tests.methods.test_class_transport import OPTIONS
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy

COLOURS = torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(1))
COLOURED = 0.3 * IMAGES + COLOURS[LABELS]
SETS = [s for size in (1, 2, 3) for s in combinations(range(CLASSES), size)]


@functools.cache
def trained() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(net(COLOURED), LABELS).backward()
        optimizer.step()
    return net.eval()


@functools.cache
def edits(*, sum_steps: int, present: tuple[int, ...] = (0, 1, 2, 3)) -> dict[int, list[Tensor]]:
    left = torch.isin(LABELS, torch.tensor(present))
    method = ClassTransport(**OPTIONS | {"sum_steps": sum_steps, "sum_learning_rate": 1e-2})
    method.prepare(trained(), Toy(present[0], images=COLOURED[left], labels=LABELS[left]))
    return method._edits


def predicted(forget: tuple[int, ...], *, sum_steps: int) -> Tensor:
    net = copy.deepcopy(trained())
    chosen = [edits(sum_steps=sum_steps)[label] for label in forget]
    with torch.no_grad():
        for edit in chosen:
            torch._foreach_add_(list(net.parameters()), edit)
        return net(COLOURED).argmax(1)


@pytest.mark.parametrize("forget", SETS)
def test_sum_forgets_its_classes_and_no_others(forget: tuple[int, ...]):
    found = predicted(forget, sum_steps=200)
    gone = torch.isin(LABELS, torch.tensor(forget))
    assert not torch.isin(found[gone], torch.tensor(forget)).any()
    assert torch.equal(found[~gone], LABELS[~gone])


def test_edits_learned_one_by_one_do_not_add_up():
    """Else there would be nothing to learn: an image is taken for another forgotten class."""
    named = 0.0
    for forget in SETS:
        gone = torch.isin(LABELS, torch.tensor(forget))
        found = predicted(forget, sum_steps=0)
        named += torch.isin(found[gone], torch.tensor(forget)).float().mean().item()
    assert named > 0.5


@pytest.mark.parametrize("present", [(1, 2), (3, 0)])
def test_where_no_two_can_be_forgotten_edits_stay_as_they_are(present: tuple[int, int]):
    alone = edits(sum_steps=0, present=present)
    for label, edit in edits(sum_steps=5, present=present).items():
        assert all(map(torch.equal, edit, alone[label]))


def test_edits_of_absent_classes_stay_zero():
    found = edits(sum_steps=5, present=(1, 2, 3))
    assert not any(tensor.any() for tensor in found[0])
    alone = edits(sum_steps=0, present=(1, 2, 3))
    assert not any(torch.equal(found[label][0], alone[label][0]) for label in (1, 2, 3))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=6).filter(any), st.integers(0, 9))
def test_images_are_drawn_from_the_named_classes(counts: list[int], seed: int):
    draws = _Draws(torch.tensor(counts), seed=seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    chosen = draws.some(draws.classes, len(draws.classes))
    assert len(set(chosen)) == len(chosen) >= 1
    assert set(labels[draws.images(chosen, 20)].tolist()) <= set(chosen)


def test_every_image_of_a_class_is_as_likely():
    draws = _Draws(torch.tensor([3, 0, 1]), seed=0)
    counts = torch.bincount(draws.images([0, 2], 6000), minlength=4) / 6000
    torch.testing.assert_close(counts, torch.tensor([1, 1, 1, 3]) / 6, atol=0.03, rtol=0)
