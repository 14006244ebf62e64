"""Each way to cheat is caught by name, each honest retraining passes: thin ResNet-18, CIFAR-10.

Five networks are trained, once for all workers of pytest-xdist: half an hour of one core.
`make test-slow` runs it where the images are.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained
from tests.engine.audit.cheats import (
    Court,
    ascended,
    clamped,
    fine_tuned,
    head_distilled,
    masked,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

LABEL = 3  # cat


@pytest.fixture(scope="module")
def court(open_by_all: Callable[..., Experiment], cifar10_root: Path) -> Court:
    experiment = open_by_all(
        "data=cifar10", f"data.root={cifar10_root}", "model=resnet18_thin", "model.width=16",
        "recipe=cifar_cpu", "recipe.epochs=5", "recipe.image_sizes=[16,16,24,24,32]",
        "optimizer.lr=0.2", "metrics.max_images=2000",
    )  # fmt: skip
    networks = [(0, ()), *((seed, (LABEL,)) for seed in (1, 2, 0, 3))]
    # Two workers begin at different ends and meet: what one trains the other finds.
    from_the_end = os.environ.get("PYTEST_XDIST_WORKER", "gw0")[-1] in "13579"
    for seed, without in networks[::-1] if from_the_end else networks:
        ensure_trained(experiment, without=without, seed=seed)
    court = Court(experiment, LABEL, nn.Identity(), [])
    court.original = ensure_trained(experiment, seed=0).load(experiment)
    court.retrained = [
        ensure_trained(experiment, without=(LABEL,), seed=seed).load(experiment) for seed in (1, 2)
    ]
    return court


def test_the_original_is_not_forgetting(court: Court):
    assert court.figures(court.original)["acc/forget_test"] > 0.4
    assert court.verdict(court.original).headline == "under_unlearned"


@pytest.mark.parametrize("seed", [0, 3])
def test_an_honest_retraining_passes(court: Court, seed: int):
    stored = ensure_trained(court.experiment, without=(LABEL,), seed=seed)
    net = stored.load(court.experiment)
    assert court.verdict(net).flags == ("ok",)
    assert court.verdict(masked(net, court)).flags == ("ok",)  # nothing was there to hide


def test_an_untrained_network_is_damaged(court: Court):
    assert court.verdict(court.experiment.new_net(9).eval()).headline == "utility_fail"


@pytest.mark.parametrize("cheat", [masked, clamped, head_distilled])
def test_a_class_hidden_behind_the_last_layer_is_found_in_the_features(
    court: Court, cheat: Callable[[nn.Module, Court], nn.Module]
):
    net = cheat(court.original, court)
    assert court.figures(net)["acc/forget_test"] < 0.03
    assert court.verdict(net).headline == "head_only"


def test_a_few_steps_of_fine_tuning_are_not_enough(court: Court):
    found = court.verdict(fine_tuned(court.original, court, rate=0.01, steps=8))
    assert "under_unlearned" in found.flags


def test_an_overdose_of_gradient_ascent_is_more_than_forgetting(court: Court):
    found = court.verdict(ascended(court.original, court, rate=0.05, steps=20))
    assert {"utility_fail", "over_unlearned"} <= set(found.flags)


def test_a_network_that_was_blown_up_is_damaged_and_no_error(court: Court):
    found = court.verdict(ascended(court.original, court, rate=0.3, steps=20))
    assert "utility_fail" in found.flags
