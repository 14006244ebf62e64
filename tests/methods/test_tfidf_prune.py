"""TF-IDF pruning, against scores by hand, and its fine-tuned variant."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.masking.tracing import Site
from orthounlearn.methods.soft_prune import SoftPrune
from orthounlearn.methods.tfidf_prune import TfIdfPrune, TfIdfPruneTuned
from tests.methods.references import assert_same
from tests.methods.toy import IMAGES, LABELS, OPTIONS, Toy, left_as_found, run


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
    norms = {
        f"{name}.{part}"
        for name, module in modules.items()
        if module in follower.values()
        for part in ("weight", "bias")
    }
    rest = {n: t.clone() for n, t in net.state_dict().items() if n not in norms}
    run(TfIdfPrune(rate=0.07), net, context)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in rest.items())
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
    method = TfIdfPruneTuned(**OPTIONS, rate=0.2)
    with left_as_found(net):
        method.prepare(net, context)
        assert_same(method.start(net, context), pruned)
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


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": 1.5}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        TfIdfPrune(**wrong)
