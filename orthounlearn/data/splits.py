"""Which image plays which part: training, choosing, auditing, probing."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from orthounlearn.errors import UsageError
from orthounlearn.files import writing

Indices = NDArray[np.int64]

SPLIT_NAMES = (
    "forget_train",
    "forget_val",
    "forget_test",
    "forget_probe",
    "retain_train",
    "retain_val",
    "retain_test",
)


@dataclass(frozen=True)
class Splits:
    """Sorted indices; `*_train` and `*_val` count in the official train part, the others in test.

    Attributes:
        forget_train: D_f, trained on by the original.
        forget_val: Forgotten classes, never trained on; may choose hyper-parameters.
        forget_test: Forgotten classes, never seen: non-members of the audit.
        forget_probe: Forgotten classes, never seen: fits probes and relearning.
        retain_train: D_r.
        retain_val: Other classes, never trained on; chooses hyper-parameters.
        retain_test: Other classes, never seen: audit.
        forget: The forgotten classes, sorted; () when the original is trained.
        seed: Of the random cuts.
        val_fraction: Share of each class of the train part that is held out, in [0, 1).
    """

    forget_train: Indices
    forget_val: Indices
    forget_test: Indices
    forget_probe: Indices
    retain_train: Indices
    retain_val: Indices
    retain_test: Indices
    forget: tuple[int, ...]
    seed: int
    val_fraction: float

    def __getitem__(self, name: str) -> Indices:
        """Return the indices of the split called `name`."""
        indices: Indices = getattr(self, name)
        return indices

    @property
    def hash(self) -> str:
        """SHA-256 of all indices and of what made them."""
        sha = hashlib.sha256()
        for name in SPLIT_NAMES:
            sha.update(name.encode())
            sha.update(self[name].astype("<i8").tobytes())
        sha.update(repr((self.forget, self.seed, self.val_fraction)).encode())
        return sha.hexdigest()

    def without(
        self,
        gone: Sequence[int],
        *,
        train_labels: NDArray[np.int64],
        test_labels: NDArray[np.int64],
    ) -> "Splits":
        """Return the splits of the request that is left when some of its classes are deleted.

        The images of these classes are in no split of the result. D_r is the same: it never had
        them.

        Args:
            gone: Some of `forget`.
            train_labels: (N,) labels of the official train part.
            test_labels: (M,) labels of the official test part.
        """

        def left(name: str) -> Indices:
            labels = train_labels if name.endswith(("_train", "_val")) else test_labels
            kept: Indices = self[name][~np.isin(labels[self[name]], gone)]
            return kept

        changes: dict[str, Any] = {name: left(name) for name in SPLIT_NAMES}
        changes["forget"] = tuple(label for label in self.forget if label not in gone)
        return replace(self, **changes)

    def trained_on(self, members_N: NDArray[np.bool_]) -> "Splits":
        """Return splits whose train sets have only the given images.

        Args:
            members_N: (N,) over the official train part.
        """
        kept: dict[str, Any] = {
            name: self[name][members_N[self[name]]] for name in ("forget_train", "retain_train")
        }
        return replace(self, **kept)

    def save(self, path: Path) -> None:
        """Write the splits and their hash to an .npz file, atomically."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        with writing(path) as temporary:
            np.savez_compressed(temporary, hash=self.hash, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Splits":
        """Read splits.

        Raises:
            UsageError: The file is missing or damaged.
        """
        try:
            with path.open("rb") as file, np.load(file) as stored:
                splits = cls(
                    **{name: stored[name] for name in SPLIT_NAMES},
                    forget=tuple(int(c) for c in stored["forget"]),
                    seed=int(stored["seed"]),
                    val_fraction=float(stored["val_fraction"]),
                )
                intact = str(stored["hash"]) == splits.hash
        except (OSError, EOFError, KeyError, ValueError, BadZipFile, zlib.error) as error:
            raise UsageError(
                f"Expected splits in {path}, but cannot read them ({error})."
            ) from error
        if not intact:
            raise UsageError(f"The splits in {path} do not have the hash that was saved with them.")
        return splits


def make_splits(
    train_labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
    *,
    forget: Sequence[int] = (),
    val_fraction: float = 0.1,
    probe_fraction: float = 0.5,
    seed: int = 0,
) -> Splits:
    """Cut a data set for a request.

    The cut between train and val is stratified and does not depend on the request, so that one
    original serves all requests. The official test part is only divided, never trained on.

    Args:
        train_labels: (N,) labels of the official train part.
        test_labels: (M,) labels of the official test part.
        forget: Classes to forget; none when the original is trained.
        val_fraction: Share of each class held out of training, in [0, 1).
        probe_fraction: Share of the forgotten classes' test images that probes are fitted on.
        seed: Of the cuts.

    Raises:
        UsageError: A share is out of range, or a class has too few images for it.
    """
    for key, share in (("data.val_fraction", val_fraction), ("probe_fraction", probe_fraction)):
        if not 0 <= share < 1:
            raise UsageError(f"Expected {key} to be in [0, 1), but got {share}.")
    val, train = _cut_each_class(train_labels, val_fraction, seed)
    probe, test = _cut_each_class(test_labels, probe_fraction, seed)
    for part, indices, labels in (("train", train, train_labels), ("test", test, test_labels)):
        emptied = sorted(set(np.unique(labels).tolist()) - set(labels[indices].tolist()))
        if emptied:
            raise UsageError(
                f"Expected images of every class for {part}, but none is left of {emptied}."
            )
    forgotten = tuple(sorted(forget))

    def chosen(indices: Indices, labels: NDArray[np.int64], *, forgets: bool) -> Indices:
        kept: Indices = indices[np.isin(labels[indices], forgotten) == forgets]
        return kept

    everything = np.arange(len(test_labels))
    return Splits(
        forget_train=chosen(train, train_labels, forgets=True),
        forget_val=chosen(val, train_labels, forgets=True),
        forget_test=chosen(test, test_labels, forgets=True),
        forget_probe=chosen(probe, test_labels, forgets=True),
        retain_train=chosen(train, train_labels, forgets=False),
        retain_val=chosen(val, train_labels, forgets=False),
        retain_test=chosen(everything, test_labels, forgets=False),
        forget=forgotten,
        seed=seed,
        val_fraction=val_fraction,
    )


def _cut_each_class(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Indices, Indices]:
    """Draw a share of each class; return the drawn and the other indices, both sorted."""
    drawn = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # One stream per class: adding a class does not change the cut of the others.
        rng = np.random.default_rng([seed, int(label)])
        drawn[rng.permutation(members)[: round(share * len(members))]] = True
    return np.flatnonzero(drawn), np.flatnonzero(~drawn)


def subsample(indices: Indices, labels: NDArray[np.int64], *, limit: int, seed: int = 0) -> Indices:
    """Return at most about `limit` indices, stratified by class, sorted.

    Args:
        indices: To choose from.
        labels: Of the whole part that `indices` counts in.
        limit: Number of images; each class keeps its share, rounded.
        seed: Of the draw.
    """
    if len(indices) <= limit:
        return indices
    drawn, _ = _cut_each_class(labels[indices], limit / len(indices), seed)
    return indices[drawn]


def resolve_forget(
    forget: Any,  # noqa: ANN401
    class_names: Sequence[str],
    *,
    option: str = "forget",
) -> tuple[int, ...]:
    """Return the class numbers of a request.

    Text is the name of a class first. Where names are numbers themselves, as of folders `0`, `1`,
    `10`, `2`, positions count for nothing.

    Args:
        forget: A class or a list of classes, each a name or a number.
        class_names: K names.
        option: What the user called it, for messages.

    Raises:
        UsageError: There is no such class, none, all of them, or one twice; or a number is the
            name of one class and the position of another.

    >>> resolve_forget(["dog", 0], ["cat", "dog", "emu"])
    (0, 1)
    >>> resolve_forget(["10", "2"], ["0", "1", "10", "2"])
    (2, 3)
    """
    names = list(class_names)
    entries = (
        [] if forget is None else list(forget) if isinstance(forget, (list, tuple)) else [forget]
    )
    if not entries:
        raise UsageError(
            f"Expected {option}=CLASS or {option}=[CLASS,…], but got none. Valid: {_valid(names)}."
        )
    classes = [_resolve_entry(entry, names, option) for entry in entries]
    if len(set(classes)) < len(classes):
        raise UsageError(f"Expected each class once in {option}, but got {entries}.")
    if len(classes) == len(names):
        raise UsageError(
            f"Expected at least one class to retain, but {option} names all {len(names)}."
        )
    return tuple(sorted(classes))


def _resolve_entry(entry: Any, names: list[str], option: str) -> int:  # noqa: ANN401
    if isinstance(entry, bool) or not isinstance(entry, (str, int)):
        raise UsageError(f"Expected a class name or number in {option}, but got {entry!r}.")
    name = str(entry)
    position = int(name) if name.isdecimal() and int(name) < len(names) else None
    if name in names:
        label = names.index(name)
        # Text was quoted, so it is meant; of a bare number nobody knows, and it destroys a class.
        if isinstance(entry, int) and position not in (None, label):
            other = names[entry]
            raise UsageError(
                f"Expected {option} to name one class, but {name} is the name of class number "
                f"{label} and the number of class {other!r}. Give the name as text, '{name}' or "
                f"'{other}', with its quotes inside those of the shell: \"forget='{name}'\"."
            )
        return label
    if position is None or _numbered(names):
        raise UsageError(
            f"Expected {option} to name a class, but got {entry!r}. Valid: {_valid(names)}."
        )
    return position


def said(label: int, class_names: Sequence[str]) -> int | str:
    """Return what says a class to `resolve_forget`: its number, or its name if that is another.

    >>> said(2, ["cat", "dog", "emu"]), said(2, ["0", "1", "10", "2"])
    (2, '10')
    """
    name = class_names[label]
    return name if _numbered(class_names) and name != str(label) else label


def _numbered(names: Sequence[str]) -> bool:
    """Return whether a class name is a number, which a position could be mistaken for."""
    return any(name.isdecimal() for name in names)


def _valid(names: list[str]) -> str:
    """Return what a class can be called, for messages."""
    positions_differ = names != [str(index) for index in range(len(names))]
    called = (
        names
        if _numbered(names) and positions_differ
        else [f"{index} ({name})" for index, name in enumerate(names)]
    )
    return ", ".join(called if len(names) <= 20 else [*called[:20], "…", called[-1]])


def resolve_sequence(
    after: Sequence[Any],
    forget: Any,  # noqa: ANN401
    class_names: Sequence[str],
) -> tuple[tuple[int, ...], ...]:
    """Return the class numbers of each request of a sequence, in order.

    Args:
        after: The earlier requests, each a class or a list of classes.
        forget: The last one.
        class_names: K names.

    Raises:
        UsageError: One of them is not valid, a class is in two, or none would be retained.

    >>> resolve_sequence([["emu"], 0], "dog", ["cat", "dog", "emu", "fox"])
    ((2,), (0,), (1,))
    """
    steps = (
        *(
            resolve_forget(entry, class_names, option=f"after[{position}]")
            for position, entry in enumerate(after)
        ),
        resolve_forget(forget, class_names),
    )
    classes = [label for step in steps for label in step]
    twice = sorted({label for label in classes if classes.count(label) > 1})
    if twice:
        raise UsageError(
            "Expected each class in one request of after and forget, but more than one names "
            f"{', '.join(f'{label} ({class_names[label]})' for label in twice)}."
        )
    if len(classes) == len(class_names):
        raise UsageError(
            "Expected at least one class to retain, but after and forget together name all "
            f"{len(class_names)}."
        )
    return steps
