"""The norm-matched mask removes as much weight as soft pruning does, elsewhere."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from orthounlearn.methods.norm_matched_mask import NormMatchedMask, matched_strengths
from orthounlearn.methods.soft_prune import SoftPrune
from tests.methods.toy import Toy, run


@pytest.mark.parametrize("norm_handling", ["clean", "literal"])
@pytest.mark.parametrize("sites", ["last", "convs"])
@pytest.mark.parametrize("floor", [1.0, 0.5])
def test_norm_matched_mask_removes_as_much_weight(
    net: nn.Module, norm_handling: str, sites: str, floor: float
):
    """The weight that is gone, read off the state: Σ over channels of ‖w − w′‖, for each site."""
    options = {"sites": sites, "rate": 0.3, "floor": floor, "norm_handling": norm_handling}
    gone, touched = [], []
    for kind in (SoftPrune, NormMatchedMask):
        edited = copy.deepcopy(net)
        method = kind(**options)
        run(method, edited, Toy(1))
        losses, places = [], []
        for site in method._chosen:
            parts = []
            for producer in site.producers:
                layer = producer.norm if norm_handling == "clean" else producer.conv
                for p in ("weight", "bias"):
                    old = getattr(net.get_submodule(layer), p)
                    if old is not None:
                        new = getattr(edited.get_submodule(layer), p)
                        parts.append((old - new).detach().reshape(len(old), -1))
            by_channel = torch.cat(parts, 1).norm(dim=1)
            losses.append(by_channel.sum())
            places.append((by_channel > 0).tolist())
        gone.append(torch.stack(losses))
        touched.append(places)
    torch.testing.assert_close(*gone, rtol=1e-4, atol=1e-5)
    assert touched[0] != touched[1]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_matched_strengths_are_strengths_of_equal_weight(pairs, random):
    strength, norm = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True)
    )
    order = list(range(len(pairs)))
    random.shuffle(order)
    found = matched_strengths(strength, norm, torch.tensor(order))
    assert found.dot(norm).item() == pytest.approx(strength.dot(norm).item(), abs=1e-9)
    assert ((found >= 0) & (found <= strength.max())).all()
    drawn = found[order][norm[order] > 0]  # all of the largest strength, one rest, then none
    partial = (drawn > 1e-9) & (drawn < strength.max() - 1e-9)
    assert partial.sum() <= 1
    assert (drawn.diff() <= 1e-9).all()
