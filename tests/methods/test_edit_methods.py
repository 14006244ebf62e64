"""Methods that edit weights in closed form, against numpy, scikit-learn and hand-made networks."""

import copy
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.cli import CONF_DIR
from orthounlearn.errors import UsageError
from orthounlearn.masking.statistics import ClassStatistics, class_statistics
from orthounlearn.masking.tracing import Site
from orthounlearn.methods.leace import Leace, erased_part
from orthounlearn.methods.norm_matched_mask import NormMatchedMask, matched_strengths
from orthounlearn.methods.random_mask import RandomMask, generator_of
from orthounlearn.methods.soft_prune import SoftPrune
from orthounlearn.methods.svd_projection import SvdProjection, importance, patches_of
from orthounlearn.methods.tfidf_prune import TfIdfPrune, TfIdfPruneTuned
from orthounlearn.models import resnet, vgg

IMAGES = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(7))
LABELS = torch.arange(48) % 4


class Toy:
    """A context of a few images and 4 classes."""

    num_classes = 4

    def __init__(
        self, *forget: int, images: Tensor = IMAGES, labels: Tensor = LABELS, seed: int = 0
    ) -> None:
        self.forget, self.images, self.labels, self.seed = forget, images, labels, seed
        self.example = images[:2]

    def batches(
        self, split: str, *, batch_size: int, **_: object
    ) -> Iterable[tuple[Tensor, Tensor]]:
        chosen = torch.isin(self.labels, torch.tensor(self.forget)) == split.startswith("forget")
        parts = (t[chosen].split(batch_size) for t in (self.images, self.labels))
        return zip(*parts, strict=True)

    def of(self, split: str) -> Tensor:
        return torch.cat([images for images, _ in self.batches(split, batch_size=10_000)])

    def statistics(
        self, net: nn.Module, *, sites: tuple[Site, ...], pooling: str
    ) -> ClassStatistics:
        batches = [(self.images, self.labels)]
        return class_statistics(net, batches, sites=sites, num_classes=4, pooling=pooling)


