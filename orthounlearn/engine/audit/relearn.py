"""The relearning audit of one network: data, learning rates and evaluation around the attack."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import nn

from orthounlearn.data.loader import BatchLoader
from orthounlearn.data.splits import Indices, Splits, subsample
from orthounlearn.engine.audit.predict import DAMAGES, predict
from orthounlearn.engine.context import ONE_DEVICE
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import StoredModel
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, writing
from orthounlearn.lit.relearn import ready_to_relearn
from orthounlearn.lit.relearn import relearn as relearn_curve
from orthounlearn.metrics.accuracy import micro_accuracy
from orthounlearn.metrics.relearn import Accuracies, Curve, relearn_area, relearn_steps
from orthounlearn.metrics.sample import Mean, Sample, values
from orthounlearn.metrics.scores import Floats, correctness

_log = logging.getLogger(__name__)

_MOMENTUM = 0.9

_PROTOCOL: dict[str, Any] = {
    **ONE_DEVICE,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "limit_train_batches": None,
}
"""The attack is the same for every network, however its own training was configured."""


@dataclass(frozen=True)
class Relearned:
    """What the audit found.

    Attributes:
        curves: By `lr{lr:g}`.
        original: Accuracies of the network that knew the classes.
    """

    curves: dict[str, Curve]
    original: Accuracies

    @property
    def samples(self) -> dict[str, Sample]:
        """Return `relearn/lr{lr:g}/area`, image by image."""
        return {
            f"relearn/{name}/area": Mean.whole("forget_test", relearn_area(curve, self.original))
            for name, curve in self.curves.items()
        }

    @property
    def values(self) -> dict[str, float]:
        """Return `relearn/lr{lr:g}/area` and `relearn/lr{lr:g}/steps` (nan where censored)."""
        found = values(self.samples)
        for name, curve in self.curves.items():
            steps = relearn_steps(curve, self.original)
            found[f"relearn/{name}/steps"] = float("nan") if steps is None else float(steps)
        return found

    @property
    def lines(self) -> dict[str, Any]:
        """Return the curves to be drawn, `lr{lr:g}/{steps,forget,retain}` -> (S,)."""
        return {
            f"{name}/{kind}": getattr(curve, f"{kind}_S")
            for name, curve in self.curves.items()
            for kind in ("steps", "forget", "retain")
        }

    @property
    def arrays(self) -> dict[str, Any]:
        """Return all that is needed to make it again, for an .npz file."""
        return {
            f"{name}/{field}": getattr(curve, field)
            for name, curve in self.curves.items()
            for field in _FIELDS
        }

    @classmethod
    def of(cls, arrays: Mapping[str, Any], original: Accuracies) -> "Relearned":
        """Return what `arrays` came from."""
        names = dict.fromkeys(key.rpartition("/")[0] for key in arrays)
        curves = {name: Curve(*(arrays[f"{name}/{field}"] for field in _FIELDS)) for name in names}
        return cls(curves, original)


_FIELDS = ("steps_S", "right_SN", "retain_S")


def relearn(
    experiment: Experiment,
    net: nn.Module,
    splits: Splits,
    settings: Mapping[str, Any],
    *,
    original: Accuracies,
) -> Relearned:
    """Let a network learn the forgotten classes again, at several learning rates.

    It is trained on images of `forget_probe`, which no network has been trained on, together with
    `retain_train`, by SGD with momentum 0.9; accuracies are those of `forget_test` and
    `retain_test`. All draws have the seed of the splits, so that networks are compared on the same
    batches.

    Args:
        experiment: Data, device and precision.
        net: On the device; left as it is.
        splits: Of the request.
        settings: `images` per forgotten class to train on (all, where the probe set has fewer),
            `steps`, `every` how many of them to evaluate, `learning_rates`, `batch_size` per set,
            `batch_norm` (train or frozen), `reset_row` (see `ready_to_relearn`), and
            `max_test_images` of retained classes, a stratified sample.
        original: Accuracies of the network that knew the classes.

    Raises:
        UsageError: A setting is out of range.
    """
    _check(settings)
    seed = splits.seed
    start = ready_to_relearn(
        net,
        experiment.example(),
        forget=splits.forget,
        reset_row=settings["reset_row"],
        seed=seed,
    )
    fresh = _fresh_images(experiment, splits, settings["images"])
    asked = replace(
        splits,
        retain_test=subsample(
            splits.retain_test,
            experiment.data.test.labels_N,
            limit=settings["max_test_images"],
            seed=seed,
        ),
    )

    def loaders() -> dict[str, BatchLoader]:
        options = {"batch_size": settings["batch_size"], "shuffle": True, "seed": seed}
        return {
            "forget": experiment.loader(fresh, "forget_probe", **options),
            "retain": experiment.loader(splits, "retain_train", **options),
        }

    def evaluate(trained: nn.Module) -> tuple[Floats, float]:
        outputs = predict(experiment, trained, asked, ("forget_test", "retain_test"))
        return correctness(*outputs["forget_test"]), micro_accuracy(*outputs["retain_test"])

    def trainer(steps: int) -> Trainer:
        return experiment.trainer(epochs=-1, max_steps=steps, folder=experiment.runs, **_PROTOCOL)

    curves: dict[str, Curve] = {}
    for rate in settings["learning_rates"]:
        curve = relearn_curve(
            start,
            loaders=loaders,
            optimizer=partial(torch.optim.SGD, lr=rate, momentum=_MOMENTUM),
            steps=settings["steps"],
            every=settings["every"],
            batch_norm=settings["batch_norm"],
            evaluate=evaluate,
            trainer=trainer,
            transform=experiment.transform,
            seed=seed,
        )
        if np.isnan(curve.retain_S).any():
            _log.warning("Relearning with learning rate %g diverged; the rest counts as 0.", rate)
        curves[f"lr{rate:g}"] = curve
    return Relearned(curves, original)


def cached_relearn(
    experiment: Experiment,
    stored: StoredModel,
    splits: Splits,
    settings: Mapping[str, Any],
    *,
    original: Accuracies,
) -> Relearned:
    """Return what `relearn` does of a stored network; its curves are kept in its folder.

    Args:
        experiment: Data, device and precision.
        stored: The network.
        splits: Of the request.
        settings: As of `relearn`.
        original: Accuracies of the network that knew the classes.
    """
    path = stored.folder / f"relearn-{digest([splits.hash, dict(settings), _FIELDS])[:12]}.npz"
    if path.exists():
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return Relearned.of(dict(arrays), original)
        except DAMAGES as error:
            _log.warning("%s is damaged (%s). It is computed again.", path, error)
    net = stored.load(experiment)
    found = relearn(experiment, net, splits, settings, original=original)
    with writing(path) as temporary:
        np.savez(temporary, **found.arrays)
    return found


def _fresh_images(experiment: Experiment, splits: Splits, count: int) -> Splits:
    """Return the splits with `count` probe images of each forgotten class, or all there are."""
    labels = experiment.data.test.labels_N[splits.forget_probe]
    chosen: list[Indices] = []
    for label in splits.forget:
        members = splits.forget_probe[labels == label]
        rng = np.random.default_rng([splits.seed, label])
        chosen.append(rng.permutation(members)[:count])
    return replace(splits, forget_probe=np.sort(np.concatenate(chosen)))


def _check(settings: Mapping[str, Any]) -> None:
    for key in ("images", "steps", "every", "batch_size", "max_test_images"):
        if settings[key] < 1:
            raise UsageError(
                f"Expected metrics.relearn.{key} of at least 1, but got {settings[key]}."
            )
    if settings["steps"] % settings["every"]:
        raise UsageError(
            "Expected metrics.relearn.steps to be a multiple of metrics.relearn.every, "
            f"but got {settings['steps']} and {settings['every']}."
        )
    if settings["batch_norm"] not in ("train", "frozen"):
        raise UsageError(
            "Expected metrics.relearn.batch_norm to be train or frozen, "
            f"but got {settings['batch_norm']!r}."
        )
    rates = settings["learning_rates"]
    if not rates or min(rates) <= 0:
        raise UsageError(
            f"Expected metrics.relearn.learning_rates to be positive numbers, but got {rates}."
        )
