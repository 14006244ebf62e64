"""The influence step, against rank-one updates of the inverse and a direct solution."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.methods import influence
from orthounlearn.methods.influence import Influence
from tests.methods.references import one_by_one, values
from tests.methods.toy import IMAGES, Toy, convolutional, perceptron, run


def test_influence_step_is_the_one_of_rank_one_updates():
    """WoodFisher's recursion for (κI + 1/N Σ g gᵀ)⁻¹, every image updating the whole inverse."""
    alpha, damping, context = 3.0, 0.05, Toy(1, images=IMAGES.double())
    net = perceptron().double()
    theta = torch.cat([p.detach().flatten() for p in net.parameters()])

    def gradients(split: str) -> Tensor:
        rows = one_by_one(net, *context.of(split), F.cross_entropy)
        return torch.cat([g.flatten(1) for g in rows.values()], 1)

    forget, retain = gradients("forget_train"), gradients("retain_train")
    inverse = torch.eye(len(theta), dtype=torch.float64) / damping
    for g in retain:
        image = inverse @ g
        inverse -= image.outer(image) / (len(retain) + g @ image)
    right = len(forget) / len(IMAGES) * (forget.mean(0) - retain.mean(0))
    expected = theta + alpha * inverse @ right

    after = run(Influence(alpha=alpha, damping=damping, batch_size=5), net, context)
    found = torch.cat([p.detach().flatten() for p in after.parameters()])
    step = (expected - theta).norm()
    assert step > 0.01
    assert (found - expected).norm() < 1e-4 * step


def test_influence_runs_in_eval_mode_through_batch_norm():
    net = convolutional().double().train()
    context = Toy(2, images=IMAGES.double())
    reference = convolutional().double()
    rows = {
        split: one_by_one(reference, *context.of(split), F.cross_entropy)
        for split in ("forget_train", "retain_train")
    }
    forget, retain = (torch.cat([g.flatten(1) for g in r.values()], 1) for r in rows.values())
    matrix = retain.T @ retain / len(retain) + torch.eye(forget.shape[1])
    direction = torch.linalg.solve(matrix, (forget.mean(0) - retain.mean(0)) / 4)
    before = torch.cat([p.detach().flatten() for p in reference.parameters()])
    after = run(Influence(alpha=2.0), net, context)
    assert after.training
    found = torch.cat([p.detach().flatten() for p in after.parameters()])
    torch.testing.assert_close(found, before + 2 * direction, rtol=1e-4, atol=1e-6)


def test_influence_without_a_step_changes_nothing_and_with_one_forgets():
    before = values(convolutional())
    for name, value in values(run(Influence(alpha=0), convolutional().train(), Toy(1))).items():
        assert torch.equal(value, before[name])
    images, labels = Toy(1).of("forget_train")
    old, new = convolutional(), run(Influence(alpha=1.0), convolutional().train(), Toy(1)).eval()
    assert F.cross_entropy(new(images), labels) > F.cross_entropy(old(images), labels)


@pytest.mark.parametrize("held", [4 * 37 * 16, 4 * 1000 * 16])
def test_the_step_is_the_same_however_few_columns_fit_the_memory(
    held: int, monkeypatch: pytest.MonkeyPatch
):
    whole = values(run(Influence(alpha=1.0), convolutional(), Toy(1)))
    monkeypatch.setattr(influence, "_HELD", held)
    for name, value in values(run(Influence(alpha=1.0), convolutional(), Toy(1))).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"damping": 0}, {"alpha": -1}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        Influence(**wrong)


def test_eigenvalues_that_rounding_has_lost_are_those_of_the_damping():
    """After a request that blew the gradients up, their products are no longer positive."""
    vectors, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    right = torch.randn(4, 1, dtype=torch.float64)
    lost, kept = (
        torch.tensor([last, 3.0, 1e6, 1e9], dtype=torch.float64) for last in (-20.0, 0.01)
    )
    found = influence._solved(vectors * lost @ vectors.T, right, least=0.01)
    expected = vectors @ (vectors.T @ right / kept[:, None])
    assert torch.allclose(found, expected, rtol=1e-6)
    plain = influence._solved(vectors * kept @ vectors.T, right, least=0.01)
    assert torch.allclose(plain, expected, rtol=1e-4)


def test_gradients_without_a_size_are_a_divergence():
    with pytest.raises(DivergedError, match="gradients of finite size"):
        influence._solved(torch.full((2, 2), torch.nan), torch.ones(2, 1), least=0.1)
