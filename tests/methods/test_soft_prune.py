"""Soft pruning: which channels it takes and how far, against scores from scratch."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from orthounlearn.config import CONF_DIR
from orthounlearn.errors import UsageError
from orthounlearn.masking.attenuation import Inverse
from orthounlearn.methods.norm_matched_mask import NormMatchedMask
from orthounlearn.methods.random_mask import RandomMask
from orthounlearn.methods.soft_prune import SoftPrune
from tests.methods.references import assert_same
from tests.methods.toy import IMAGES, LABELS, Toy, run


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
    run(SoftPrune(rate=0.25, floor=0.5), net, Toy(*forget))
    torch.testing.assert_close(norm.weight.detach(), weight * factors)
    torch.testing.assert_close(norm.bias.detach(), bias * factors)


@pytest.mark.parametrize("kind", [SoftPrune, RandomMask, NormMatchedMask])
def test_only_the_norm_before_the_classifier_changes(net: nn.Module, kind: type[SoftPrune]):
    """With the last sites: where a residual sum is read, the norms of all its terms."""
    before = copy.deepcopy(net.state_dict())
    method = kind(sites="last", rate=0.3)
    after = run(method, net, Toy(1)).state_dict()
    edited = {
        f"{producer.norm}.{part}"
        for site in method._chosen
        for producer in site.producers
        for part in ("weight", "bias")
    }
    assert after.keys() == before.keys()
    assert {name for name in before if not torch.equal(after[name], before[name])} == edited
    assert len(edited) < len(list(net.parameters())) / 4


def test_hard_pruned_channels_are_silent(net: nn.Module):
    after = last_activations(run(SoftPrune(rate=0.3, floor=1.0), net, Toy(1)))
    silent = (after == 0).all(0).flatten(1).all(1).sum()
    assert silent >= -(-after.shape[1] * 3 // 10)


def test_soft_prune_answers_the_next_request_with_what_it_prepared(net: nn.Module):
    """`prepare` once; then requests for one class and for two, each as if it were the first."""
    for forget in ((0,), (1,), (0, 1)):
        prepared, context = copy.deepcopy(net), Toy(*forget)
        method = SoftPrune(rate=0.25, floor=0.5)
        method.prepare(prepared, Toy(3))
        fresh = run(SoftPrune(rate=0.25, floor=0.5), copy.deepcopy(net), context)
        assert_same(method.unlearn(prepared, context), fresh)


def test_saved_inverse_restores_the_original(net: nn.Module, tmp_path: Path):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    path = tmp_path / "inverse.safetensors"
    unlearned = run(SoftPrune(rate=0.5, floor=1.0, inverse=str(path)), net, Toy(1))
    assert any(not torch.equal(t, before[n]) for n, t in unlearned.state_dict().items())
    Inverse.load(path).restore(unlearned)
    assert all(torch.equal(t, before[n]) for n, t in unlearned.state_dict().items())


@pytest.mark.parametrize("kind", [SoftPrune, RandomMask, NormMatchedMask])
def test_strength_zero_is_the_identity(net: nn.Module, kind: type[SoftPrune]):
    before = copy.deepcopy(net.state_dict())
    after = run(kind(rate=1e-6, floor=0.0), net, Toy(1)).state_dict()  # k = 1: 1 − 1/1
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_score_of_a_variant_is_fixed_also_in_its_search():
    node = yaml.safe_load(Path(CONF_DIR, "method", "ortho_tf_idf.yaml").read_text())
    assert node["defaults"] == ["soft_prune"]
    assert node["search"] == {"score": {"choices": [node["score"]]}}


@pytest.mark.parametrize("name", ["hard_mask", "random_mask", "norm_matched_mask"])
@pytest.mark.parametrize("experiment", ["digits_cpu", "cifar10_cpu"])
def test_controls_are_compared_at_the_values_of_soft_prune(open_job, name: str, experiment: str):
    def options(method: str) -> dict[str, object]:
        node = open_job(f"experiment={experiment}", "data=digits", f"method={method}").config[
            "method"
        ]
        return {k: v for k, v in node.items() if k not in ("name", "_target_", "search", "gate")}

    ours = options("soft_prune")
    assert options(name) == (ours | {"floor": 1.0} if name == "hard_mask" else ours)


def test_unknown_score_is_refused():
    with pytest.raises(UsageError, match="activation_difference"):
        SoftPrune(score="other")
