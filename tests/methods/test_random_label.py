"""Random labels: which labels are drawn, and what is trained on them."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.nn import functional as F

from orthounlearn.methods.random_label import RandomLabel, relabel
from tests.methods.toy import IMAGES, LABELS, OPTIONS, Toy, convolutional


@given(classes=st.integers(2, 12), forget=st.sets(st.integers(0, 11)), seed=st.integers(0, 999))
def test_new_labels_are_never_the_true_ones(classes: int, forget: set[int], seed: int):
    torch.manual_seed(seed)
    labels = torch.randint(classes, (64,))
    forgotten = torch.tensor([label in forget for label in range(classes)])
    new = relabel(labels, forgotten)
    assert ((new != labels) == forgotten[labels]).all()
    assert new.min() >= 0
    assert new.max() < classes


def test_new_labels_are_uniform_over_all_other_classes():
    new = relabel(torch.full((9000,), 3), torch.arange(10) % 3 == 0)
    counts = new.bincount(minlength=10)
    assert counts[3] == 0
    assert chisquare(np.delete(counts.numpy(), 3)).pvalue > 1e-3


def test_random_label_trains_on_both_sets_shuffled_together():
    net = convolutional()
    method = RandomLabel(**OPTIONS)
    method.start(net, Toy(1, 2))
    (phase,) = method.phases()
    assert phase.sets == {"all": ("forget_train", "retain_train")}
    torch.manual_seed(3)
    found = method.loss(net, {"all": (IMAGES, LABELS)})
    torch.manual_seed(3)
    shifts = torch.randint(1, 4, (40,))
    targets = [(y + s) % 4 if y in (1, 2) else y for y, s in zip(LABELS, shifts, strict=True)]
    torch.testing.assert_close(found, F.cross_entropy(net(IMAGES), torch.tensor(targets)))