@pytest.fixture(params=[resnet, vgg])
def net(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    depth = {resnet: 20, vgg: 11}[request.param]
    made = request.param(depth=depth, num_classes=4, image_size=8, width=8).eval()
    with torch.no_grad():  # as after training: no two channels alike
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
    before = copy.deepcopy(made)
    yield made
    for old, new in zip(before.modules(), made.modules(), strict=True):
        assert old.training == new.training
        assert not new._forward_hooks
        assert not new._forward_pre_hooks


def run(method, net: nn.Module, context: Toy) -> nn.Module:
    method.prepare(net, context)
    return method.unlearn(net, context)


# SVD projection.


def scaled_projection(columns: np.ndarray, alpha: float) -> np.ndarray:
    """M by its definition, through the singular value decomposition of the activations."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    share = s**2 / (s**2).sum()
    return u @ np.diag(alpha * share / ((alpha - 1) * share + 1)) @ u.T


@settings(deadline=None)
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
    images = torch.randn(48, 1, 1, 6)
    images[LABELS == 2] = 0
    images[LABELS == 2, :, :, 0] = 1 + torch.rand(12, 1, 1)
    images[LABELS != 2, :, :, 0] = 0
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    before = copy.deepcopy(net[1].state_dict())
    run(SvdProjection(samples=48), net, Toy(2, images=images))
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
        m_f = scaled_projection(columns(name, context.of("forget_train")), 5.0)
        m_r = scaled_projection(columns(name, context.of("retain_train")), 20.0)
        p = np.eye(len(m_f)) - (m_f - m_f @ m_r)
        flat = layer.weight.detach().flatten(1).double().numpy()
        expected[name] = torch.from_numpy((flat @ p.T).reshape(layer.weight.shape)).float()
    method = SvdProjection(alpha_r=20, alpha_f=5, samples=100, patches=100 * 64)
    run(method, net, context)
    for name, layer in layers.items():
        torch.testing.assert_close(layer.weight.detach(), expected[name], atol=2e-4, rtol=1e-3)


# LEACE.


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    """Features (N, D) with class means, correlations, and a direction without variance."""
    torch.manual_seed(3)
    labels = torch.randint(4, (400,))
    x = 2 * torch.randn(4, 6)[labels] + torch.randn(400, 6) @ torch.randn(6, 6)
    return torch.cat([x, torch.full((400, 1), 0.5)], 1).double(), labels


def erased(x: Tensor, labels: Tensor, forget: tuple[int, ...]) -> Tensor:
    z = torch.stack([labels == c for c in forget], 1).double()
    centred = x - x.mean(0)
    cross = centred.T @ (z - z.mean(0)) / len(x)
    return x - centred @ erased_part(centred.T @ centred / len(x), cross).T


@pytest.mark.parametrize("forget", [(2,), (0, 3)])
def test_no_linear_classifier_beats_the_majority_after_erasure(features, forget):
    x, labels = features
    after = erased(x, labels, forget).numpy()
    for c in forget:
        z = (labels == c).numpy()
        assert LogisticRegression(C=1e6, max_iter=5000).fit(x.numpy(), z).score(x, z) > 0.85
        fitted = LogisticRegression(C=1e6, max_iter=5000, tol=1e-10).fit(after, z)
        assert not fitted.predict(after).any()  # the majority, always
        odds = fitted.decision_function(after)
        assert np.ptp(odds) < 1e-5
        assert odds.mean() == pytest.approx(np.log(z.mean() / (1 - z.mean())), abs=1e-5)


def test_erasure_of_one_class_is_the_oblique_projection_of_its_formula(features):
    """For one indicator Q = s sᵀ Σ⁻¹ / (sᵀ Σ⁻¹ s), with s = Cov(x, z)."""
    x, labels = features
    x = x[:, :-1]
    centred = x - x.mean(0)
    sigma = centred.T @ centred / len(x)
    s = centred.T @ (labels == 1).double() / len(x)
    solved = torch.linalg.solve(sigma, s)
    torch.testing.assert_close(erased_part(sigma, s[:, None]), s.outer(solved) / s.dot(solved))


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
def test_erasure_is_the_smallest_edit_that_erases(features, forget):
    """All other erasing maps, Q + N with N s = 0 for every s = Cov(x, z), move features more."""
    x, labels = features
    moved = (erased(x, labels, forget) - x).square().sum(1).mean()
    centred = x - x.mean(0)
    z = torch.stack([labels == c for c in forget], 1).double()
    cross = centred.T @ (z - z.mean(0)) / len(x)
    q = erased_part(centred.T @ centred / len(x), cross)
    torch.testing.assert_close(q @ cross, cross)
    keeps = torch.eye(len(q), dtype=q.dtype) - cross @ torch.linalg.pinv(cross)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(20):
            other = q + size * torch.randn(len(q), len(q), dtype=q.dtype) @ keeps
            torch.testing.assert_close(other @ cross, cross)
            assert (centred @ other.T).square().sum(1).mean() > moved


def features_of(net: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = net.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
def test_the_eraser_is_folded_into_the_classifier(net: nn.Module, forget):
    """On images with a class signal, more of them than features: all else is interpolation."""
    images = torch.randn(600, 3, 8, 8) + torch.randn(4, 3, 8, 8)[torch.arange(600) % 4]
    labels = torch.arange(600) % 4
    context = Toy(*forget, images=images, labels=labels)
    x = features_of(net, images).double()
    weight, bias = net.classifier.weight.detach().double(), net.classifier.bias.detach().double()
    expected = erased(x, labels, forget) @ weight.T + bias
    rest = {n: t.clone() for n, t in net.state_dict().items() if not n.startswith("classifier")}
    run(Leace(), net, context)
    found = net(images).detach().double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - (x @ weight.T + bias)).abs().max() > 0.003  # thirty times the tolerance
    assert all(torch.equal(net.state_dict()[n], t) for n, t in rest.items())
    for c in forget:  # the mean logits tell the class from the others no more
        of_class, others = found[labels == c].mean(0), found[labels != c].mean(0)
        torch.testing.assert_close(of_class, others, atol=1e-4, rtol=1e-4)


# TF-IDF pruning.


def scores_by_hand(net: nn.Module, context: Toy) -> dict[str, Tensor]:
    """TF·IDF of the channels of every convolution, from its own output, one class at a time."""
    convs = {n: m for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    seen: dict[str, Tensor] = {}
    handles = [
        m.register_forward_hook(lambda _, __, y, n=n: seen.__setitem__(n, y.clone()))
        for n, m in convs.items()
    ]
    with torch.no_grad():
        net(context.images)
    for handle in handles:
        handle.remove()
    found = {}
    for name, output in seen.items():
        a = output.relu().mean((2, 3)).double()
        means = torch.stack([a[context.labels == c].mean(0) for c in range(4)])
        forget = a[torch.isin(context.labels, torch.tensor(context.forget))].mean(0)
        above = (means >= means.mean(0)).sum(0)
        found[name] = forget / forget.sum() * torch.log(5 / (1 + above))
    return found


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
def test_the_highest_scores_of_all_layers_are_removed(net: nn.Module, forget):
    context = Toy(*forget)
    scores = scores_by_hand(net, context)
    everything = torch.cat(list(scores.values()))
    count = -(-len(everything) * 7 // 100)
    threshold = everything.sort(descending=True).values[count - 1]
    modules = dict(net.named_modules())
    follower = dict(zip(scores, [m for m in modules.values() if isinstance(m, nn.BatchNorm2d)],
                        strict=True))  # fmt: skip
    before = {name: norm.weight.detach().clone() for name, norm in follower.items()}
    run(TfIdfPrune(rate=0.07), net, context)
    removed = 0
    for name, score in scores.items():
        kept = score < threshold
        torch.testing.assert_close(follower[name].weight.detach(), before[name] * kept)
        assert (follower[name].bias[~kept] == 0).all()
        removed += int((~kept).sum())
    assert removed == count


def test_channel_of_the_class_alone_goes_first_and_is_silent():
    """Channel j answers to class j alone: the direction of the paper, not of the released code."""
    images = F.one_hot(LABELS, 4).float()[:, :, None, None].expand(-1, -1, 4, 4)
    net = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 4),
    ).eval()  # fmt: skip
    net[0].weight.data = torch.eye(4)[:, :, None, None]
    nn.init.constant_(net[0].bias, 0.01)
    for label in range(4):
        trial = copy.deepcopy(net)
        run(TfIdfPrune(rate=0.25), trial, Toy(label, images=images))
        silent = (trial[:3](images) == 0).flatten(2).all(2).all(0)
        assert silent.nonzero().flatten().tolist() == [label]


def test_statistics_before_the_norm_do_not_pass_for_those_after_it(net: nn.Module):
    asked: list[tuple[Site, ...]] = []

    class Asking(Toy):
        def statistics(self, net, *, sites, pooling):
            asked.append(sites)
            return super().statistics(net, sites=sites, pooling=pooling)

    run(TfIdfPrune(), net, Asking(1))
    run(SoftPrune(sites="convs", pooling="mean"), net, Asking(1))
    before, after = ({site.name: site.probe for site in sites} for sites in asked)
    assert len(before) == len(after)
    assert not before.keys() & after.keys()
    assert all(isinstance(net.get_submodule(probe), nn.Conv2d) for probe in before.values())


def test_tuned_pruning_keeps_what_it_removed_at_zero(net: nn.Module):
    context, pruned = Toy(1), copy.deepcopy(net)
    run(TfIdfPrune(rate=0.2), pruned, context)
    method = TfIdfPruneTuned(
        optimizer=torch.optim.SGD, epochs=1, batch_size=8, batch_norm="train", rate=0.2
    )
    method.prepare(net, context)
    started = method.start(net, context)
    for a, b in zip(started.state_dict().values(), pruned.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    batch = {"retain_train": (IMAGES[:8], LABELS[:8])}
    expected = -net(IMAGES[:8]).log_softmax(1)[torch.arange(8), LABELS[:8]].mean()
    torch.testing.assert_close(method.loss(net, batch), expected)

    norms = {n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    zeros = {n: p == 0 for n, p in net.named_parameters() if n.rpartition(".")[0] in norms}
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    for _ in range(5):
        optimizer.zero_grad()
        method.loss(net, batch).backward()
        optimizer.step()
        method.after_step(net, optimizer)
    assert sum(int(z.sum()) for n, z in zeros.items() if n.endswith("weight")) > 10
    moved = dict(net.named_parameters())
    assert all((moved[name][zero] == 0).all() for name, zero in zeros.items())
    assert not torch.equal(net.classifier.weight, pruned.classifier.weight)


# Controls of soft pruning.


def factors_of(method: SoftPrune, net: nn.Module, context: Toy) -> list[Tensor]:
    method.prepare(net, context)
    return method.factors(method._statistics, method._chosen, context.forget)


OPTIONS = {"sites": "convs", "rate": 0.4, "floor": 0.5}


@pytest.mark.parametrize("forget", [(2,), (0, 1)])
def test_random_mask_has_the_counts_and_strengths_of_soft_pruning(net: nn.Module, forget):
    context = Toy(*forget)
    ours = factors_of(SoftPrune(**OPTIONS), net, context)
    drawn = factors_of(RandomMask(**OPTIONS), net, context)
    for a, b in zip(ours, drawn, strict=True):
        assert torch.equal(a.sort().values, b.sort().values)
    assert any(not torch.equal(a, b) for a, b in zip(ours, drawn, strict=True))


@pytest.mark.parametrize("kind", [RandomMask, NormMatchedMask])
def test_draws_differ_between_seeds_and_requests_only(net: nn.Module, kind: type[SoftPrune]):
    def changed(seed: int, *forget: int) -> list[Tensor]:
        return factors_of(kind(**OPTIONS), net, Toy(*forget, seed=seed))

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


@pytest.mark.parametrize("norm_handling", ["clean", "literal"])
@pytest.mark.parametrize("sites", ["last", "convs"])
@pytest.mark.parametrize("floor", [1.0, 0.5])
def test_norm_matched_mask_removes_as_much_weight(
    net: nn.Module, norm_handling: str, sites: str, floor: float
):
    """The weight that is gone, read off the state: Σ over channels of ‖w − w′‖, for each site."""
    options = {"sites": sites, "rate": 0.3, "floor": floor, "norm_handling": norm_handling}
    gone, touched = [], []
    for kind in (SoftPrune, NormMatchedMask):
        edited = copy.deepcopy(net)
        method = kind(**options)
        run(method, edited, Toy(1))
        losses, places = [], []
        for site in method._chosen:
            parts = []
            for producer in site.producers:
                layer = producer.norm if norm_handling == "clean" else producer.conv
                for p in ("weight", "bias"):
                    old = getattr(net.get_submodule(layer), p)
                    if old is not None:
                        new = getattr(edited.get_submodule(layer), p)
                        parts.append((old - new).detach().reshape(len(old), -1))
            by_channel = torch.cat(parts, 1).norm(dim=1)
            losses.append(by_channel.sum())
            places.append((by_channel > 0).tolist())
        gone.append(torch.stack(losses))
        touched.append(places)
    torch.testing.assert_close(*gone, rtol=1e-4, atol=1e-5)
    assert touched[0] != touched[1]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_matched_strengths_are_strengths_of_equal_weight(pairs, random):
    strength, norm = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True)
    )
    order = list(range(len(pairs)))
    random.shuffle(order)
    found = matched_strengths(strength, norm, torch.tensor(order))
    assert found.dot(norm).item() == pytest.approx(strength.dot(norm).item(), abs=1e-9)
    assert ((found >= 0) & (found <= strength.max())).all()
    drawn = found[order][norm[order] > 0]  # all of the largest strength, one rest, then none
    partial = (drawn > 1e-9) & (drawn < strength.max() - 1e-9)
    assert partial.sum() <= 1
    assert (drawn.diff() <= 1e-9).all()


@pytest.mark.parametrize("kind", [SoftPrune, RandomMask, NormMatchedMask])
def test_strength_zero_is_the_identity(net: nn.Module, kind: type[SoftPrune]):
    before = copy.deepcopy(net.state_dict())
    after = run(kind(rate=1e-6, floor=0.0), net, Toy(1)).state_dict()  # k = 1: 1 − 1/1
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("name", "fixed"), [("hard_mask", {"floor": 1.0}), ("ortho_tf_idf", {"score": "tf_idf"})]
)
def test_variants_fix_one_option_also_in_their_search(name: str, fixed: dict[str, object]):
    node = yaml.safe_load(Path(CONF_DIR, "method", f"{name}.yaml").read_text())
    assert node.pop("defaults") == ["soft_prune"]
    assert node.pop("name") == name
    assert node.pop("search") == {key: {"choices": [value]} for key, value in fixed.items()}
    assert node == fixed


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: SvdProjection(alpha_r=0), "method.alpha_r"),
        (lambda: SvdProjection(alpha_f=-1), "method.alpha_f"),
        (lambda: SvdProjection(samples=0), "method.samples"),
        (lambda: SvdProjection(patches=0), "method.patches"),
        (lambda: TfIdfPrune(rate=0), "method.rate"),
        (lambda: TfIdfPrune(rate=1.5), "method.rate"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object], option: str):
    with pytest.raises(UsageError, match=option):
        make()
