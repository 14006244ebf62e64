"""SalUn: its saliency in closed form, its mask, and that nothing moves outside of it."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.random_label import RandomLabel
from orthounlearn.methods.salun import SalUn, largest, summed_gradients
from tests.methods.references import assert_same
from tests.methods.toy import IMAGES, LABELS, OPTIONS, SGD, Toy, convolutional, linear, trained


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_saliency_is_the_sum_of_the_gradients_of_all_images(batch_size: int):
    """Closed form of a linear softmax model: Σ (p − e_y) xᵀ."""
    net = linear().train()
    parameters = list(net.parameters())
    batches = Toy(0, 2).batches("forget_train", batch_size=batch_size)
    weight, bias = summed_gradients(net, parameters, batches)
    chosen = LABELS % 2 == 0
    pixels = IMAGES[chosen].flatten(1)
    errors = net(IMAGES[chosen]).detach().softmax(1) - F.one_hot(LABELS[chosen], 4)
    torch.testing.assert_close(weight, errors.T @ pixels, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bias, errors.sum(0), atol=1e-4, rtol=1e-4)
    assert all(p.grad is None for p in parameters)
    assert net.training


def test_saliency_is_that_of_eval_mode():
    one, other = convolutional().train(), convolutional().eval()
    before = copy.deepcopy(one.state_dict())
    found = [
        summed_gradients(net, list(net.parameters()), Toy(1).batches("forget_train", batch_size=8))
        for net in (one, other)
    ]
    for in_train, in_eval in zip(*found, strict=True):
        assert torch.equal(in_train, in_eval)
    assert all(torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())
    assert all(module.training for module in one.modules())


def test_largest_entries_are_ranked_over_all_tensors():
    masks = largest([torch.tensor([[0.1, -9.0], [8.0, 0.2]]), torch.tensor([0.3, -7.0])], share=0.5)
    assert masks[0].tolist() == [[False, True], [True, False]]
    assert masks[1].tolist() == [False, True]


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), share=st.floats(0.01, 1))
def test_mask_has_exactly_its_share_of_ones(sizes: list[int], share: float):
    masks = largest([torch.zeros(size) for size in sizes], share=share)
    assert sum(int(mask.sum()) for mask in masks) == round(share * sum(sizes))


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.Adam, lr=0.1, weight_decay=0.01)])
def test_salun_moves_nothing_outside_the_mask(optimizer):
    net = convolutional()
    optimizers = []
    options = OPTIONS | {"optimizer": lambda p: optimizers.append(optimizer(p)) or optimizers[0]}
    after = trained(SalUn(**options, share=0.5), net, 1)
    saliencies = summed_gradients(
        net, list(net.parameters()), Toy(1).batches("forget_train", batch_size=8)
    )
    threshold = torch.cat([s.abs().flatten() for s in saliencies]).median()
    moved = total = 0
    pairs = zip(net.parameters(), after.parameters(), saliencies, strict=True)
    for before, now, saliency in pairs:
        outside = saliency.abs() <= threshold
        assert torch.equal(before[outside], now[outside])
        moved += int((before != now).sum())
        total += before.numel()
        for moment in optimizers[0].state[now].values():
            if moment.shape == now.shape:
                assert not moment[outside].any()
                assert moment[~outside].any() == (~outside).any()
    assert moved == total // 2


def test_salun_with_all_weights_is_random_label():
    net = convolutional()
    assert_same(trained(SalUn(**OPTIONS, share=1.0), net, 1),
                trained(RandomLabel(**OPTIONS), net, 1))  # fmt: skip


@pytest.mark.parametrize("wrong", [{"share": 0.0}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        SalUn(**OPTIONS, **wrong)
