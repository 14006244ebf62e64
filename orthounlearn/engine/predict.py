"""Logits of a network on the audited splits, with the test transform, in order."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from orthounlearn.data.loader import BatchLoader
from orthounlearn.data.splits import Splits, subsample
from orthounlearn.engine.experiment import Experiment
from orthounlearn.errors import UsageError
from orthounlearn.files import writing
from orthounlearn.methods.head import find_classifier
from orthounlearn.metrics.suite import AUDITED, PROBED, Outputs

_KINDS = ("logits", "labels", "features")


def predict(
    experiment: Experiment, net: nn.Module, splits: Splits, names: Sequence[str] = AUDITED
) -> Outputs:
    """Run a network over splits; its mode is restored.

    Args:
        experiment: Data, device and precision.
        net: On the device.
        splits: Of the request.
        names: Which splits. Features are kept of those that probes read, if the logits come
            straight out of a linear layer.
    """
    logits, labels, features = {}, {}, {}
    training = net.training
    net.eval()
    try:
        with _reading_features(experiment, net) as read:
            for name in names:
                batches = []
                for images, target in audit_loader(experiment, splits, name):
                    outputs = _logits(experiment, net, images)
                    batches.append((outputs, read() if name in PROBED else None, target.numpy()))
                logits[name] = np.concatenate([part for part, _, _ in batches])
                labels[name] = np.concatenate([part for _, _, part in batches])
                kept = [part for _, part, _ in batches if part is not None]
                if kept:
                    features[name] = np.concatenate(kept)
    finally:
        net.train(training)
    return Outputs(logits, labels, features)


@contextmanager
def _reading_features(
    experiment: Experiment, net: nn.Module
) -> Iterator[Callable[[], NDArray[np.float16] | None]]:
    """Yield a function that returns what the classifier read in the last forward pass."""
    last: list[torch.Tensor] = []
    try:
        classifier = find_classifier(net, experiment.example())
    except UsageError:  # a network of another shape: audited without probes
        yield lambda: None
        return

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        last[:] = inputs[:1]

    handle = classifier.register_forward_pre_hook(keep)
    try:
        yield lambda: last[0].half().cpu().numpy()  # 11 bits are plenty for a linear probe
    finally:
        handle.remove()


@torch.inference_mode()
def _logits(experiment: Experiment, net: nn.Module, images: torch.Tensor) -> NDArray[np.float32]:
    batch = experiment.transform.evaluate(images.to(experiment.device, non_blocking=True))
    with experiment.autocast():
        logits: NDArray[np.float32] = net(batch).float().cpu().numpy()
    return logits


def audit_loader(experiment: Experiment, splits: Splits, name: str) -> BatchLoader:
    """Return the batches of a split; of retained images of the train part a stratified sample."""
    part = experiment.data.train if name.endswith(("_train", "_val")) else experiment.data.test
    indices = splits[name]
    if name in ("retain_train", "retain_val"):
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
    """Write all arrays with the hash of the splits, atomically."""
    arrays: dict[str, Any] = {
        f"{kind}/{name}": value for kind in _KINDS for name, value in getattr(outputs, kind).items()
    }
    with writing(path) as temporary:
        np.savez_compressed(temporary, splits_hash=np.array(splits.hash), **arrays)


def load_outputs(path: Path) -> Outputs:
    """Read what `save_outputs` wrote."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    with np.load(path) as stored:
        for key in stored:
            kind, _, name = key.partition("/")
            if kind in found:
                found[kind][name] = stored[key]
    return Outputs(**found)
