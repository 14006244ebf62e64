"""The loss of an edit against its formula, term by term."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from orthounlearn.masking.transport import class_moments
from orthounlearn.methods.class_edits.distil import _Loss
from orthounlearn.methods.class_edits.held_out import HeldOut
from orthounlearn.methods.class_edits.inputs import Place, Recipe, Seen

CLASSES, SIZE, CLASS = 3, 8, 1
RECIPE = Recipe(
    feature_weight=0.5, retain_weight=4.0, critic_weight=0.3, held_out_steps=1, steps=1,
    batch_size=SIZE, learning_rate=1e-2, sum_steps=0, sum_learning_rate=1e-3,
)  # fmt: skip
LAYERS = ("early", "late")
LABELS = torch.arange(48) % CLASSES
OURS = torch.nonzero(LABELS == CLASS)[:, 0]
CHOSEN = torch.cat([OURS[:SIZE], torch.nonzero(LABELS != CLASS)[:SIZE, 0]])


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FEATURES = {layer: drawn(48, 4, seed=i) for i, layer in enumerate(LAYERS)}
SEEN = Seen(
    torch.empty(0),
    LABELS,
    drawn(48, CLASSES, seed=5),
    FEATURES,
    {layer: class_moments(values, LABELS, CLASSES) for layer, values in FEATURES.items()},
)
BELIEFS = F.one_hot(torch.zeros(16, dtype=torch.long), CLASSES) * 0.75
BELIEFS[:, 2] = 0.25
WANTED = {layer: drawn(16, 4, seed=10 + i) for i, layer in enumerate(LAYERS)}
LOGITS = drawn(2 * SIZE, CLASSES, seed=20)
READ = {layer: drawn(2 * SIZE, 4, seed=30 + i) for i, layer in enumerate(LAYERS)}


def loss(recipe: Recipe = RECIPE, *, early: float = 1e9, late: float = 1e9) -> float:
    """Return the loss where critics may find the class as surely as this."""
    allowed = {"early": torch.tensor(early), "late": torch.tensor(late)}
    held_out = HeldOut(BELIEFS, WANTED, allowed)
    made = _Loss(Place(LAYERS, ()), SEEN, recipe, CLASS, OURS, held_out)
    return float(made(LOGITS, READ, CHOSEN))


def without_critics(recipe: Recipe) -> float:
    said = LOGITS.softmax(1)
    wanted = torch.cat([BELIEFS[:SIZE], SEEN.logits_NK.softmax(1)[CHOSEN[SIZE:]]])
    known = wanted.clamp(min=1e-30).log()
    expected = (wanted * (known - said.log())).sum(1).mean() * 2
    for layer in LAYERS:
        unit = SEEN.moments[layer].deviation_C
        ours = ((READ[layer][:SIZE] - WANTED[layer][:SIZE]) / unit).square().mean()
        others = ((READ[layer][SIZE:] - FEATURES[layer][CHOSEN[SIZE:]]) / unit).square().mean()
        expected += recipe.feature_weight * (ours + recipe.retain_weight * others)
    return float(expected)


@pytest.mark.parametrize(
    "recipe", [RECIPE, replace(RECIPE, feature_weight=0.0), replace(RECIPE, retain_weight=0.5)]
)
def test_class_goes_where_the_held_out_network_sees_it_and_the_others_stay(recipe: Recipe):
    assert loss(recipe) == pytest.approx(without_critics(recipe), rel=1e-5)


@pytest.mark.parametrize(("early", "late", "counted"), [(1e9, 0, 1), (0, 1e9, 1), (0, 0, 2)])
def test_critics_count_where_they_find_more_than_in_the_held_out_network(
    early: float, late: float, counted: int
):
    """Untaught critics believe in each of K classes alike: −log(1 − 1/K)."""
    unsure = -torch.log1p(torch.tensor(-1 / CLASSES)).item()
    more = loss(early=early, late=late) - without_critics(RECIPE)
    assert more == pytest.approx(counted * RECIPE.critic_weight * unsure, rel=1e-4)


def test_critics_that_find_as_little_count_for_nothing():
    unsure = -torch.log1p(torch.tensor(-1 / CLASSES)).item() + 1e-4
    assert loss(early=unsure, late=unsure) == pytest.approx(without_critics(RECIPE), rel=1e-5)


def test_classes_are_equal_to_critics():
    """Half of a step is of one class: it gets the weight of each of the others."""
    weights = SEEN.weights(SIZE)
    assert weights.tolist() == [0.5] * SIZE + [1.0] * SIZE
