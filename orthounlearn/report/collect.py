"""Finding finished runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orthounlearn.errors import UsageError
from orthounlearn.files import read_json

_PHASE = "unlearned/"


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        folder: Of its files.
        data: Name of the data set.
        model: Name of the network.
        regularizer: Of the original.
        method: Name.
        seed: Of the original.
        forget: Names of the classes of the request.
        after: Those of each request before it, in order.
        trials: How many chose the method's values; 0: its defaults; None: it has none to choose.
        metrics: Key without phase -> value of the unlearned model; undefined ones are left out.
        retrained: The same keys of the retrained model.
        original: The same keys of the original; empty if nobody said which that was.
        images: Split name -> number of images.
        classes: Names of all classes by label; empty if the run was made before they were stored.
        environment: Versions, device, command.
    """

    folder: Path
    data: str
    model: str
    regularizer: str
    method: str
    seed: int
    forget: tuple[str, ...]
    after: tuple[tuple[str, ...], ...]
    trials: int | None
    metrics: dict[str, float]
    retrained: dict[str, float]
    original: dict[str, float]
    images: dict[str, int]
    classes: tuple[str, ...]
    environment: dict[str, Any]

    @property
    def group(self) -> tuple[str, str, str]:
        """Return data, model and regularizer."""
        return self.data, self.model, self.regularizer

    @property
    def step(self) -> int:
        """Return the place of the request in its sequence, from 1; 1 is also a request alone."""
        return len(self.after) + 1


def find_runs(root: Path) -> tuple[list[Run], list[str]]:
    """Read all finished runs below a folder.

    Args:
        root: Folder of all results.

    Returns:
        The runs, and one message for each folder that could not be read.
    """
    folders = sorted(path.parent for path in root.glob("*/**/run.json"))
    return read_runs(folders)


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Read runs from their folders; return them, and a message for each that is damaged."""
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(_read(folder))
        except KeyError as error:
            problems.append(f"{folder}: no {error} in it; an older version made it, run it again")
        except (UsageError, TypeError, ValueError) as error:
            problems.append(f"{folder}: {error}")
    return runs, problems


def _read(folder: Path) -> Run:
    run = as_run(folder, read_json(folder / "run.json"), read_json(folder / "metrics.json"))
    if not run.metrics:
        raise UsageError(
            "its metrics.json has no figure of the unlearned network, so it is damaged. Delete the "
            "folder and run the job again."
        )
    return run


def as_run(folder: Path, identity: Mapping[str, Any], metrics: Mapping[str, float | None]) -> Run:
    """Return a run from what its `run.json` and its `metrics.json` say.

    Raises:
        KeyError: Something that identifies it is missing.
    """

    def phase(prefix: str) -> dict[str, float]:
        return {
            key.removeprefix(prefix): float(value)
            for key, value in metrics.items()
            if key.startswith(prefix) and value is not None
        }

    return Run(
        folder=folder,
        data=identity["data"],
        model=identity["model"],
        regularizer=identity["regularizer"],
        method=identity["method"],
        seed=int(identity["seed"]),
        forget=tuple(identity["forget"]),
        after=tuple(tuple(step) for step in identity["after"]),
        trials=identity.get("trials"),
        metrics=phase(_PHASE),
        retrained=phase("retrained/"),
        original=phase("original/"),
        images=identity["images"],
        classes=tuple(identity.get("classes", ())),
        environment=identity["environment"],
    )
