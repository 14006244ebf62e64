"""Frozen teachers, divergences from them, and parts of a batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orthounlearn.methods.teachers import draw_share, frozen_copy, kl_divergence
from tests.methods.references import divergence
from tests.methods.toy import convolutional


@settings(max_examples=30)
@given(temperature=st.floats(0.5, 8), seed=st.integers(0, 999))
def test_divergence_is_the_mean_over_images(temperature: float, seed: int):
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, 5, 7)
    teacher[0, 2] = -torch.inf
    found = kl_divergence(student, teacher, temperature=temperature)
    expected = temperature**2 * divergence(teacher, student, temperature).mean()
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_teacher_is_deaf():
    net = convolutional()
    teacher = frozen_copy(net.train())
    net[0].weight.data.zero_()
    assert teacher[0].weight.any()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training


@settings(max_examples=30)
@given(share=st.floats(0, 1), count=st.integers(1, 300))
def test_share_of_a_batch_is_never_empty(share: float, count: int):
    always = torch.arange(count) % 3 == 1
    drawn = draw_share(count, share, always_B=always)
    assert drawn[always].all()
    assert drawn.any()
    many = draw_share(10_000, share, always_B=torch.zeros(10_000, dtype=torch.bool))
    assert many.float().mean().item() == pytest.approx(share, abs=0.03)
