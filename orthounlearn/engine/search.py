"""A stored search over a method's declared space: resumable, one budget for all processes."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from orthounlearn.errors import UsageError
from orthounlearn.files import make_folder

_log = logging.getLogger(__name__)

WORST = 2.0
"""Of a setting without a result: as bad as forgetting nothing and losing everything."""

Values = Mapping[str, Any]
"""Dotted option -> value."""


def search(
    path: Path,
    *,
    space: Mapping[str, Mapping[str, Any]],
    own: Values,
    judge: Callable[[Values], float],
    trials: int,
) -> optuna.Study:
    """Judge settings until so many of this file are judged, and return them all.

    The method's own values come first, so that what is found is never worse than them; where they
    are refused, so is the search. Any later setting that the method refuses (more layers than
    there are, an iteration that does not converge) is a bad one, and counts.

    A second process waits for the first and then has nothing left to do. A setting that was
    interrupted is not judged: a killed search goes on with the method's own values if these were
    it, and otherwise with another draw.

    Args:
        path: File of the search.
        space: Option -> its `low` and `high`, or its `choices`.
        own: The method's own values, of the same options.
        judge: Smaller is better; `UsageError` refuses a setting.
        trials: Of all processes and calls together.

    Raises:
        UsageError: The method's own values are refused, or are none of the choices.
    """
    for option, axis in space.items():
        if own[option] not in axis.get("choices", [own[option]]):
            raise UsageError(
                f"Expected method.{option} to be one of those that are searched, "
                f"{list(axis['choices'])}, but got {own[option]!r}. Leave the option out of the "
                f"search with ~method.search.{option}, or give its choices anew with "
                f"method.search.{option}.choices=[…]."
            )

    def objective(trial: optuna.Trial) -> float:
        values = {option: _suggest(trial, option, axis) for option, axis in space.items()}
        try:
            found = judge(values)
        except UsageError as refusal:
            if values == own:
                raise
            _log.warning("%s: refused, so as bad as can be: %s", path.stem, refusal)
            found = WORST
        _log.info("%s: %.4f with %s", path.stem, found, values)
        return found

    make_folder(path.parent)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _alone(path):
        study = optuna.create_study(
            study_name=path.stem,
            storage=JournalStorage(JournalFileBackend(str(path))),
            direction="minimize",
            load_if_exists=True,
        )
        # With one seed for all, a search that goes on would draw what it has drawn before.
        study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
        if not any(_has(trial, own) for trial in study.trials):
            study.enqueue_trial(dict(own))
        study.optimize(objective, n_trials=max(0, trials - judged(study)))
    return study


def judged(study: optuna.Study) -> int:
    """Return how many settings were judged."""
    return sum(trial.state == TrialState.COMPLETE for trial in study.trials)


def _has(trial: FrozenTrial, values: Values) -> bool:
    """Return whether a setting was judged with these values, or is next."""
    if trial.state == TrialState.WAITING:
        return bool(trial.system_attrs.get("fixed_params") == values)
    return trial.state == TrialState.COMPLETE and trial.params == values


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes out of a search; say so if one has to be waited for."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("Another process searches in %s: waiting for it.", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _suggest(trial: optuna.Trial, option: str, axis: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if "choices" in axis:
        return trial.suggest_categorical(option, axis["choices"])
    low, high, log = axis["low"], axis["high"], axis.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(option, low, high, log=log)
    return trial.suggest_float(option, low, high, log=log, step=axis.get("step"))
