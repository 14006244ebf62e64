"""One request on one kind of original, with all methods that carried it out: what figures read."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics.scores import Ints
from orthounlearn.report.collect import MARK, Run, plain_name
from orthounlearn.report.rows import group_title, method_rank
from orthounlearn.report.style import Look

ORIGINAL, RETRAIN = "original", "retrain"

MOST = 12
"""Methods that one figure of curves can show at first."""

FEW = (
    f"Of more than {MOST} methods only the references, ours, and those that the verdict and then "
    "the average gap to retraining place first are drawn."
)
"""What a caption says of that."""

_OURS = ("class_transport", "soft_prune")

_KEPT = {ORIGINAL: "original", RETRAIN: "retrained"}
"""Method -> its name in the references of another run."""

_COMPARED = re.compile(r"_(gap(_low|_high)?|floor)$")

Answers = tuple[NDArray[np.float32], Ints]
"""Logits (N, K) and labels (N,) of one network on one split."""


@dataclass(frozen=True)
class Case:
    """The runs of one request, by method; over seeds, figures are means.

    Attributes:
        data: Name of the data set.
        model: Name of the network.
        regularizer: Of the original.
        after: Classes of each request before it.
        forget: Names of its classes.
        runs: Method -> its runs, one for each seed; references first.
        looks: Method -> how it is drawn.
    """

    data: str
    model: str
    regularizer: str
    after: tuple[tuple[str, ...], ...]
    forget: tuple[str, ...]
    runs: dict[str, list[Run]]
    looks: dict[str, Look]

    @property
    def title(self) -> str:
        """Return what a reader chooses it by."""
        before = f" after {_listed(sum(self.after, ()))}" if self.after else ""
        group = group_title(self.data, self.model, self.regularizer)
        return f"{group}: forget {_listed(self.forget)}{before}"

    @property
    def slug(self) -> str:
        """Return a file name."""
        before = "_after-" + "-".join(sum(self.after, ())) if self.after else ""
        parts = self.data, self.model, self.regularizer, "forget-" + "-".join(self.forget)
        return ("_".join(parts) + before).replace(MARK, "-")

    @property
    def methods(self) -> list[str]:
        """Return the methods, references first; these also where other runs alone tell of them."""
        return list(dict.fromkeys([ORIGINAL, RETRAIN, *self.runs]))

    @property
    def rivals(self) -> list[str]:
        """Return the methods without the references; ours first of what a menu shows."""
        return sorted(
            (method for method in self.runs if method not in (ORIGINAL, RETRAIN)), key=_our_place
        )

    @property
    def prominent(self) -> list[str]:
        """Return the methods of a figure that has room for a few, in the order of `methods`.

        References and ours, then those that the verdict and the gap to retraining place first.
        """
        verdict, gap = self.values("verdict/ok"), self.values("avg_gap")
        others = sorted(
            self.rivals,
            key=lambda method: (
                _our_place(method),
                -verdict.get(method, 0.0),
                gap.get(method, inf),
            ),
        )
        chosen = {ORIGINAL, RETRAIN, *others[: MOST - 2]}
        return [method for method in self.methods if method in chosen]

    @property
    def gone(self) -> tuple[str, ...]:
        """Return the names of all classes that are forgotten after this request."""
        return (*sum(self.after, ()), *self.forget)

    def classes(self, count: int) -> list[str]:
        """Return the names of all `count` classes; their numbers where no run has stored names."""
        for run in self._all():
            if len(run.classes) == count:
                return list(run.classes)
        return [str(label) for label in range(count)]

    def values(self, key: str) -> dict[str, float]:
        """Return method -> mean of a figure over seeds, where it is defined.

        What a run says of its references stands in where these have no run of their own.
        """
        found = {}
        for method, phase in ((ORIGINAL, "original"), (RETRAIN, "retrained")):
            told = [getattr(run, phase)[key] for run in self._all() if key in getattr(run, phase)]
            if told:
                found[method] = fmean(told)
        for method, runs in self.runs.items():
            own = [run.metrics[key] for run in runs if key in run.metrics]
            if own:
                found[method] = fmean(own)
        return found

    def keys(self, prefix: str) -> list[str]:
        """Return all keys of figures that start with a prefix, sorted; gaps and floors left out."""
        keys = {key for run in self._all() for key in run.metrics if key.startswith(prefix)}
        return sorted(key for key in keys if not _COMPARED.search(key))

    def answers(self, method: str, split: str) -> list[Answers]:
        """Return logits and labels of a method's runs on a split, one for each seed.

        What a run has kept of its references stands in where these have no run of their own.
        """
        seeds = dict.fromkeys(run.seed for run in sorted(self._all(), key=lambda run: run.seed))
        found = [self.answers_of_seed(method, split, seed) for seed in seeds]
        return [answers for answers in found if answers is not None]

    def answers_of_seed(self, method: str, split: str, seed: int) -> Answers | None:
        """Return those of one seed; None if no file has them."""
        if method in self.runs:
            runs = [run for run in self.runs[method] if run.seed == seed]
            return _answers(runs[0], split) if runs else None
        told = (_reference(run, method, split) for run in self._all() if run.seed == seed)
        return next((answers for answers in told if answers is not None), None)

    def arrays(self, method: str, name: str) -> list[dict[str, NDArray[np.floating]]]:
        """Return the arrays of a file in each of a method's run directories that has it."""
        found = []
        for run in self.runs.get(method, []):
            path = run.folder / name
            if path.exists():
                with np.load(path) as stored:
                    found.append(dict(stored))
        return found

    def curves(self, method: str, kind: str) -> list[dict[str, NDArray[np.floating]]]:
        """Return the curves of one kind of a method's runs, one entry for each seed that has any.

        What a run has kept of its references stands in where these have no run of their own.
        """
        runs = self.runs.get(method)
        phase = "unlearned" if runs else _KEPT.get(method)
        by_seed: dict[int, dict[str, NDArray[np.floating]]] = {}
        for run in runs or self._all() if phase else ():
            if run.seed not in by_seed and (found := _curves(run, f"{phase}/{kind}/")):
                by_seed[run.seed] = found
        return [by_seed[seed] for seed in sorted(by_seed)]

    def _all(self) -> Iterator[Run]:
        for runs in self.runs.values():
            yield from runs


