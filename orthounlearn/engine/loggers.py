"""The configured loggers of one run: opened together, closed together."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from orthounlearn.config.build import build
from orthounlearn.engine.experiment import Experiment
from orthounlearn.errors import UsageError


@contextmanager
def opened(
    experiment: Experiment, folder: Path, *, job_type: Literal["train", "unlearn", "evaluate"]
) -> Iterator[list[Logger]]:
    """Yield the loggers of a run directory; end what they started when the block ends.

    Args:
        experiment: Whose `logger` node counts. Options that a node leaves `null` and the run
            knows (`name` or `run_name`, `job_type`) are filled in, so that a dashboard can group
            by them.
        folder: Of the run; logs go below it.
        job_type: What the run does.

    Yields:
        The loggers, with the configuration logged.
    """
    outer = _wandb_run()
    name = folder.relative_to(experiment.runs).as_posix()
    known = {"name": name, "run_name": name, "job_type": job_type}
    loggers = []
    for node in experiment.config["logger"].values():
        if isinstance(node, Mapping):  # other entries are options that nodes refer to
            filled = {key: value for key, value in known.items() if node.get(key, "") is None}
            loggers.append(build({**node, **filled}, Logger, save_dir=str(folder)))
    failed = True
    try:
        for logger in loggers:
            with _login_explained():
                logger.log_hyperparams(experiment.config)
        yield loggers
        failed = False
    finally:
        for logger in loggers:
            logger.finalize("failed" if failed else "success")
        # W&B keeps one current run per process: a job of a multirun must not go on with the one
        # before. A request at the end of a fit shares the run of that fit, which ends it.
        if outer is None and _wandb_run() is not None:
            sys.modules["wandb"].finish(exit_code=int(failed))


@contextmanager
def _login_explained() -> Iterator[None]:
    """Say what to do where W&B cannot begin a run: mostly, nobody has logged in."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("wandb."):
            raise
        raise UsageError(
            f"Expected a W&B account that takes this run, but: {error} Run `wandb login`, or keep "
            "the run on this machine with logger.offline=true."
        ) from error


def _wandb_run() -> Any:  # noqa: ANN401 - wandb's own class
    return getattr(sys.modules.get("wandb"), "run", None)
