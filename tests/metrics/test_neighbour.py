"""The neighbour-class attack by hand."""

import numpy as np
import pytest

from orthounlearn.metrics.comparison import neighbour_samples
from orthounlearn.metrics.neighbour import nearest_class, neighbour_score
from orthounlearn.metrics.roc import auc
from orthounlearn.metrics.sample import values
from orthounlearn.metrics.suite import Outputs

LOGITS = np.log(np.array([[0.5, 0.3, 0.1, 0.1], [0.6, 0.1, 0.2, 0.1], [0.2, 0.5, 0.2, 0.1]]))


def test_nearest_class_has_the_largest_mean_probability_of_the_others():
    assert nearest_class([LOGITS], [0]) == 1
    assert nearest_class([LOGITS], [1]) == 0
    assert nearest_class([LOGITS + 7], [0]) == 1
    assert nearest_class([LOGITS], [0, 1]) == 2


def test_several_retrained_networks_decide_together():
    one, other = (np.log([row]) for row in ([0.1, 0.5, 0.4], [0.1, 0.1, 0.8]))
    assert nearest_class([one], [0]) == 1
    assert nearest_class([one, other], [0]) == 2


def neighbour_auc(one: np.ndarray, other: np.ndarray, **classes) -> float:
    return auc(neighbour_score(one, **classes), neighbour_score(other, **classes))


def test_scores_are_odds_among_the_other_classes():
    # log-odds of class 1 against 2 and 3: .3/.2, .1/.3, .5/.3
    forgotten, neighbours = LOGITS[:2], LOGITS[2:]
    assert neighbour_auc(forgotten, neighbours, forget=[0], neighbour=1) == 0.0
    assert neighbour_auc(neighbours, forgotten, forget=[0], neighbour=1) == 1.0
    assert neighbour_auc(LOGITS, LOGITS, forget=[0], neighbour=1) == 0.5


@pytest.mark.parametrize("logit", [-1e4, 50.0])
def test_the_logit_of_the_forgotten_class_plays_no_part(logit: float):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 50, 5))
    before = neighbour_auc(one, other, forget=[2], neighbour=4)
    one[:, 2] = logit
    assert neighbour_auc(one, other, forget=[2], neighbour=4) == before


def test_each_of_several_classes_is_attacked_by_its_own_neighbour():
    """Class 0 goes to 2, class 1 to 3; those of the first stand out, of the other not."""

    def at(odds: float, neighbour: int) -> list[float]:
        return [9.0, 9.0, odds, 0.0] if neighbour == 2 else [9.0, 9.0, 0.0, odds]

    logits = {
        "forget_test": np.array([at(5, 2), at(6, 2), at(1, 3), at(3, 3)], np.float32),
        "retain_test": np.array([at(2, 2), at(3, 2), at(2, 3), at(2, 3)], np.float32),
    }
    labels = {"forget_test": np.array([0, 0, 1, 1]), "retain_test": np.array([2, 2, 3, 3])}
    outputs = Outputs(logits, labels)
    (attack,) = neighbour_samples([outputs], [outputs])
    assert values(attack)["mia/neighbour/auc"] == pytest.approx((1.0 + 0.5) / 2)
