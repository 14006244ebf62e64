"""Each way to cheat is caught by name, each honest retraining passes: small networks, Gaussians.

A class is a point in 144 dimensions, an image a draw around it; a small network overfits on 120 of
them per class, so that memory, hiding and forgetting all have something to show.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from orthounlearn.data.images import ImageData, ImageSet
from orthounlearn.engine.experiment import Experiment
from orthounlearn.metrics import membership, roc
from orthounlearn.metrics.sample import values
from orthounlearn.metrics.verdict import Verdict
from tests.engine.audit.cheats import (
    Court,
    ascended,
    clamped,
    erased,
    fine_tuned,
    head_distilled,
    masked,
    stitched,
)

LABEL = 3
K, SIDE = 10, 12
OUTPUT_CHEATS = [masked, clamped, head_distilled]


def gaussians() -> ImageData:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 0.26, (K, SIDE * SIDE))

    def part(per_class: int) -> ImageSet:
        labels = np.repeat(np.arange(K), per_class)
        images = centres[labels] + rng.normal(size=(len(labels), SIDE * SIDE))
        bytes_ = np.clip(np.rint(128 + 28 * images), 0, 255).astype(np.uint8)
        return ImageSet(bytes_.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int64))

    names = tuple(f"class {label}" for label in range(K))
    # 180 of which 60 are held out, so that a probe has 50 of each class
    return ImageData("gaussians", part(180), part(400), names, (0.5,), (28 / 255,), "gaussians")


def train(court: Court, seed: int, *, without: bool, epochs: int = 40) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(  # linear layers, two of them as convolutions: these are blocks
        nn.Conv2d(1, 128, SIDE), nn.ReLU(), nn.Conv2d(128, 64, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, K),
    )  # fmt: skip
    parts = [court.images("retain_train", 10_000)]
    if not without:
        parts.append(court.images("forget_train", 10_000))
    images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for rows in order.split(60):
            optimizer.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def court(open_shared: Callable[..., Experiment]) -> Court:
    experiment = open_shared("data.val_fraction=0.3333", "metrics=standard")
    experiment = replace(experiment, data=gaussians())
    court = Court(experiment, LABEL, nn.Identity(), [])
    court.original = train(court, 0, without=False)
    court.retrained = [train(court, seed, without=True) for seed in (1, 2, 3)]
    return court


def test_an_overfitted_original_is_caught_by_what_it_says_and_remembers(court: Court):
    figures = court.figures(court.original)
    assert figures["acc/forget_train"] > 0.98
    assert figures["mia/pop_margin/auc"] > 0.6
    found = court.verdict(court.original)
    assert found.headline == "under_unlearned"
    expected = {
        "acc/forget_train",
        "acc/forget_test",
        "mia/pop_margin/auc",
        "probe/k50",
        "probe/depth",
    }
    assert expected <= {key for key, outcome in outcomes(found).items() if outcome == "higher"}


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_an_honest_retraining_passes(court: Court, seed: int):
    net = train(court, seed, without=True)
    figures = court.figures(net)
    assert abs(figures["mia/pop_margin/auc"] - 0.5) < 3 * error_of_auc(court)
    assert figures["compat/salun_confidence"] >= 0.95
    assert court.verdict(net).flags == ("ok",)


def error_of_auc(court: Court) -> float:
    """Standard error where members and others are alike."""
    images = len(court.splits.forget_train), len(court.splits.forget_test)
    return float(np.sqrt((sum(images) + 1) / (12 * images[0] * images[1])))


def outcomes(found: Verdict) -> dict[str, str]:
    return {check.key: check.outcome for check in found.checks}


def test_an_untrained_network_knows_nothing_and_is_damaged(court: Court):
    net = train(court, 6, without=False, epochs=0)
    figures = court.figures(net)
    assert abs(figures["mia/pop_margin/auc"] - 0.5) < 3 * error_of_auc(court)
    assert figures["acc/test_all"] == pytest.approx(1 / K, abs=0.03)
    assert court.verdict(net).headline == "utility_fail"


@pytest.mark.parametrize("cheat", OUTPUT_CHEATS)
def test_a_class_hidden_behind_the_last_layer_is_found_in_the_features(
    court: Court, cheat: Callable[[nn.Module, Court], nn.Module]
):
    net = cheat(court.original, court)
    figures, before = court.figures(net), court.figures(court.original)
    assert figures["acc/forget_test"] < 0.02
    assert figures["probe/k50"] == pytest.approx(before["probe/k50"], abs=1e-6)
    assert figures["compat/salun_confidence"] >= 0.95  # the figure of the papers sees nothing
    assert court.indices(net)["depth/index"] == pytest.approx(1)
    assert court.verdict(net).flags[0] == "head_only"


def test_the_same_last_layer_on_features_without_the_class_is_no_cheat(court: Court):
    """What is caught is the features, not the mask."""
    assert court.verdict(masked(train(court, 7, without=True), court)).flags == ("ok",)


@pytest.mark.parametrize("cheat", [masked, clamped])
def test_a_hidden_class_is_relearned_far_sooner_than_an_unknown_one(
    court: Court, cheat: Callable[[nn.Module, Court], nn.Module]
):
    ours, theirs = (
        court.relearned(net) for net in (cheat(court.original, court), court.retrained[0])
    )
    for rate in ("lr0.001", "lr0.01"):
        area, steps = f"relearn/{rate}/area", f"relearn/{rate}/steps"
        assert ours[area] > theirs[area] + 0.2
        assert np.isnan(theirs[steps])
        if cheat is masked:  # a clamp has lost its row, and has to learn that
            assert ours[steps] == 0


@pytest.mark.parametrize("cheat", [erased, stitched])
def test_a_class_taken_out_between_features_and_classifier_is_found_in_the_depth(
    court: Court, cheat: Callable[[nn.Module, Court], nn.Module]
):
    """No block has changed; what the classifier reads holds no more than after retraining."""
    net = cheat(court.original, court)
    figures, indices = court.figures(net), court.indices(net)
    assert figures["acc/forget_test"] < 0.02
    assert indices["probe/k50_index"] < 0.5
    assert indices["depth/index"] == pytest.approx(1)
    found = court.verdict(net)
    assert outcomes(found)["probe/depth"] == "higher"
    assert found.headline == "head_only"
    honest = court.indices(train(court, 7, without=True))
    assert abs(honest["depth/index"]) < 0.5


def test_fine_tuning_that_forgets_a_part_is_not_enough(court: Court):
    net = fine_tuned(court.original, court, rate=1.0, steps=120)
    found, before = court.verdict(net), court.figures(court.original)
    assert 0.5 < court.figures(net)["acc/forget_test"] < before["acc/forget_test"] - 0.1
    assert "under_unlearned" in found.flags
    # Not by its accuracy on the class alone.
    assert outcomes(found)["probe/k50"] == outcomes(found)["mia/pop_margin/auc"] == "higher"
    assert court.indices(net)["probe/k50_index"] > 0.5


def test_an_overdose_of_gradient_ascent_is_more_than_forgetting(court: Court):
    mild = court.figures(ascended(court.original, court, rate=0.02, steps=1))
    over = ascended(court.original, court, rate=1.0, steps=12)
    found, figures = court.verdict(over), court.figures(over)
    assert figures["acc/forget_test"] < 0.02 <= mild["acc/forget_test"]
    assert figures["mia/pop_margin/auc"] < 0.45 < 0.6 < mild["mia/pop_margin/auc"]
    assert {"utility_fail", "over_unlearned"} <= set(found.flags)


def test_gradient_ascent_that_stops_where_the_attack_finds_nothing_is_found_by_the_probe(
    court: Court,
):
    """On its way from above ½ to below, the AUC of an overdose passes the retrained one's."""
    net = ascended(court.original, court, rate=0.3, steps=12)
    found = court.verdict(net)
    assert court.figures(net)["acc/forget_test"] < 0.02
    assert outcomes(found)["mia/pop_margin/auc"] == "alike"
    assert outcomes(found)["probe/k50"] == "higher"
    assert "under_unlearned" in found.flags


def test_an_evaluation_leak_turns_the_attack_around_and_chance_gives_one_half(court: Court):
    outputs = court.outputs(court.original)
    members, others = outputs["forget_train"], outputs["forget_test"]

    def area(one: tuple, other: tuple) -> float:
        attacks = membership.population_attacks(*one, *other, forget=[LABEL])
        return values(attacks)["pop_margin/auc"]

    assert area(others, members) == pytest.approx(1 - area(members, others))
    both = [np.concatenate(pair) for pair in zip(members, others, strict=True)]
    order = np.random.default_rng(0).permutation(len(both[1]))
    half = len(order) // 2
    one, other = ((both[0][rows], both[1][rows]) for rows in (order[:half], order[half:]))
    assert area(one, other) == pytest.approx(0.5, abs=3 * np.sqrt(1 / (6 * half)))
    assert roc.advantage(area(members, others)) > 0.2
