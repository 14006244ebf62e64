"""MSG: which weights it draws anew, and how it damps the others."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.msg import MaskedSmallGradients
from tests.methods.toy import IMAGES, LABELS, OPTIONS, Toy


def convolutions(net: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.weight": module.weight.detach().clone()
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def contrast(net: nn.Module, forget: tuple[int, ...]) -> dict[str, Tensor]:
    """∇(mean CE over the first |D_f| retained − mean CE over D_f), all images in one batch."""
    of_forget = torch.isin(LABELS, torch.tensor(forget))
    chosen = torch.arange(40)[~of_forget][: of_forget.sum()]
    other = copy.deepcopy(net).eval()
    loss = F.cross_entropy(other(IMAGES[chosen]), LABELS[chosen])
    (loss - F.cross_entropy(other(IMAGES[of_forget]), LABELS[of_forget])).backward()
    return {name: other.get_parameter(name).grad for name in convolutions(net)}


@pytest.mark.parametrize("batch_size", [4, 256])
@pytest.mark.parametrize("forget", [(1,), (0, 2)])
def test_msg_draws_the_weights_with_the_smallest_gradients_anew(
    net: nn.Module, forget, batch_size: int
):
    before, state = convolutions(net), {n: t.clone() for n, t in net.state_dict().items()}
    gradients = contrast(net, forget)
    method = MaskedSmallGradients(share=0.3, damping=0.1, **(OPTIONS | {"batch_size": batch_size}))
    net.train()
    started = method.start(net, Toy(*forget))
    assert all(module.training for module in started.modules())
    for name, weight in convolutions(started).items():
        changed = weight != before[name]
        assert changed.sum() == round(0.3 * weight.numel())
        size = gradients[name].abs()
        # up to the rounding of sums in another order
        assert size[changed].max() <= size[~changed].min() * 1.001 + 1e-7
    for name, tensor in started.state_dict().items():
        assert name in before or torch.equal(tensor, state[name])


def test_msg_contrasts_with_retained_images_drawn_at_random(net: nn.Module):
    """The first ones of an ordered data set would all be of one class."""
    asked: dict[str, bool] = {}

    class Watched(Toy):
        def batches(self, split: str, *, batch_size: int, **options: bool):
            asked[split] = options.get("shuffle", False)
            return super().batches(split, batch_size=batch_size)

    MaskedSmallGradients(share=0.3, damping=0.1, **OPTIONS).start(net, Watched(1))
    assert asked["retain_train"]


def test_msg_draws_from_kaimings_normal_distribution():
    net = nn.Sequential(
        nn.Conv2d(3, 512, 3, stride=2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(512, 4),
    )  # fmt: skip
    MaskedSmallGradients(share=1.0, damping=0.1, **OPTIONS).start(net, Toy(1))
    assert net[0].weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.05)


def test_msg_damps_the_gradients_of_the_weights_that_stayed(net: nn.Module):
    before = convolutions(net)
    method = MaskedSmallGradients(share=0.3, damping=0.1, **OPTIONS)
    started = method.start(net, Toy(1))
    plain = copy.deepcopy(started)
    (phase,) = method.phases()
    batch = {"retain_train": (IMAGES, LABELS)}
    assert phase.sets == {"retain_train": ("retain_train",)}
    loss, expected = (
        phase.loss(started.train(), batch),
        FineTune(**OPTIONS).loss(plain.train(), batch),
    )
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    for name, parameter in started.named_parameters():
        gradient = plain.get_parameter(name).grad
        if name in before:
            stayed = parameter == before[name]
            gradient = torch.where(stayed, 0.1 * gradient, gradient)
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)
    for name, buffer in plain.named_buffers():  # the running statistics are updated as usual
        assert torch.equal(started.get_buffer(name), buffer)


@pytest.mark.parametrize("options", [{"share": 1.1, "damping": 0.1}, {"share": 0.3, "damping": -1}])
def test_msg_refuses_shares_outside_of_0_and_1(options: dict[str, float]):
    with pytest.raises(UsageError, match=r"method\.share"):
        MaskedSmallGradients(**options, **OPTIONS)
