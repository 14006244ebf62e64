"""Boundary Unlearning, CF-k, EU-k, MSG and CT, each against a computation of its own."""

import copy
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.cli import CONF_DIR
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.errors import UsageError
from orthounlearn.methods.boundary_expand import BoundaryExpand
from orthounlearn.methods.boundary_shrink import BoundaryShrink, fgsm
from orthounlearn.methods.cf_k import CatastrophicForgettingK
from orthounlearn.methods.ct import ConvolutionTranspose
from orthounlearn.methods.eu_k import ExactUnlearningK
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.layers import evaluating, weighted_layers
from orthounlearn.methods.msg import MaskedSmallGradients
from orthounlearn.models import resnet, vgg

OPTIONS = {
    "optimizer": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
    "epochs": 1,
    "batch_size": 256,
    "batch_norm": "train",
}
FROZEN = {**OPTIONS, "batch_norm": "frozen"}
MEAN, STD = (0.5, 0.3, 0.7), (0.2, 0.5, 0.25)
MEAN_C11, STD_C11 = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
PIXELS = torch.randint(256, (24, 3, 8, 8), generator=torch.Generator().manual_seed(3)) / 255
IMAGES = (PIXELS - MEAN_C11) / STD_C11
LABELS = torch.arange(24) % 4


class Toy:
    """A context of 24 images and 4 classes; batches come in the order of the images."""

    num_classes = 4
    seed = 0
    example = IMAGES[:2]
    mean, std = MEAN, STD

    def __init__(self, *forget: int) -> None:
        self.forget = forget

    def batches(
        self, split: str, *, batch_size: int, **_: object
    ) -> Iterable[tuple[Tensor, Tensor]]:
        chosen = torch.isin(LABELS, torch.tensor(self.forget)) == split.startswith("forget")
        return zip(IMAGES[chosen].split(batch_size), LABELS[chosen].split(batch_size), strict=True)


@pytest.fixture(params=[resnet, vgg])
def net(request: pytest.FixtureRequest) -> nn.Module:
    depth = {resnet: 20, vgg: 11}[request.param]
    made = request.param(depth=depth, num_classes=4, image_size=8, width=8).eval()
    return made.to(memory_format=torch.channels_last)


@pytest.fixture
def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))


# ---- Boundary Shrink --------------------------------------------------------------------------


def in_pixels(images: Tensor) -> np.ndarray:
    return (images * STD_C11 + MEAN_C11).numpy()


@pytest.mark.parametrize("epsilon", [0.09, 0.02])  # no step ends half-way between grey values
def test_fgsm_of_a_linear_model_by_hand(linear: nn.Module, epsilon: float):
    """∇ₓCE = Wᵀ(p − e_y); a step against the label in pixels, cut to [0, 1] and to 8 bits."""
    with torch.no_grad():
        error = linear(IMAGES).softmax(1) - F.one_hot(LABELS, 4)
    gradient = (error @ linear[1].weight.detach()).view_as(IMAGES).numpy()
    moved = np.clip(PIXELS.numpy() + epsilon * np.sign(gradient), 0, 1)
    found = fgsm(linear, IMAGES, LABELS, epsilon=epsilon, mean_C11=MEAN_C11, std_C11=STD_C11)
    np.testing.assert_allclose(in_pixels(found) * 255, np.rint(moved * 255), atol=1e-3)


