"""Penalties: sums over layers, weights, schedules, choice of layers."""

import pytest
import torch
from torch import nn

from orthounlearn.config.build import build
from orthounlearn.errors import UsageError
from orthounlearn.models import resnet, vgg
from orthounlearn.orthogonality import functional, penalties
from orthounlearn.orthogonality.layers import select_convolutions
from orthounlearn.orthogonality.penalties import Penalty, SoftOrthogonality

PENALTIES = {
    penalties.SoftOrthogonality: functional.gram_error,
    penalties.DoubleSoftOrthogonality: functional.double_gram_error,
    penalties.MutualCoherence: functional.mutual_coherence,
}


def test_every_penalty_has_a_formula_here():
    others = {penalties.SpectralRestrictedIsometry, penalties.ConvolutionOrthogonality}
    assert {*PENALTIES, *others} == set(Penalty.__subclasses__())


@pytest.mark.parametrize(("kind", "formula"), PENALTIES.items())
def test_penalty_is_the_weighted_sum_over_layers(kind: type[Penalty], formula):
    net = vgg(depth=11, num_classes=3, width=8)
    penalty = kind(weight=0.5)
    expected = 0.5 * sum(formula(weight) for weight in penalty.kernels(net).values())
    torch.testing.assert_close(penalty(net), expected)


def test_convolution_orthogonality_uses_each_layers_stride():
    net = resnet(depth=18, num_classes=3, width=4)
    penalty = penalties.ConvolutionOrthogonality(weight=1.0)
    convs = penalty.convolutions(net).values()
    assert {conv.stride[0] for conv in convs} == {1, 2}
    expected = sum(
        functional.self_convolution_error(conv.weight, stride=conv.stride[0]) for conv in convs
    )
    torch.testing.assert_close(penalty(net), expected)


def test_srip_is_the_sum_of_its_layers():
    net = vgg(depth=11, num_classes=3, width=8)
    penalty = penalties.SpectralRestrictedIsometry(weight=1.0)
    torch.manual_seed(3)
    found = penalty(net)
    torch.manual_seed(3)
    expected = sum(
        functional.spectral_restricted_isometry(w) for w in penalty.kernels(net).values()
    )
    torch.testing.assert_close(found, expected)


def test_mixed_precision_does_not_reach_the_gram_matrix():
    net = resnet(depth=20, num_classes=3, width=4)
    penalty = SoftOrthogonality(weight=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = penalty(net)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, penalty(net))


def test_schedule_changes_at_its_shares():
    penalty = SoftOrthogonality(weight=2.0, schedule=[[0, 1], [0.25, 0.5], [0.75, 0]])
    assert [penalty.scale(p) for p in (0, 0.2, 0.25, 0.7, 0.75, 1)] == [2, 2, 1, 1, 0, 0]
    assert penalty(resnet(depth=20, num_classes=2, width=2), 0.9).item() == 0


@pytest.mark.parametrize(
    "schedule", [[], [[0.1, 1]], [[0, 1], [0.5, 1], [0.4, 0]], [[0, 1], [0, 2]]]
)
def test_bad_schedules_are_refused(schedule):
    with pytest.raises(UsageError, match="schedule"):
        SoftOrthogonality(weight=1.0, schedule=schedule)


def test_lazy_evaluation_has_the_same_sum_over_steps():
    net = resnet(depth=20, num_classes=3, image_size=8, width=4)
    plain, lazy = SoftOrthogonality(weight=0.5), SoftOrthogonality(weight=0.5, every=4)
    steps = [lazy(net, step=step).item() for step in range(8)]
    assert [value > 0 for value in steps] == [True, False, False, False] * 2
    assert sum(steps) == pytest.approx(8 * plain(net).item())
    with pytest.raises(UsageError, match="every"):
        SoftOrthogonality(weight=1, every=0)


def test_negative_weight_is_refused():
    with pytest.raises(UsageError, match="weight"):
        SoftOrthogonality(weight=-1.0)


def test_layers_by_kind_and_by_name():
    net = resnet(depth=18, num_classes=3, width=4)
    convolutions = {n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert select_convolutions(net, "all").keys() == convolutions
    spatial = {n for n in convolutions if "downsample" not in n} - {"stem.0"}
    assert select_convolutions(net, "spatial").keys() == spatial
    assert select_convolutions(net, ["blocks.0.*", "stem.0"]).keys() == {
        "stem.0", "blocks.0.conv1", "blocks.0.conv2",
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"blocks\.0\.conv1"):
        select_convolutions(net, "no.such.layer")


def test_depthwise_kernels_are_left_out():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3))
    assert list(select_convolutions(net, "spatial")) == ["2"]


def test_minimising_a_penalty_makes_kernels_orthogonal():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3))
    penalty = build(
        {"_target_": "orthounlearn.orthogonality.penalties.SoftOrthogonality", "weight": 1.0},
        Penalty,
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        penalty(net).backward()
        optimizer.step()
    assert functional.gram_error(net[1].weight).item() < 1e-6
    assert functional.mean_absolute_cosine(net[1].weight).item() < 1e-3
