"""The penalty inside a training: counted once, whatever the accumulation, device or precision."""

import copy

import pytest
import torch
from lightning import Trainer
from torch import nn

from orthounlearn.data.augment import BatchTransform
from orthounlearn.lit.callbacks import Orthogonality
from orthounlearn.lit.classifier import LitClassifier
from orthounlearn.models import resnet
from orthounlearn.orthogonality.penalties import SoftOrthogonality

# The same in each run: of random ones some have a ReLU's input so near 0 that rounding decides.
_DRAWS = torch.Generator().manual_seed(0)
BATCHES = [
    (
        torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=_DRAWS),
        torch.randint(0, 3, (8,), generator=_DRAWS),
    )
    for _ in range(4)
]
LOADERS = [torch.utils.data.DataLoader(BATCHES[:n], batch_size=None) for n in (4, 1)]
"""For training and for validation."""


def classifier(net: nn.Module) -> LitClassifier:
    return LitClassifier(
        net,
        transform=BatchTransform(mean=[0.5], std=[0.5]),
        num_classes=3,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=0.0),
    )


def fit(net: nn.Module, callback: Orthogonality | None, **options: object) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if callback else [],
        **{"max_epochs": 1, **options},
    )
    trainer.fit(classifier(net), *LOADERS)
    return trainer


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return resnet(depth=20, num_classes=3, in_channels=1, image_size=8, width=4)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_penalty_matches_manual_under_grad_accumulation(
    net: nn.Module, accumulate: int, every: int
):
    """With `every` 3 the first of three optimiser steps carries the term, three times."""
    manual = copy.deepcopy(net)
    penalty = SoftOrthogonality(weight=0.01, every=every)
    fit(net, Orthogonality(penalty), accumulate_grad_batches=accumulate)

    transform = BatchTransform(mean=[0.5], std=[0.5])
    optimizer = torch.optim.SGD(manual.parameters(), lr=0.1)
    for step, start in enumerate(range(0, len(BATCHES), accumulate)):
        group = BATCHES[start : start + accumulate]
        cross_entropy = sum(
            nn.functional.cross_entropy(manual(transform.evaluate(images)), labels)
            for images, labels in group
        ) / len(group)
        optimizer.zero_grad()
        weight = 0.01 * every if step % every == 0 else 0.0
        (cross_entropy + SoftOrthogonality(weight=weight)(manual)).backward()
        optimizer.step()
    for found, expected in zip(net.parameters(), manual.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-5)


@pytest.mark.gpu
def test_penalty_passes_the_fp16_scaler(net: nn.Module):
    before = copy.deepcopy(net)
    trainer = Trainer(
        accelerator="gpu", devices=1, precision="16-mixed", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Orthogonality(SoftOrthogonality(weight=0.01))],
    )  # fmt: skip
    trainer.fit(classifier(net), *LOADERS)
    assert all(p.isfinite().all() for p in net.parameters())
    assert not torch.equal(next(before.parameters()), next(net.parameters()).cpu())


def test_without_the_callback_training_is_plain(net: nn.Module):
    plain = copy.deepcopy(net)
    fit(plain, None)
    fit(net, Orthogonality(SoftOrthogonality(weight=0.0)))
    for found, expected in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_gram_error_of_each_layer_is_logged(net: nn.Module):
    penalty = SoftOrthogonality(weight=0.01)
    logged = fit(net, Orthogonality(penalty)).callback_metrics
    layers = {key.removeprefix("gram_error/") for key in logged if key.startswith("gram_error/")}
    assert layers == set(penalty.kernels(net))
    total = sum(logged[f"gram_error/{layer}"] for layer in layers)
    torch.testing.assert_close(logged["gram_error"], total)
    assert {"train/cross_entropy", "train/orthogonality"} <= set(logged)


def test_schedule_follows_the_share_of_training(net: nn.Module):
    seen: list[float] = []

    class Spy(SoftOrthogonality):
        def scale(self, progress: float) -> float:
            seen.append(progress)
            return super().scale(progress)

    fit(net, Orthogonality(Spy(weight=0.01)), max_epochs=2)
    assert seen == pytest.approx([step / 8 for step in range(8)])