@given(st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_fgsm_stays_near_and_in_the_range_of_8_bit_images(epsilon: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (4, 3, 4, 4), generator=generator) / 255
    weight = torch.randn(3, 48, generator=generator)
    labels = torch.randint(3, (4,), generator=generator)
    attacked = fgsm(
        lambda images: images.flatten(1) @ weight.T,
        (pixels - MEAN_C11) / STD_C11,
        labels,
        epsilon=epsilon,
        mean_C11=MEAN_C11,
        std_C11=STD_C11,
    )
    found = in_pixels(attacked)
    assert np.abs(found - pixels.numpy()).max() <= epsilon + 0.5 / 255 + 1e-5
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6
    np.testing.assert_allclose(found * 255, np.rint(found * 255), atol=1e-3)


def test_fgsm_raises_the_loss_and_leaves_no_trace(net: nn.Module):
    attacked = fgsm(net, IMAGES, LABELS, epsilon=0.1, mean_C11=MEAN_C11, std_C11=STD_C11)
    assert F.cross_entropy(net(attacked), LABELS) > F.cross_entropy(net(IMAGES), LABELS)
    assert not attacked.requires_grad
    assert all(p.grad is None for p in net.parameters())


def test_shrink_is_cross_entropy_with_the_label_of_the_attacked_image(net: nn.Module):
    method = BoundaryShrink(epsilon=0.1, **FROZEN)
    started = method.start(net, Toy(1))
    attacked = fgsm(net, IMAGES, LABELS, epsilon=0.1, mean_C11=MEAN_C11, std_C11=STD_C11)
    logits = net(attacked).detach()
    logits[:, 1] = -1e9
    neighbours = logits.argmax(1)
    expected = -net(IMAGES).log_softmax(1)[torch.arange(24), neighbours].mean()
    found = method.loss(started, {"forget_train": (IMAGES, LABELS)})
    torch.testing.assert_close(found, expected)

    with torch.no_grad():  # the neighbours are the original model's, however the net changes
        for parameter in started.parameters():
            parameter.normal_()
    assert torch.equal(method.neighbours(IMAGES, LABELS), neighbours)
    assert all(p.requires_grad for p in started.parameters())


@pytest.mark.parametrize("forget", [(1,), (1, 2)])
def test_a_failed_attack_leads_to_the_next_class_that_is_retained(linear: nn.Module, forget):
    """Class 1 wins by far, then come 2, 0 and 3: no step of ε changes that."""
    with torch.no_grad():
        linear[1].weight.mul_(1e-3)
        linear[1].bias.copy_(torch.tensor([2.0, 9.0, 5.0, 0.0]))
    method = BoundaryShrink(epsilon=0.1, **FROZEN)
    method.start(linear, Toy(*forget))
    expected = 2 if forget == (1,) else 0
    assert method.neighbours(IMAGES, torch.ones(24, dtype=torch.long)).unique().item() == expected


@pytest.mark.parametrize("epsilon", [0.0, 1.5])
def test_shrink_refuses_an_epsilon_outside_of_the_pixels(epsilon: float):
    with pytest.raises(UsageError, match=r"method\.epsilon"):
        BoundaryShrink(epsilon=epsilon, **FROZEN)


# ---- Boundary Expanding -----------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_expand_trains_a_further_class_and_drops_it(net: nn.Module, bias: bool):
    if not bias:
        net.classifier.bias = None
    names = net.state_dict().keys()
    weight = net.classifier.weight.detach().clone()
    before = net(IMAGES).detach()
    method = BoundaryExpand(**FROZEN)
    started = method.start(net, Toy(1))
    logits = started(IMAGES)
    assert logits.shape == (24, 5)
    torch.testing.assert_close(logits[:, :4].detach(), before)
    loss = method.loss(started, {"forget_train": (IMAGES, LABELS)})
    torch.testing.assert_close(loss, -logits.log_softmax(1)[:, 4].mean())

    optimizer = method.optimizer(method.parameters(started))
    loss.backward()
    optimizer.step()
    trained = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    finished = method.finish(started)
    assert finished.state_dict().keys() == names
    assert finished.classifier.out_features == 4
    for name, tensor in finished.state_dict().items():
        rows = trained[name][:4] if name.startswith("classifier") else trained[name]
        assert torch.equal(tensor, rows), name
    assert not torch.equal(finished.classifier.weight, weight)
    assert finished(IMAGES).shape == (24, 4)


def test_expand_draws_the_new_row_as_xavier_does():
    head = nn.Linear(4000, 6)
    net = nn.Sequential(nn.Flatten(), head)
    context = Toy(1)
    context.example = torch.zeros(2, 4000)
    BoundaryExpand(**FROZEN).start(net, context)
    assert head.weight[6].std().item() == pytest.approx((2 / 4007) ** 0.5, rel=0.05)
    assert head.bias[6] == 0


@pytest.mark.parametrize("name", ["boundary_shrink", "boundary_expand"])
def test_batches_of_the_forget_set_alone_freeze_the_statistics(name: str):
    assert OmegaConf.load(Path(CONF_DIR, "method", f"{name}.yaml")).batch_norm == "frozen"


# ---- the layers -------------------------------------------------------------------------------


def named(net: nn.Module, layers: list[list[nn.Module]]) -> list[list[str]]:
    names = {module: name for name, module in net.named_modules()}
    return [[names[module] for module in layer] for layer in layers]


def test_layers_come_in_the_order_of_the_forward_pass_with_their_norms():
    net = resnet(depth=20, num_classes=4, image_size=8, width=8)
    expected = [["stem.0", "stem.1"]]
    for block in range(9):
        expected += [[f"blocks.{block}.conv{i}", f"blocks.{block}.bn{i}"] for i in (1, 2)]
        if block in (3, 6):
            expected += [[f"blocks.{block}.downsample.0", f"blocks.{block}.downsample.1"]]
    assert named(net, weighted_layers(net, Toy.example)) == [*expected, ["classifier"]]


class Tangled(nn.Module):
    """Defined in another order than it runs, with a norm in front and a head that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 4)
        self.unused = nn.Linear(5, 9)
        self.second = nn.Conv2d(6, 5, 1)
        self.slope = nn.PReLU()
        self.first = nn.Conv2d(3, 6, 3)
        self.whiten = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.slope(self.first(self.whiten(images)))
        return self.last(self.second(hidden).mean((2, 3)))


def test_layers_do_not_depend_on_the_order_of_definition():
    net = Tangled().train()
    net.whiten.eval()
    found = named(net, weighted_layers(net, Toy.example))
    assert found == [["whiten", "first", "slope"], ["second"], ["last"]]
    assert net.training
    assert not net.whiten.training
    assert not any(module._forward_hooks for module in net.modules())


def test_evaluating_gives_each_module_its_own_mode_back():
    net = Tangled().train()
    net.whiten.eval()

    def fail() -> None:
        with evaluating(net):
            assert not any(module.training for module in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [n for n, m in net.named_modules() if not m.training] == ["whiten"]


# ---- CF-k and EU-k ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiment(open_shared: Callable[..., Experiment]) -> Experiment:
    return open_shared()


@pytest.mark.parametrize("kind", [CatastrophicForgettingK, ExactUnlearningK])
@pytest.mark.parametrize("k", [1, 3])
def test_only_the_last_layers_change_when_trained(experiment: Experiment, kind, k: int):
    """In the engine's own loop, BatchNorm buffers included."""
    net = experiment.new_net(0)
    last = {
        1: ("classifier",),
        3: ("classifier", "blocks.8.conv2", "blocks.8.bn2", "blocks.8.conv1", "blocks.8.bn1"),
    }[k]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    method = kind(k=k, **OPTIONS)
    context = RequestContext(
        experiment, method, splits=experiment.splits((3,)), seed=0,
        statistics_folder=Path("/nowhere"),
    )  # fmt: skip
    unlearned = method.unlearn(net, context)
    for name, tensor in unlearned.state_dict().items():
        changed = not torch.equal(tensor, before[name])
        assert changed == (name.rpartition(".")[0] in last), name
    assert all(p.requires_grad for p in unlearned.parameters())
    assert len({module.training for module in unlearned.modules()}) == 1


def test_fixed_statistics_normalise_in_training_too(net: nn.Module):
    """With the classifier alone to train, the loss is that of the network in eval mode."""
    batch = {"retain_train": (IMAGES, LABELS)}
    expected = F.cross_entropy(net(IMAGES), LABELS)
    method = CatastrophicForgettingK(k=1, **OPTIONS)
    loss = method.loss(method.start(net, Toy(1)).train(), batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is not None] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_all_layers_are_plain_fine_tuning(net: nn.Module):
    other = copy.deepcopy(net)
    batch = {"retain_train": (IMAGES, LABELS)}
    count = len(weighted_layers(net, Toy.example))
    method, plain = CatastrophicForgettingK(k=count, **OPTIONS), FineTune(**OPTIONS)
    method.start(net, Toy(1))
    assert len(method.parameters(net)) == len(plain.parameters(other))
    assert torch.equal(method.loss(net.train(), batch), plain.loss(other.train(), batch))


def test_last_layers_of_eu_k_are_all_fresh(net: nn.Module):
    with torch.no_grad():  # statistics and scales as after a training
        for tensor in (t for t in net.state_dict().values() if t.is_floating_point()):
            tensor.add_(0.1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    last = [m for layer in weighted_layers(net, Toy.example)[-2:] for m in layer]
    names = [n for m in last for n, each in net.named_modules() if each is m]
    torch.manual_seed(7)
    conv, norm, head = (copy.deepcopy(module) for module in last)
    for module in (conv, norm, head):
        module.reset_parameters()
    torch.manual_seed(7)
    after = ExactUnlearningK(k=2, **OPTIONS).start(net, Toy(1)).state_dict()
    fresh = {
        f"{name}.{key}": tensor
        for name, module in zip(names, (conv, norm, head), strict=True)
        for key, tensor in module.state_dict().items()
    }
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, fresh.get(name, before[name])), name
        if name in fresh and tensor.is_floating_point():
            assert not (tensor == before[name]).any(), name


@pytest.mark.parametrize("kind", [CatastrophicForgettingK, ExactUnlearningK])
def test_impossible_numbers_of_layers_are_refused(net: nn.Module, kind):
    with pytest.raises(UsageError, match=r"method\.k"):
        kind(k=0, **OPTIONS)
    with pytest.raises(UsageError, match=r"method\.k of at most the (22|9) layers"):
        kind(k=100, **OPTIONS).start(net, Toy(1))


def test_eu_k_refuses_what_it_cannot_make_anew(net: nn.Module):
    with pytest.raises(UsageError, match=r"method\.batch_norm"):
        ExactUnlearningK(k=1, **FROZEN).start(net, Toy(1))

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            return self.factor * images

    scaled = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), Scale())
    with pytest.raises(UsageError, match="Scale"):
        ExactUnlearningK(k=1, **OPTIONS).start(scaled, Toy(1))


