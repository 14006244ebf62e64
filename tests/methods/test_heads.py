"""The trivial heads do what they say to the classifier, and nothing to the rest."""

import copy
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods import refit_head
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.methods.bias_shift import BiasShift, smallest_shift
from orthounlearn.methods.drop_unit import DropUnit
from orthounlearn.methods.refit_head import RefitHead
from orthounlearn.methods.reinit_row import ReinitRow
from orthounlearn.methods.zero_row import ZeroRow
from orthounlearn.models import resnet, vgg

CLASSES = 4
IMAGES = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(60) % CLASSES
REQUESTS = [(1,), (0, 3)]


class Toy:
    """A context of some images, given in batches."""

    num_classes = CLASSES
    seed = 5

    def __init__(self, *forget: int, images: Tensor = IMAGES, labels: Tensor = LABELS) -> None:
        self.forget = forget
        self.images, self.labels = images, labels
        self.example = images[:2]

    def batches(
        self, split: str, *, batch_size: int, **_: object
    ) -> Iterable[tuple[Tensor, Tensor]]:
        chosen = torch.isin(self.labels, torch.tensor(self.forget)) == split.startswith("forget")
        images, labels = self.images[chosen], self.labels[chosen]
        return zip(images.split(batch_size), labels.split(batch_size), strict=True)


def carry_out(method: UnlearningMethod, net: nn.Module, context: Toy) -> nn.Module:
    method.prepare(net, context)
    return method.unlearn(net, context)


def kept(forget: tuple[int, ...]) -> list[int]:
    return [label for label in range(CLASSES) if label not in forget]


@pytest.fixture(params=[resnet, vgg])
def net(request: pytest.FixtureRequest) -> nn.Module:
    depth = {resnet: 20, vgg: 11}[request.param]
    made = request.param(depth=depth, num_classes=CLASSES, image_size=8, width=8)
    with torch.no_grad():  # logits far from 0 and from one another
        made.classifier.weight.normal_()
        made.classifier.bias.normal_()
    return made.eval()


@pytest.fixture
def without_bias() -> nn.Module:
    head = nn.Linear(5, CLASSES, bias=False)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


HEADS = {
    "zero_row": ZeroRow,
    "drop_unit": DropUnit,
    "reinit_row": ReinitRow,
    "bias_shift": lambda: BiasShift(target=0.0, batch_size=7),
    "refit_head": lambda: RefitHead(weight_decay=0.1, batch_size=7),
}


@pytest.mark.parametrize("name", HEADS)
def test_features_stay_bit_by_bit_and_modes_as_found(name: str, net: nn.Module):
    before = {n: t.clone() for n, t in net.state_dict().items()}
    classes = list(range(CLASSES))
    after = carry_out(HEADS[name](), net, Toy(2)).state_dict()
    assert after.keys() == before.keys()
    for tensor in before.keys() - {"classifier.weight", "classifier.bias"}:
        assert torch.equal(after[tensor], before[tensor]), tensor
    if name != "refit_head":
        classes.remove(2)
        for tensor in ("classifier.weight", "classifier.bias"):
            assert torch.equal(after[tensor][classes], before[tensor][classes])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m.training for m in net.modules())


@pytest.mark.parametrize("forget", REQUESTS)
def test_zeroed_rows_give_a_logit_of_zero_not_of_minus_infinity(net: nn.Module, forget):
    before = net(IMAGES)
    after = carry_out(ZeroRow(), net, Toy(*forget))(IMAGES)
    assert (after[:, list(forget)] == 0).all()
    assert torch.equal(after[:, kept(forget)], before[:, kept(forget)])
    with torch.no_grad():  # all other logits below 0: the zero wins
        net.classifier.bias[kept(forget)] = -1e3
    assert torch.isin(net(IMAGES).argmax(1), torch.tensor(forget)).all()


@pytest.mark.parametrize("forget", REQUESTS)
def test_dropped_unit_equals_a_classifier_without_the_row(net: nn.Module, forget):
    smaller = copy.deepcopy(net)
    smaller.classifier.weight = nn.Parameter(net.classifier.weight[kept(forget)].detach())
    smaller.classifier.bias = nn.Parameter(net.classifier.bias[kept(forget)].detach())
    after = carry_out(DropUnit(), net, Toy(*forget))(IMAGES).softmax(1)
    torch.testing.assert_close(after[:, kept(forget)], smaller(IMAGES).softmax(1))
    assert (after[:, list(forget)] == 0).all()


