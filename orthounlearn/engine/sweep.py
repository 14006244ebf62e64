"""A table: every missing cell, in Hydra multiruns that depend on each other in order."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from orthounlearn.config.build import command_line_overrides, config_dirs
from orthounlearn.config.multirun import PLANNED
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.plan import Phase, plan, reference
from orthounlearn.engine.progress import SweepProgress
from orthounlearn.engine.request import refuse_others_options
from orthounlearn.errors import UsageError

_log = logging.getLogger(__name__)


def sweep(experiment: Experiment, report: Callable[..., object]) -> None:
    """Run what is missing of the configured table, then report it.

    Originals come first, then what methods prepare of them for good, retrained networks, shadows,
    and then the methods: so no two processes of a phase want the same network or preparation. Of a
    sequence each step of the methods is a phase, for the same reason. A killed sweep goes on where
    it stopped.

    Args:
        experiment: With `table`.
        report: Called with runs, name, data and command at the end.

    Raises:
        UsageError: There is no table, an axis is empty or wrong, or a cell failed.
    """
    refuse_others_options(experiment, job="sweep")
    table = experiment.config["table"]
    if not table:
        raise UsageError("Expected experiment=NAME with a `table`, such as experiment=digits_cpu.")
    for axis in ("models", "regularizers", "methods", "forget", "seeds"):
        if table[axis] in ([], None):
            raise UsageError(f"Expected table.{axis} to have at least one entry, but it is empty.")
    single = [o for o in command_line_overrides() if o.lstrip("+").startswith("method.")]
    if single:
        raise UsageError(
            f"Expected table.methods to say what is compared, but got {' '.join(single)}: options "
            "of one method do not fit them all. 'table.options={rate: [0.1, 0.3]}' compares values "
            "of an option, for the methods that have it. Or make a method of its own, a YAML with "
            "`defaults: [NAME]`, `name` and these options, as conf/method/soft_prune_literal.yaml."
        )
    phases = plan(experiment, table)
    total = sum(len(phase.cells) for phase in phases)
    missing = sum(phase.missing for phase in phases)
    _log.info("%s: %d cells, %d to run, %d at a time.", table["name"], total, missing, jobs(table))
    for phase in phases:
        if phase.missing:
            _run(phase, table)
    overrides = " ".join(command_line_overrides())
    report(
        runs=str(experiment.runs),
        name=table["name"] + ("_sequence" if table["sequence"] else ""),
        folders=[folder for phase in phases if phase.job == "unlearn" for folder, _ in phase.cells],
        columns=table["columns"],
        command=f"orthounlearn sweep {overrides}".strip(),
    )


def jobs(table: dict[str, Any]) -> int:
    """Return how many cells run at a time; 0 means one per core."""
    return int(table["jobs"]) or os.cpu_count() or 1


def _run(phase: Phase, table: dict[str, Any]) -> None:
    at_once = jobs(table)
    command = [
        *(sys.executable, "-m", "orthounlearn", phase.job, "-m", *config_dirs()),
        *command_line_overrides(),
        reference(table),
        *(f"{key}={','.join(values)}" for key, values in phase.grid.items()),
        f"group={table['name']}",
    ]
    if table["launcher"] == "joblib":
        if at_once > 1:
            command += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={at_once}"]
    else:
        command += [f"hydra/launcher={table['launcher']}"]
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    # One thread each: two processes of one thread do more than one process of two.
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"}
    environment[PLANNED] = "1"
    with SweepProgress(phase.title, phase.cells):
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)  # noqa: S603
    if phase.missing:
        raise UsageError(
            f"{phase.missing} of {len(phase.cells)} cells ({phase.title}) did not finish. The last "
            f"lines of the sweep:\n{_tail(done.stderr)}\nThe same command runs the missing ones."
        )


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
