"""The random mask; the draws that it shares with the norm-matched mask."""

import pytest
import torch
from torch import Tensor, nn

from orthounlearn.methods.norm_matched_mask import NormMatchedMask
from orthounlearn.methods.random_mask import RandomMask, generator_of
from orthounlearn.methods.soft_prune import SoftPrune
from orthounlearn.models import resnet
from tests.methods.toy import Toy, left_as_found

MASK = {"sites": "convs", "rate": 0.4, "floor": 0.5}


def factors_of(method: SoftPrune, net: nn.Module, context: Toy) -> list[Tensor]:
    with left_as_found(net):
        method.prepare(net, context)
    return method.factors(method._statistics, method._chosen, context.forget)


@pytest.mark.parametrize("forget", [(2,), (0, 1)])
def test_random_mask_has_the_counts_and_strengths_of_soft_pruning(net: nn.Module, forget):
    context = Toy(*forget)
    ours = factors_of(SoftPrune(**MASK), net, context)
    drawn = factors_of(RandomMask(**MASK), net, context)
    for a, b in zip(ours, drawn, strict=True):
        assert torch.equal(a.sort().values, b.sort().values)
    assert any(not torch.equal(a, b) for a, b in zip(ours, drawn, strict=True))


@pytest.mark.parametrize("kind", [RandomMask, NormMatchedMask])
def test_draws_differ_between_seeds_and_requests_only(net: nn.Module, kind: type[SoftPrune]):
    def changed(seed: int, *forget: int) -> list[Tensor]:
        return factors_of(kind(**MASK), net, Toy(*forget, seed=seed))

    def alike(one: list[Tensor], two: list[Tensor]) -> bool:
        return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))

    first = changed(0, 1)
    assert alike(first, changed(0, 1))
    assert not alike(first, changed(1, 1))
    places = [(f < 1).nonzero().flatten().tolist() for f in first]
    assert places != [(f < 1).nonzero().flatten().tolist() for f in changed(0, 2)]


def test_every_seed_and_request_has_a_random_stream_of_its_own():
    requests = [(0, (1,)), (1, (1,)), (0, (2,)), (0, (1, 2)), (0, (2, 1))]
    orders = [tuple(torch.randperm(9, generator=generator_of(*r)).tolist()) for r in requests]
    assert len(set(orders)) == len(requests)


def test_random_mask_ignores_the_score():
    """Over many seeds each channel is attenuated as often as any other."""
    net = resnet(depth=20, num_classes=4, image_size=8, width=4).eval()
    method, context = RandomMask(rate=0.25), Toy(1)
    method.prepare(net, context)
    statistics = method._statistics
    counts = sum(
        (method.factors(statistics, method._chosen, (1,))[0] < 1).float()
        for method._seed in range(200)
    )
    assert (counts - 50).abs().max() < 5 * (200 * 0.25 * 0.75) ** 0.5