@pytest.mark.parametrize("forget", REQUESTS)
def test_dropped_unit_is_gone_from_a_state_that_the_architecture_loads(net: nn.Module, forget):
    fresh = copy.deepcopy(net)
    for parameter in fresh.parameters():
        parameter.data.fill_(float("nan"))
    state = carry_out(DropUnit(), net, Toy(*forget)).state_dict()
    fresh.load_state_dict(state)
    assert torch.equal(fresh(IMAGES), net(IMAGES))
    assert (state["classifier.weight"][list(forget)] == 0).all()
    logits = fresh(IMAGES)[:, list(forget)]
    assert (logits == -1e4).all()
    assert torch.equal(logits.half().float(), logits)


@pytest.mark.parametrize("forget", REQUESTS)
def test_reinitialised_rows_are_those_of_a_fresh_linear_layer(net: nn.Module, forget):
    torch.manual_seed(Toy.seed)
    fresh = nn.Linear(net.classifier.in_features, len(forget))
    state = torch.get_rng_state()
    carry_out(ReinitRow(), net, Toy(*forget))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(net.classifier.weight[list(forget)], fresh.weight, rtol=0, atol=1e-7)
    torch.testing.assert_close(net.classifier.bias[list(forget)], fresh.bias, rtol=0, atol=1e-7)


def test_reinitialised_rows_depend_on_the_seed(net: nn.Module):
    other, context = copy.deepcopy(net), Toy(1)
    context.seed = 6
    carry_out(ReinitRow(), net, Toy(1))
    carry_out(ReinitRow(), other, context)
    assert not torch.equal(net.classifier.weight[1], other.classifier.weight[1])


@pytest.mark.parametrize("name", HEADS)
def test_classifier_without_a_bias_is_no_obstacle(name: str, without_bias: nn.Module):
    before = without_bias(IMAGES)
    after = carry_out(HEADS[name](), without_bias, Toy(2))(IMAGES)
    if name != "refit_head":
        assert torch.equal(after[:, kept((2,))], before[:, kept((2,))])
    assert not torch.equal(after[:, 2], before[:, 2])
    assert (without_bias[3].bias is None) == (name in ("zero_row", "reinit_row", "refit_head"))


# ---- bias shift -------------------------------------------------------------------------------

LOGITS = torch.tensor(
    [
        [0.0, 3.0, 1.0, 0.0],  # class 1, 2 above the next
        [0.0, 1.0, 0.5, 0.0],  # class 1, 0.5 above
        [2.0, 1.0, 0.0, 0.0],  # class 1, not recognised
        [0.0, 5.0, 0.0, 4.0],  # class 1, 1 above
        [9.0, 0.0, 0.0, 0.0],  # class 0
    ]
)


def reader() -> nn.Module:
    """A network whose logits are its pixels."""
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4))
        head.bias.zero_()
    return nn.Sequential(nn.Flatten(), head)


@pytest.mark.parametrize(("target", "shift"), [(0.0, 2.0), (0.25, 1.0), (0.5, 0.5), (0.75, 0.0)])
def test_shift_is_the_smallest_that_forgets(target: float, shift: float):
    context = Toy(1, images=LOGITS.view(-1, 1, 2, 2), labels=torch.tensor([1, 1, 1, 1, 0]))
    net = carry_out(BiasShift(target=target, batch_size=3), reader(), context)
    found = -net[1].bias[1].item()
    assert shift - 1e-6 <= found <= shift + 1.1e-4
    logits = net(context.images)
    assert (logits.argmax(1)[:4] == 1).float().mean() <= target
    assert torch.equal(logits[:, kept((1,))], LOGITS[:, kept((1,))])


def test_shift_is_common_to_the_classes_and_counts_each_for_its_own():
    logits = torch.tensor([[0.0, 3.0, 7.0, 0.0], [0.0, 2.0, 1.0, 0.0], [1.0, 0.0, 6.0, 0.0]])
    labels = torch.tensor([1, 1, 2])  # the first is taken for a 2: no shift is due to it
    context = Toy(1, 2, images=logits.view(-1, 1, 2, 2), labels=labels)
    net = carry_out(BiasShift(target=0.0, batch_size=2), reader(), context)
    assert net[1].bias.tolist() == pytest.approx([0, -5, -5, 0], abs=1.1e-4)
    assert not (net(context.images).argmax(1) == labels).any()


