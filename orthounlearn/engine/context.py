"""What a method may see and do while it prepares and while it answers a request."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from orthounlearn.data.loader import BatchLoader
from orthounlearn.data.splits import Splits
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.kept import keep
from orthounlearn.engine.store import ensure_trained
from orthounlearn.errors import UsageError
from orthounlearn.files import digest
from orthounlearn.lit.callbacks import Status
from orthounlearn.lit.loss_method import fit_loss_method
from orthounlearn.masking.statistics import ClassStatistics, class_statistics
from orthounlearn.masking.tracing import Site
from orthounlearn.methods.base import Batch, LossMethod, Phase, SplitName, UnlearningMethod

ONE_DEVICE: dict[str, Any] = {
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "sync_batchnorm": False,
}
"""A request takes a few epochs at most: starting more processes would cost more than it saves."""


_COUNTS = "counts"  # of the images of each class, beside the sums; no module has this name


class RequestContext:
    """The engine's `methods.base.Context`; it watches what a method reads, and when.

    Args:
        experiment: Data, device, recipe.
        method: Whose declarations count.
        splits: Of all classes forgotten by now; of none, where there is no request yet.
        gone: Those of them that earlier requests have forgotten: their images are deleted, so the
            method sees them in neither set, unless its preparation came before them.
        seed: Of the method's own randomness.
        kept_folder: Where what `prepare` made is kept, beside the checkpoint.
        shadow: Number of the shadow that the request is carried out on; None: no shadow.
    """

    def __init__(
        self,
        experiment: Experiment,
        method: UnlearningMethod,
        *,
        splits: Splits,
        gone: Sequence[int] = (),
        seed: int,
        kept_folder: Path,
        shadow: int | None = None,
    ) -> None:
        _refuse_reserved(method, method.prepare_uses | method.uses)
        self._experiment = experiment
        self._method = method
        self._before_all = splits
        self._left = splits.without(
            gone,
            train_labels=experiment.data.train.labels_N,
            test_labels=experiment.data.test.labels_N,
        )
        self._kept_folder = kept_folder
        self._shadow = shadow
        self._preparing = False
        self.seed = seed
        self.num_classes = experiment.data.num_classes
        self.example = experiment.example()
        self.mean, self.std = experiment.data.mean, experiment.data.std
        self.stored_seconds = 0.0
        """Preparation that was done by an earlier request and read from a file in this one."""
        self.kept_files: list[Path] = []
        """What of the preparation is on disk, for the next request."""

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Mark the time before the request: the forgotten classes are not known yet."""
        self._preparing = True
        try:
            yield
        finally:
            self._preparing = False

    @property
    def forget(self) -> tuple[int, ...]:
        """The classes of the request."""
        if self._preparing:
            raise PermissionError("The request is not known during prepare().")
        return self._left.forget

    @property
    def _splits(self) -> Splits:
        """The sets that there are now, or that there were when a lasting preparation was made."""
        return self._before_all if self._preparing and self._method.lasting else self._left

    def batches(
        self, split: SplitName, *, batch_size: int, augment: bool = False, shuffle: bool = False
    ) -> Iterable[Batch]:
        """Yield the float batches of a declared set, on the device.

        Of a preparation without a request (`engine.prepare`) the forget set has none.
        """
        if not self._before_all.forget and split in ("forget_train", "forget_val"):
            self._check(split)
            return
        loader = self._loader(split, batch_size=batch_size, shuffle=shuffle)
        transform = self._experiment.transform
        for images, labels in loader:
            moved = images.to(self._experiment.device)
            ready = transform.train(moved) if augment else transform.evaluate(moved)
            yield ready, labels.to(self._experiment.device)

    def statistics(
        self, net: nn.Module, *, sites: tuple[Site, ...], pooling: Literal["max", "mean"]
    ) -> ClassStatistics:
        """Return the statistics of all classes over the train set, from the file if it is there.

        A class that is gone has no images left: its sums and its count are 0.
        """
        name = f"statistics-{pooling}-{digest(sorted(site.name for site in sites))[:8]}"
        kept = self._keep(net, name, lambda: self._measure(net, sites, pooling))
        return ClassStatistics(
            {site.name: kept[site.name] for site in sites}, kept[_COUNTS], pooling
        )

    def _measure(
        self, net: nn.Module, sites: Sequence[Site], pooling: Literal["max", "mean"]
    ) -> dict[str, Tensor]:
        def everything() -> Iterator[Batch]:
            splits: tuple[SplitName, ...] = ("forget_train", "retain_train")
            for split in splits:
                yield from self.batches(split, batch_size=self._batch_size)

        measured = class_statistics(
            net,
            everything(),
            sites=sites,
            num_classes=self.num_classes,
            pooling=pooling,
            autocast=self._experiment.autocast,
        )
        return measured.sums | {_COUNTS: measured.counts_K}

    @property
    def _batch_size(self) -> int:
        return int(self._experiment.config["metrics"]["batch_size"])

    def kept(
        self, net: nn.Module, name: str, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return what `make` returns for this network, from the file if it is there."""
        kept = self._keep(net, name, make)
        return {key: tensor.to(self._experiment.device) for key, tensor in kept.items()}

    def _keep(
        self, net: nn.Module, name: str, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        found = keep(self._kept_folder, net, name, make)
        # Seconds of making count wherever it was done; those of waiting for it are not its price.
        self.stored_seconds += found.earlier_s - found.waited_s
        self.kept_files.append(found.path)
        return found.tensors

    def autocast(self) -> AbstractContextManager[None]:
        """Return the configured mixed precision."""
        return self._experiment.autocast()

    def fit(self, net: nn.Module, method: LossMethod) -> None:
        """Run the method's phases on one device with the configured precision."""
        experiment = self._experiment

        def loaders(phase: Phase, number: int) -> dict[str, BatchLoader]:
            # A phase of its own order: the first epoch of each would draw the same batches.
            seed = self.seed * 1_000_003 + number
            return {
                name: self._loader(*splits, batch_size=method.batch_size, shuffle=True, seed=seed)
                for name, splits in phase.sets.items()
            }

        fit_loss_method(
            net,
            method,
            loaders=loaders,
            trainer=lambda epochs: experiment.trainer(
                epochs=epochs, callbacks=[Status()], folder=experiment.runs, **ONE_DEVICE
            ),
            transform=experiment.transform,
            seed=self.seed,
        )
        net.to(experiment.device)

    def retrained(self, *, seed: int) -> tuple[nn.Module, float]:
        """Return the retrained network from the store, trained if it is not there."""
        stored = ensure_trained(
            self._experiment, without=self._before_all.forget, seed=seed, shadow=self._shadow
        )
        return stored.load(self._experiment), stored.seconds

    def _loader(self, *splits: SplitName, seed: int | None = None, **options: Any) -> BatchLoader:  # noqa: ANN401
        """Return the batches of one or more declared sets of the train part together."""
        for split in splits:
            self._check(split)
        return self._experiment.loader(
            self._splits, *splits, seed=self.seed if seed is None else seed, **options
        )

    def _check(self, split: SplitName) -> None:
        _refuse_reserved(self._method, {split})
        declared = self._method.prepare_uses if self._preparing else self._method.uses
        if split not in declared:
            phase = "prepare_uses" if self._preparing else "uses"
            raise PermissionError(
                f"{type(self._method).__name__} reads {split}, which its `{phase}` does not "
                "declare."
            )


def _refuse_reserved(method: UnlearningMethod, splits: Iterable[str]) -> None:
    """Refuse sets that belong to the audit alone, whatever a method declares.

    Raises:
        UsageError: A method may not read one of them.
    """
    readable = get_args(SplitName)
    reserved = sorted(set(splits) - set(readable))
    if reserved:
        raise UsageError(
            f"Expected {type(method).__name__} to declare and read sets out of "
            f"{', '.join(readable)}, but got {', '.join(reserved)}: test images are the audit's "
            "alone. Take that out of its `uses` or `prepare_uses`; what a method has to judge "
            "itself by is forget_val and retain_val."
        )
