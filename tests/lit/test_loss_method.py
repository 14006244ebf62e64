"""The loop of a loss method: what its phases share though each has a Trainer of its own."""

from pathlib import Path
from types import SimpleNamespace

import torch
from lightning import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from orthounlearn.lit.loss_method import fit_loss_method
from orthounlearn.methods.l1_sparse import L1Sparse
from tests.methods.toy import IMAGES, LABELS, OPTIONS, convolutional


def test_phases_go_on_with_the_scale_of_float16_gradients(tmp_path: Path):
    """A scale that doubles after each good step: 2 phases of 5 steps end at 4 · 2¹⁰."""
    plugins = []

    def trainer(epochs: int) -> Trainer:
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
        plugins.append(MixedPrecision("16-mixed", "cpu", scaler))
        return Trainer(
            max_epochs=epochs, accelerator="cpu", plugins=[plugins[-1]], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=str(tmp_path),
        )  # fmt: skip

    batches = DataLoader(list(zip(IMAGES.split(8), LABELS.split(8), strict=True)), batch_size=None)
    fit_loss_method(
        convolutional(),
        L1Sparse(**OPTIONS, strength=1e-4),
        loaders=lambda phase, _: dict.fromkeys(phase.sets, batches),
        trainer=trainer,
        transform=SimpleNamespace(train=lambda images, generator: images),  # noqa: ARG005
        seed=0,
    )
    assert [plugin.scaler.get_scale() for plugin in plugins] == [4 * 2**5, 4 * 2**10]
