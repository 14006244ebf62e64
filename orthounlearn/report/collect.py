"""Finding finished runs, each cell once, and telling apart what has one name."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orthounlearn.errors import UsageError
from orthounlearn.files import read_json

MARK = " #"
"""Between a name and what tells it apart from others."""

DIVERGED = "diverged.json"
"""File of a run without figures, since its method diverged: what it is called by, and why."""

_PHASE = "unlearned/"
_SHOWN = 8

_KINDS = (
    ("data", "fingerprint", ()),
    ("model", "network", ("data", "regularizer")),
    ("method", "settings", ("data", "model", "regularizer")),
)
"""A name, what tells things of that name apart, and within what; in order, as names get longer."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        folder: Of its files.
        data: Name of the data set; marked, as model and method are, where others have it too.
        model: Name of the network.
        regularizer: Of the original.
        method: Name.
        fingerprint: Of the data; None, like the next three, if an older version made the run.
        network: Short hash of how the original was trained, but for its seed; or of its file.
        settings: Short hash of the method's options; of a network from elsewhere, of its file.
        options: Those options by dotted name; empty if the run was made before they were stored.
        audit: Version of the audit.
        origin: Hash of the original, with its seed.
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
    fingerprint: str | None
    network: str | None
    settings: str | None
    options: dict[str, Any]
    audit: int | None
    origin: str | None
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


def find_diverged(
    root: Path, *, data: str | None = None, folders: Iterable[Path] | None = None
) -> list[str]:
    """Return what is to be said of the runs without figures, sorted.

    Args:
        root: Folder of all results.
        data: Only runs on this data set.
        folders: Only these runs; None takes all.
    """
    chosen = root.glob("*/**") if folders is None else folders
    told = set()
    for folder in chosen:
        if (folder / DIVERGED).is_file() and not (folder / "metrics.json").exists():
            run = read_json(folder / DIVERGED)
            if data in (None, run["data"]):
                classes = " then ".join("+".join(step) for step in [*run["after"], run["forget"]])
                what = f"{run['model']}, {run['regularizer']}, seed {run['seed']}, {classes}"
                told.add(f"{run['method']} ({what})")
    return sorted(told)


def find_runs(root: Path) -> tuple[list[Run], list[str]]:
    """Read all finished runs below a folder.

    Args:
        root: Folder of all results.

    Returns:
        The runs, and messages as from `read_runs`.
    """
    return read_runs(sorted(path.parent for path in root.glob("*/**/run.json")))


def read_runs(folders: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Read runs from their folders, a cell that was audited several times once.

    Args:
        folders: Of the runs.

    Returns:
        The runs, with the names of what differs told apart, and what was left out: a message for
        each folder that is damaged, and one for all older audits.
    """
    runs: list[Run] = []
    problems = []
    for folder in folders:
        if (folder / DIVERGED).exists() and not (folder / "metrics.json").exists():
            continue  # see `find_diverged`
        try:
            runs.append(_read(folder))
        except KeyError as error:
            problems.append(f"{folder}: no {error} in it; an older version made it, run it again")
        except (UsageError, TypeError, ValueError) as error:
            problems.append(f"{folder}: {error}")
    told = _told_apart(runs)
    kept = _once(told)
    if older := len(told) - len(kept):
        problems.append(
            f"{older} older audit{'s' if older > 1 else ''} of what was audited again: same "
            "network, request and settings"
        )
    return kept, problems


def plain_name(name: str) -> str:
    """Return a name without the mark that tells it apart.

    >>> plain_name("soft_prune #1a2b3c4d")
    'soft_prune'
    """
    return name.partition(MARK)[0]


def is_marked(name: str) -> bool:
    """Return whether a name is one of several that differ in their mark alone."""
    return MARK in name


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Mark names that stand for different things, so that nothing averages over these.

    Runs of older versions do not say what they are of, and keep the name.
    """
    marked = list(runs)
    options = _options_that_differ(runs)
    for name, kind, within in _KINDS:
        kinds: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for run in marked:
            if getattr(run, kind):
                kinds[_fields(run, *within, name)].add(getattr(run, kind))
        for index, run in enumerate(marked):
            if getattr(run, kind) and len(kinds[_fields(run, *within, name)]) > 1:
                mark = options.get((run.method, getattr(run, kind))) if name == "method" else None
                told: dict[str, Any] = {
                    name: f"{getattr(run, name)}{MARK}{mark or getattr(run, kind)[:_SHOWN]}"
                }
                marked[index] = replace(run, **told)
    return marked


def _options_that_differ(runs: Sequence[Run]) -> dict[tuple[str, str | None], str]:
    """Return what to call a method's settings: the options in which its runs differ.

    Settings are left out where their runs do not say their options, or say the same.
    """
    of_method: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        if run.settings:
            of_method[run.method][run.settings] = run.options
    found: dict[tuple[str, str | None], str] = {}
    for method, kinds in of_method.items():
        names = list(dict.fromkeys(name for options in kinds.values() for name in options))
        differing = [
            name for name in names if len({repr(kind.get(name)) for kind in kinds.values()}) > 1
        ]
        said = {
            settings: " ".join(f"{name}={options.get(name)}" for name in differing)
            for settings, options in kinds.items()
        }
        if all(kinds.values()) and len(set(said.values())) == len(said):
            found |= {(method, settings): name for settings, name in said.items()}
    return found


def _once(runs: Sequence[Run]) -> list[Run]:
    """Return the best audit of each cell.

    Where no run of a cell says its settings they may be different ones, and all stay.
    """
    cells: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        cells[_fields(run, "group", "method", "origin", "seed", "after", "forget")].append(run)
    kept = []
    for members in cells.values():
        told = any(run.settings for run in members)
        kept += [max(members, key=_rank)] if told else members
    return kept


def _fields(run: Run, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(run, name) for name in names)


def _rank(run: Run) -> tuple[float, ...]:
    """Return what is larger for a better audit: its version, what it measured, when."""
    measured = len(run.metrics) + len(run.retrained) + len(run.original)
    return run.audit or 0, measured, (run.folder / "metrics.json").stat().st_mtime


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
        fingerprint=identity.get("data_fingerprint"),
        network=identity.get("network"),
        settings=identity.get("settings"),
        options=identity.get("options", {}),
        audit=identity.get("audit"),
        origin=identity.get("origin"),
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
