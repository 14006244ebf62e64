"""Retraining: a network of its own, from where the original started."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained
from orthounlearn.methods.retrain import Retrain

OWN = ("model=custom", "model._target_=tests.methods.toy.Foreign", "recipe.epochs=1")


def retrained(experiment: Experiment, net: nn.Module, **options: int) -> nn.Module:
    method = Retrain(**options)
    context = RequestContext(
        experiment, method, splits=experiment.splits((3,)), seed=0,
        kept_folder=Path("/nowhere"),
    )  # fmt: skip
    return method.unlearn(net, context)


def original(experiment: Experiment) -> nn.Module:
    return ensure_trained(experiment, seed=0).load(experiment)


def test_nothing_is_shared_with_the_original(open_job: Callable[..., Experiment]):
    experiment = open_job(*OWN)
    net, untouched = original(experiment), original(experiment).state_dict()
    after = retrained(experiment, net).state_dict()
    places = [
        {t.untyped_storage().data_ptr() for t in s.values()} for s in (net.state_dict(), after)
    ]
    assert not places[0] & places[1]
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, untouched[name]), name
        assert not torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("seed_offset", [0, 1])
def test_training_starts_from_the_weights_of_its_seed(
    open_job: Callable[..., Experiment], seed_offset: int
):
    """With a learning rate of 0 the weights stay where they start."""
    experiment = open_job(*OWN, "optimizer.lr=0")
    net = original(experiment)
    after = dict(retrained(experiment, net, seed_offset=seed_offset).named_parameters())
    for name, weight in net.named_parameters():
        if weight.ndim > 1:  # scales and shifts of a norm start alike for every seed
            assert torch.equal(after[name], weight) == (seed_offset == 0), name