@given(
    st.lists(st.floats(-20, 20) | st.just(-np.inf), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.1, 0.5, 0.9]),
)
def test_smallest_shift_is_an_order_statistic(margins: list[float], target: float):
    allowed = max(n for n in range(len(margins)) if n / len(margins) <= target)
    exact = max(0.0, sorted(margins, reverse=True)[allowed])
    found = smallest_shift(torch.tensor(margins, dtype=torch.float64), target=target)
    assert -1e-9 <= found - exact <= 1.01e-4
    assert np.mean(np.array(margins) > found) <= target


# ---- refit ------------------------------------------------------------------------------------


@pytest.fixture
def blobs() -> tuple[nn.Module, Toy]:
    """Features (N, 6) of four classes that overlap, read as they are."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(120) % CLASSES
    centres = torch.randn(CLASSES, 6, generator=generator)
    images = (centres[labels] + torch.randn(120, 6, generator=generator)).view(-1, 1, 2, 3)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, CLASSES)), Toy(2, images=images, labels=labels)


def test_refit_head_is_the_optimum_that_another_solver_finds(blobs: tuple[nn.Module, Toy]):
    net, context = blobs
    decay = 0.01
    retained = context.labels != 2
    features = context.images[retained].flatten(1).double().numpy()
    features = np.hstack([features, np.ones((len(features), 1))])
    one_hot = np.eye(CLASSES)[context.labels[retained].numpy()]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        rows = flat.reshape(CLASSES, -1)
        logits = features @ rows.T
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -(one_hot * np.log(p)).sum(1).mean() + decay / 2 * (flat**2).sum()
        return loss, ((p - one_hot).T @ features / len(features) + decay * rows).ravel()

    best = minimize(objective, np.zeros(CLASSES * 7), jac=True, method="BFGS", tol=1e-9).x
    carry_out(RefitHead(weight_decay=decay, batch_size=11), net, context)
    found = torch.cat([net[1].weight, net[1].bias[:, None]], 1).detach().numpy()
    np.testing.assert_allclose(found, best.reshape(CLASSES, -1), atol=1e-5)


def test_refit_head_pushes_the_absent_class_as_far_as_the_decay_lets_it(
    net: nn.Module,
):
    """At the optimum b_c = (share of class c − mean p_c) / λ, for the forgotten class −p/λ."""
    decay, context = 0.02, Toy(2)
    carry_out(RefitHead(weight_decay=decay, batch_size=16), net, context)
    retained = LABELS != 2
    p = net(IMAGES[retained]).double().softmax(1).mean(0)
    share = F.one_hot(LABELS[retained], CLASSES).double().mean(0)
    torch.testing.assert_close(net.classifier.bias.double(), (share - p) / decay, atol=1e-4, rtol=0)
    assert net.classifier.bias[2] < 0


def test_refit_head_forgets_where_it_started(blobs: tuple[nn.Module, Toy]):
    net, context = blobs
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[1].weight.normal_(std=100)
    for each in (net, other):
        carry_out(RefitHead(weight_decay=0.01, batch_size=16), each, context)
    assert torch.equal(net[1].weight, other[1].weight)
    assert (net(context.images).argmax(1) != 2).all()


def test_refit_head_tells_when_it_did_not_converge(blobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refit_head, "_ITERATIONS", 2)
    with pytest.raises(UsageError, match="converge"):
        carry_out(RefitHead(weight_decay=0.01, batch_size=16), *blobs)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BiasShift, {"target": 1.0, "batch_size": 8}),
        (BiasShift, {"target": -0.1, "batch_size": 8}),
        (BiasShift, {"target": 0.0, "batch_size": 0}),
        (RefitHead, {"weight_decay": 0.0, "batch_size": 8}),
        (RefitHead, {"weight_decay": 0.1, "batch_size": 0}),
    ],
)
def test_options_out_of_range_are_refused(kind: type, options: dict[str, float]):
    with pytest.raises(UsageError, match=r"method\."):
        kind(**options)
