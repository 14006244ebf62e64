"""Each method does what its formula says, against a computation that shares no code with it."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.masking.attenuation import Inverse
from orthounlearn.masking.statistics import ClassStatistics, class_statistics
from orthounlearn.masking.tracing import Site
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.gradient_ascent import GradientAscent
from orthounlearn.methods.head import find_classifier
from orthounlearn.methods.mask_logit import MaskLogit
from orthounlearn.methods.soft_prune import SoftPrune
from orthounlearn.models import resnet, vgg

IMAGES = torch.randn(40, 3, 8, 8)
LABELS = torch.arange(40) % 4
OPTIONS = {"optimizer": torch.optim.SGD, "epochs": 1, "batch_size": 8, "batch_norm": "train"}


class Toy:
    """A context of 40 images and 4 classes."""

    num_classes = 4
    seed = 0
    example = IMAGES[:2]

    def __init__(self, *forget: int) -> None:
        self.forget = forget

    def batches(
        self, split: str, *, batch_size: int, **_: object
    ) -> Iterable[tuple[Tensor, Tensor]]:
        chosen = torch.isin(LABELS, torch.tensor(self.forget)) == split.startswith("forget")
        return zip(IMAGES[chosen].split(batch_size), LABELS[chosen].split(batch_size), strict=True)

    def statistics(
        self, net: nn.Module, *, sites: tuple[Site, ...], pooling: str
    ) -> ClassStatistics:
        batches = [(IMAGES, LABELS)]
        return class_statistics(net, batches, sites=sites, num_classes=4, pooling=pooling)


@pytest.fixture(params=[resnet, vgg])
def net(request: pytest.FixtureRequest) -> nn.Module:
    depth = {resnet: 20, vgg: 11}[request.param]
    return request.param(depth=depth, num_classes=4, image_size=8, width=8).eval()


def test_fine_tune_is_cross_entropy(net: nn.Module):
    batch = {"retain_train": (IMAGES[:8], LABELS[:8])}
    expected = -net(IMAGES[:8]).log_softmax(1)[torch.arange(8), LABELS[:8]].mean()
    torch.testing.assert_close(FineTune(**OPTIONS).loss(net, batch), expected)


def test_gradient_ascent_is_minus_cross_entropy(net: nn.Module):
    batch = {"forget_train": (IMAGES[:8], LABELS[:8])}
    expected = -F.cross_entropy(net(IMAGES[:8]), LABELS[:8])
    torch.testing.assert_close(GradientAscent(**OPTIONS).loss(net, batch), expected)


@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_masked_logit_never_wins_and_the_others_keep_every_bit(net: nn.Module, forget):
    before = net(IMAGES)
    method, context = MaskLogit(), Toy(*forget)
    method.prepare(net, context)
    after = method.unlearn(net, context)(IMAGES)
    kept = [label for label in range(4) if label not in forget]
    assert torch.equal(before[:, kept], after[:, kept])
    assert (after.softmax(1)[:, list(forget)] == 0).all()


def test_masked_logit_gives_a_classifier_its_missing_bias():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4, bias=False)
    )
    method, context = MaskLogit(), Toy(2)
    method.prepare(net, context)
    assert (method.unlearn(net, context)(IMAGES).argmax(1) != 2).all()


def last_activations(net: nn.Module) -> Tensor:
    """What the classifier reads, before pooling: (N, C, H, W) after the last ReLU."""
    seen: list[Tensor] = []
    handle = net.pool.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.no_grad():
        net(IMAGES)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("forget", [(2,), (0, 1)])
def test_soft_prune_takes_the_channels_with_the_largest_difference(net: nn.Module, forget):
    """Scores from scratch: maximum over pixels, mean over D_f minus mean over D_r, top quarter."""
    before = last_activations(net)
    pooled = before.amax((2, 3))
    of_forget = torch.isin(LABELS, torch.tensor(forget))
    score = pooled[of_forget].mean(0) - pooled[~of_forget].mean(0)
    k = len(score) // 4
    ranked = score.argsort(descending=True)[:k]
    factors = torch.ones(len(score))
    for rank, channel in enumerate(ranked.tolist(), 1):
        factors[channel] = 1 - max(0.5, 1 - rank / k)

    norm = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    weight, bias = norm.weight.detach().clone(), norm.bias.detach().clone()
    method, context = SoftPrune(rate=0.25, floor=0.5), Toy(*forget)
    method.prepare(net, context)
    method.unlearn(net, context)
    torch.testing.assert_close(norm.weight.detach(), weight * factors)
    torch.testing.assert_close(norm.bias.detach(), bias * factors)


def test_hard_pruned_channels_are_silent(net: nn.Module):
    method, context = SoftPrune(rate=0.3, floor=1.0), Toy(1)
    method.prepare(net, context)
    after = last_activations(method.unlearn(net, context))
    silent = (after == 0).all(0).flatten(1).all(1).sum()
    assert silent >= -(-after.shape[1] * 3 // 10)


def test_soft_prune_answers_the_next_request_with_what_it_prepared(net: nn.Module):
    """`prepare` once; then requests for one class and for two, each as if it were the first."""
    import copy

    for forget in ((0,), (1,), (0, 1)):
        prepared, context = copy.deepcopy(net), Toy(*forget)
        method = SoftPrune(rate=0.25, floor=0.5)
        method.prepare(prepared, Toy(3))
        fresh, other = copy.deepcopy(net), SoftPrune(rate=0.25, floor=0.5)
        other.prepare(fresh, context)
        one, two = method.unlearn(prepared, context), other.unlearn(fresh, context)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_saved_inverse_restores_the_original(net: nn.Module, tmp_path: Path):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    path = tmp_path / "inverse.safetensors"
    method, context = SoftPrune(rate=0.5, floor=1.0, inverse=str(path)), Toy(1)
    method.prepare(net, context)
    unlearned = method.unlearn(net, context)
    assert any(not torch.equal(t, before[n]) for n, t in unlearned.state_dict().items())
    Inverse.load(path).restore(unlearned)
    assert all(torch.equal(t, before[n]) for n, t in unlearned.state_dict().items())


def test_unknown_score_is_refused():
    with pytest.raises(UsageError, match="activation_difference"):
        SoftPrune(score="other")


def test_classifier_is_the_layer_that_makes_the_logits(net: nn.Module):
    assert find_classifier(net, IMAGES[:2]) is net.classifier
    with pytest.raises(UsageError, match=r"nn\.Linear"):
        find_classifier(nn.Conv2d(3, 4, 8), IMAGES[:2])
