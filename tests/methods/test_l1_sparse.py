"""The ℓ1 penalty and its schedule."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.l1_sparse import L1Sparse
from tests.methods.references import assert_same, gradient
from tests.methods.toy import IMAGES, LABELS, OPTIONS, convolutional, trained


@given(epochs=st.integers(1, 12), rest=st.integers(0, 11), strength=st.floats(0, 1))
def test_l1_strength_falls_linearly_to_zero(epochs: int, rest: int, strength: float):
    rest %= epochs
    options = OPTIONS | {"epochs": epochs}
    found = L1Sparse(**options, strength=strength, no_l1_epochs=rest).strengths()
    line = np.linspace(strength, 0, epochs - rest + 1)
    np.testing.assert_allclose(found, [*line[:-1], *[0] * rest], atol=1e-12)
    assert found[0] == strength
    assert min(found) >= 0


def test_l1_phases_add_each_epochs_share_of_the_norm():
    net = convolutional()
    method = L1Sparse(**(OPTIONS | {"epochs": 4}), strength=0.5, no_l1_epochs=2)
    batch = {"retain_train": (IMAGES, LABELS)}
    plain = F.cross_entropy(net(IMAGES), LABELS)
    norm = sum(np.abs(p.detach().numpy()).sum() for p in net.parameters())
    found = [phase.loss(net, batch) - plain for phase in method.phases()]
    expected = [0.5 * norm, 0.25 * norm, 0, 0]
    np.testing.assert_allclose([f.item() for f in found], expected, rtol=1e-5, atol=1e-6)
    signs = torch.cat([p.detach().sign().flatten() for p in net.parameters()])
    torch.testing.assert_close(gradient(found[1], net), 0.25 * signs, atol=1e-6, rtol=0)


def test_l1_of_strength_zero_is_fine_tuning():
    net = convolutional()
    assert_same(trained(L1Sparse(**OPTIONS, strength=0), net, 1),
                trained(FineTune(**OPTIONS), net, 1))  # fmt: skip


@pytest.mark.parametrize("wrong", [{"strength": -1.0}, {"no_l1_epochs": 2}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        L1Sparse(**OPTIONS, **wrong)
