"""CF-k, and what EU-k shares with it: only the last layers change."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.errors import UsageError
from orthounlearn.methods.cf_k import CatastrophicForgettingK
from orthounlearn.methods.eu_k import ExactUnlearningK
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.layers import weighted_layers
from tests.methods.toy import IMAGES, LABELS, OPTIONS, Toy


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
    method = kind(k=k, **(OPTIONS | {"epochs": 1, "batch_size": 256}))
    context = RequestContext(
        experiment, method, splits=experiment.splits((3,)), seed=0,
        kept_folder=Path("/nowhere"),
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
    count = len(weighted_layers(net, IMAGES[:2]))
    method, plain = CatastrophicForgettingK(k=count, **OPTIONS), FineTune(**OPTIONS)
    method.start(net, Toy(1))
    assert len(method.parameters(net)) == len(plain.parameters(other))
    assert torch.equal(method.loss(net.train(), batch), plain.loss(other.train(), batch))


@pytest.mark.parametrize("kind", [CatastrophicForgettingK, ExactUnlearningK])
def test_impossible_numbers_of_layers_are_refused(net: nn.Module, kind):
    with pytest.raises(UsageError, match=r"method\.k"):
        kind(k=0, **OPTIONS)
    with pytest.raises(UsageError, match=r"method\.k of at most the (22|9) layers"):
        kind(k=100, **OPTIONS).start(net, Toy(1))
