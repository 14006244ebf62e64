"""Logits of a network on the audited splits, with the test transform, in order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from orthounlearn.data.loader import BatchLoader
from orthounlearn.data.splits import Splits, subsample
from orthounlearn.engine.experiment import Experiment
from orthounlearn.files import writing
from orthounlearn.metrics.suite import AUDITED, Outputs


def predict(
    experiment: Experiment, net: nn.Module, splits: Splits, names: Sequence[str] = AUDITED
) -> Outputs:
    """Run a network over splits; its mode is restored.

    Args:
        experiment: Data, device and precision.
        net: On the device.
        splits: Of the request.
        names: Which splits.
    """
    logits, labels = {}, {}
    training = net.training
    net.eval()
    try:
        for name in names:
            loader = audit_loader(experiment, splits, name)
            parts = [(_logits(experiment, net, images), target) for images, target in loader]
            logits[name] = np.concatenate([part for part, _ in parts])
            labels[name] = np.concatenate([target.numpy() for _, target in parts])
    finally:
        net.train(training)
    return Outputs(logits, labels)


@torch.inference_mode()
def _logits(experiment: Experiment, net: nn.Module, images: torch.Tensor) -> NDArray[np.float32]:
    batch = experiment.transform.evaluate(images.to(experiment.device, non_blocking=True))
    with experiment.autocast():
        logits: NDArray[np.float32] = net(batch).float().cpu().numpy()
    return logits


def audit_loader(experiment: Experiment, splits: Splits, name: str) -> BatchLoader:
    """Return the batches of an audited split; of the retained training set, a stratified sample."""
    part = experiment.data.train if name.endswith(("_train", "_val")) else experiment.data.test
    indices = splits[name]
    if name == "retain_train":
        limit = experiment.config["metrics"]["max_images"]
        indices = subsample(indices, part.labels_N, limit=limit, seed=splits.seed)
    return BatchLoader(part, indices, batch_size=experiment.config["metrics"]["batch_size"])


def cached_outputs(experiment: Experiment, net: nn.Module, splits: Splits, folder: Path) -> Outputs:
    """Return the outputs of a stored network; computed once per request and then read."""
    limit = experiment.config["metrics"]["max_images"]
    path = folder / f"outputs-{splits.hash[:12]}-{limit}.npz"
    if path.exists():
        return load_outputs(path)
    outputs = predict(experiment, net, splits)
    save_outputs(outputs, path, splits)
    return outputs


def save_outputs(outputs: Outputs, path: Path, splits: Splits) -> None:
    """Write logits and labels with the hash of the splits, atomically."""
    arrays: dict[str, Any] = {f"logits/{name}": value for name, value in outputs.logits.items()}
    arrays |= {f"labels/{name}": value for name, value in outputs.labels.items()}
    with writing(path) as temporary:
        np.savez_compressed(temporary, splits_hash=np.array(splits.hash), **arrays)


def load_outputs(path: Path) -> Outputs:
    """Read what `save_outputs` wrote."""
    with np.load(path) as stored:
        return Outputs(
            {
                key.removeprefix("logits/"): stored[key]
                for key in stored
                if key.startswith("logits/")
            },
            {
                key.removeprefix("labels/"): stored[key]
                for key in stored
                if key.startswith("labels/")
            },
        )
