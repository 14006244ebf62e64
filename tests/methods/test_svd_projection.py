"""SVD projection, against the singular value decomposition of numpy."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.svd_projection import SvdProjection, importance, patches_of
from tests.methods.references import assert_same
from tests.methods.toy import LABELS, Toy, convolutional, run


def scaled_projection(columns: np.ndarray, alpha: float) -> np.ndarray:
    """M by its definition, through the singular value decomposition of the activations."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    share = s**2 / (s**2).sum()
    return u @ np.diag(alpha * share / ((alpha - 1) * share + 1)) @ u.T


@given(st.floats(0.1, 1000), st.integers(1, 30), st.integers(0, 10))
def test_importance_is_the_scaled_projection_of_the_svd(alpha: float, count: int, seed: int):
    columns = np.random.default_rng(seed).normal(size=(8, count))
    found = importance(torch.from_numpy(columns @ columns.T)[None], alpha)[0]
    np.testing.assert_allclose(found, scaled_projection(columns, alpha), atol=1e-8)


def test_importance_of_known_subspaces():
    gram = torch.diag(torch.tensor([3.0, 1.0, 0.0]))[None]
    torch.testing.assert_close(importance(gram, 1), gram / 4)
    alone = torch.diag(torch.tensor([0.0, 5.0, 0.0]))[None]
    for alpha in (1.0, 3.0, 100.0):
        torch.testing.assert_close(importance(alone, alpha), alone / 5)
    assert not importance(torch.zeros(1, 3, 3), 3.0).any()


def test_single_forgotten_direction_is_annihilated_and_the_retained_ones_stay():
    """D_f lights up pixel 0 alone, D_r the others, so each direction belongs to one of them."""
    images = torch.randn(40, 1, 1, 6)
    images[LABELS == 2] = 0
    images[LABELS == 2, :, :, 0] = 1 + torch.rand(10, 1, 1)
    images[LABELS != 2, :, :, 0] = 0
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    before = copy.deepcopy(net[1].state_dict())
    run(SvdProjection(samples=40), net, Toy(2, images=images))
    assert net[1].weight[:, 0].abs().max() < 1e-6
    torch.testing.assert_close(net[1].weight[:, 1:], before["weight"][:, 1:])
    assert torch.equal(net[1].bias, before["bias"])


CONVS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=2, padding=(2, 0), dilation=(1, 2), bias=False),
    nn.Conv2d(4, 6, 3, padding="same", groups=2),
    nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular", groups=4),
    nn.Conv2d(4, 5, 1, stride=2),
]


@pytest.mark.parametrize("layer", [*CONVS, nn.Linear(7, 3)], ids=str)
def test_patches_are_what_the_kernels_multiply(layer: nn.Conv2d | nn.Linear):
    inputs = torch.randn(2, 4, 9, 7)
    patches_GDN = patches_of(layer, inputs, per_image=10_000, generator=torch.Generator())
    weight_GOD = layer.weight.reshape(len(patches_GDN), -1, patches_GDN.shape[1])
    outputs_ON = (weight_GOD @ patches_GDN).flatten(0, 1)
    if layer.bias is not None:
        outputs_ON = outputs_ON + layer.bias[:, None]
    expected = layer(inputs)
    if isinstance(layer, nn.Linear):
        torch.testing.assert_close(outputs_ON.T.reshape(expected.shape), expected)
    else:
        torch.testing.assert_close(outputs_ON, expected.transpose(0, 1).flatten(1))


def test_groups_of_a_convolution_are_projected_each_by_its_own_inputs():
    """Only the second group reads the forgotten direction, so only its kernels lose it."""
    images = torch.randn(40, 2, 1, 1)
    images[LABELS == 2] = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    images[LABELS != 2, 1] = 0
    conv = nn.Conv2d(2, 4, 1, groups=2)
    net = nn.Sequential(conv, nn.Flatten(), nn.Linear(4, 4))
    before = conv.weight.detach().clone()
    run(SvdProjection(samples=40), net, Toy(2, images=images))
    torch.testing.assert_close(conv.weight[:2], before[:2])
    assert conv.weight[2:].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("samples", "patches", "drawn"), [(900, 10_000, 11), (100, 10_000, 100), (20, 10, 1)]
)
def test_no_more_patches_are_drawn_than_asked_for(samples: int, patches: int, drawn: int):
    method = SvdProjection(samples=samples, patches=patches)
    assert method.per_image == drawn
    assert drawn == 1 or samples * drawn <= patches


def test_activations_are_those_of_eval_mode():
    """Between a network that comes in train mode and one in eval mode there is no difference."""
    one, other = convolutional().train(), convolutional().eval()
    for net in (one, other):
        run(SvdProjection(samples=40, alpha_f=30), net, Toy(2))
    assert_same(one, other)


def test_drawn_patches_are_different_positions_of_each_image():
    inputs = torch.arange(200.0).view(2, 1, 10, 10)
    generator = torch.Generator().manual_seed(0)
    drawn = patches_of(nn.Conv2d(1, 1, 1), inputs, per_image=30, generator=generator).flatten()
    assert len(set(drawn.tolist())) == 60
    assert (drawn < 100).sum() == 30


def test_all_layers_are_projected_by_the_original_activations(net: nn.Module):
    context = Toy(1, 3)
    layers = {n: m for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}

    def columns(name: str, images: Tensor) -> np.ndarray:
        layer, seen = layers[name], []
        handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            net(images)
        handle.remove()
        if isinstance(layer, nn.Linear):
            return seen[0].T.double().numpy()
        unfolded = F.unfold(seen[0], layer.kernel_size, padding=layer.padding, stride=layer.stride)
        return unfolded.transpose(0, 1).flatten(1).double().numpy()

    expected = {}
    for name, layer in layers.items():
        m_f = scaled_projection(columns(name, context.of("forget_train")[0]), 5.0)
        m_r = scaled_projection(columns(name, context.of("retain_train")[0]), 20.0)
        p = np.eye(len(m_f)) - (m_f - m_f @ m_r)
        flat = layer.weight.detach().flatten(1).double().numpy()
        expected[name] = torch.from_numpy((flat @ p.T).reshape(layer.weight.shape)).float()
    method = SvdProjection(alpha_r=20, alpha_f=5, samples=100, patches=100 * 64)
    weights = {f"{name}.weight" for name in layers}
    rest = {n: t.clone() for n, t in net.state_dict().items() if n not in weights}
    run(method, net, context)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in rest.items())
    for name, layer in layers.items():
        torch.testing.assert_close(layer.weight.detach(), expected[name], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("wrong", [{"alpha_r": 0}, {"alpha_f": -1}, {"samples": 0}, {"patches": 0}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        SvdProjection(**wrong)