def _answers(run: Run, split: str) -> Answers | None:
    path = run.folder / "outputs.npz"
    if not path.exists():
        return None
    with np.load(path) as stored:
        if f"logits/{split}" not in stored:
            return None
        return stored[f"logits/{split}"], stored[f"labels/{split}"]


def _curves(run: Run, prefix: str) -> dict[str, NDArray[np.floating]]:
    path = run.folder / "curves.npz"
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return {key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)}


def _reference(run: Run, method: str, split: str) -> Answers | None:
    """Return what a run has kept of its original or retrained network."""
    path = run.folder / "references.npz"
    if method not in _KEPT or not path.exists():
        return None
    own = _answers(run, split)
    with np.load(path) as stored:
        key = f"{_KEPT[method]}/logits/{split}"
        if own is None or key not in stored:
            return None
        return stored[key].astype(np.float32), own[1]


def make_cases(runs: Sequence[Run], looks: dict[str, Look]) -> list[Case]:
    """Group runs by the request that they carried out."""
    grouped: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        grouped[*run.group, run.after, run.forget].append(run)
    cases = []
    for members in grouped.values():
        methods: dict[str, list[Run]] = defaultdict(list)
        for run in sorted(members, key=lambda run: (method_rank(run.method), run.method, run.seed)):
            methods[run.method].append(run)
        first = members[0]
        cases.append(Case(*first.group, first.after, first.forget, dict(methods), looks))
    return sorted(cases, key=lambda case: case.title)


def _our_place(method: str) -> int:
    name = plain_name(method)
    return _OURS.index(name) if name in _OURS else len(_OURS)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