# ---- MSG --------------------------------------------------------------------------------------


def convolutions(net: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.weight": module.weight.detach().clone()
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
    }


def contrast(net: nn.Module, forget: tuple[int, ...]) -> dict[str, Tensor]:
    """∇(mean CE over the first |D_f| retained − mean CE over D_f), all images in one batch."""
    of_forget = torch.isin(LABELS, torch.tensor(forget))
    chosen = torch.arange(24)[~of_forget][: of_forget.sum()]
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
    method = MaskedSmallGradients(share=0.3, damping=0.1, **{**OPTIONS, "batch_size": batch_size})
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


# ---- CT ---------------------------------------------------------------------------------------


def test_transposed_kernels_see_transposed_images():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    expected = conv(IMAGES)
    ConvolutionTranspose(**OPTIONS).start(conv, Toy(1))
    torch.testing.assert_close(conv(IMAGES.mT).mT, expected)
    assert not torch.allclose(conv(IMAGES), expected)


def test_transposing_twice_changes_nothing(net: nn.Module):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    method = ConvolutionTranspose(**OPTIONS)
    method.start(net, Toy(1))
    turned = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    assert turned == {n for n, weight in convolutions(net).items() if weight.shape[-1] > 1}
    method.start(net, Toy(1))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_oblong_kernels_keep_their_shape_and_values():
    net = nn.Sequential(nn.Conv2d(3, 4, (1, 3)), nn.Conv2d(4, 4, 3))
    oblong, square = net[0].weight.detach().clone(), net[1].weight.detach().clone()
    ConvolutionTranspose(**OPTIONS).start(net, Toy(1))
    assert torch.equal(net[0].weight, oblong)
    assert torch.equal(net[1].weight, square.mT)
