"""The command line: `orthounlearn JOB [OVERRIDES]`; each job is a Hydra application."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from orthounlearn import __version__
from orthounlearn.config import CONF_DIR, resolvers, schema
from orthounlearn.config.messages import explain, is_slip
from orthounlearn.config.multirun import trust_a_plan
from orthounlearn.errors import UsageError

_USAGE = """\
orthounlearn {version}: make an image classifier forget whole classes, and prove it.

usage: orthounlearn JOB [KEY=VALUE ...] [-m] [--help]

jobs
  train      train an original model (with forget= and method=: unlearn at the end of the fit)
  prepare    let a method make what it needs before requests come, while all images are there
  unlearn    carry out a forget request on a stored or given model, and audit the result
  evaluate   audit a checkpoint that was unlearned elsewhere
  sweep      train, unlearn and compare over models, methods, classes and seeds; print the table
  report     print and write the table of finished runs, and a page with all figures
  tune       search a method's settings on validation images; later jobs use what it finds

examples
  orthounlearn unlearn forget=3                                     # digits, soft pruning
  orthounlearn unlearn data=cifar10 model=vgg16 forget=cat method=fine_tune
  orthounlearn unlearn -m forget=1,2,3 method=soft_prune,retrain    # Hydra multirun
  orthounlearn unlearn checkpoint=net.pt model=custom model._target_=package.Net forget=dog

`orthounlearn JOB --help` shows a job's options, `--cfg job` its whole configuration.
"""


_USERS = (UsageError, HydraException, OmegaConfBaseException)
"""Errors that the user can fix: their message is all that is shown."""


class _RefusedError(BaseException):
    """Carries such an error past Hydra, which heads each `Exception` of a job with its overrides.

    Of a multirun they are news, and say which of its jobs failed; of one job the user has just
    typed them.
    """


def _job(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
    """Make a Hydra application of a function, with the file in `conf/` of the same name."""

    @functools.wraps(function)
    def refusing(config: DictConfig) -> Any:  # noqa: ANN401 - what the function returns
        try:
            return function(config)
        except _USERS as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            raise _RefusedError from error

    as_application = hydra.main(
        version_base="1.3", config_path=CONF_DIR, config_name=function.__name__
    )
    return as_application(refusing)  # type: ignore[no-any-return]


def _experiment(config: DictConfig) -> Any:  # noqa: ANN401 - imported late, see below
    # torch and lightning take seconds to import; --help and typing errors should not wait for them.
    from orthounlearn.config.build import plain
    from orthounlearn.engine.experiment import open_experiment
    from orthounlearn.lit.process import prepare_process

    prepare_process()
    return open_experiment(plain(config))


@_job
def train(config: DictConfig) -> None:
    """Train an original model."""
    from orthounlearn.engine.train import train as job

    stored = job(_experiment(config))
    _say(f"Trained model: {stored.checkpoint}")


@_job
def prepare(config: DictConfig) -> None:
    """Make what a method can make of the original before any request comes."""
    from orthounlearn.engine.prepare import prepare as job

    prepared = job(_experiment(config))
    kept = (
        "kept for every request:" if prepared.files else "but nothing is kept: a request prepares."
    )
    _say(f"Prepared in {prepared.seconds:.1f} s, {kept}")
    for path in prepared.files:
        _say(f"  {path}")


@_job
def unlearn(config: DictConfig) -> float | None:
    """Carry out a forget request and audit the result."""
    from orthounlearn.engine.request import open_request
    from orthounlearn.engine.unlearn import unlearn as job

    request = open_request(_experiment(config))
    metrics = job(request)
    _summarise(request.folder, metrics)
    return metrics.get("unlearned/acc/retain_val")


@_job
def evaluate(config: DictConfig) -> None:
    """Audit a checkpoint that was unlearned elsewhere."""
    from orthounlearn.engine.request import open_request
    from orthounlearn.engine.unlearn import evaluate as job

    request = open_request(_experiment(config))
    metrics = job(request)
    _summarise(request.folder, metrics)


@_job
def sweep(config: DictConfig) -> None:
    """Run every cell of a table that is missing, and print the table."""
    from orthounlearn.engine.sweep import sweep as job
    from orthounlearn.report.job import report as table

    job(_experiment(config), report=table)


@_job
def tune(config: DictConfig) -> None:
    """Search a method's settings on validation images."""
    from orthounlearn.config.build import writable_conf_dir
    from orthounlearn.engine.tune import tune as job

    tuned_dir = writable_conf_dir() / "method" / "tuned"
    _say(f"Written: {job(_experiment(config), tuned_dir=tuned_dir)}")


@_job
def report(config: DictConfig) -> None:
    """Print and write the table of finished runs, and the page with all figures."""
    from orthounlearn.config.build import plain
    from orthounlearn.report.job import report as job

    job(**plain(config), page=True)


def _summarise(folder: Path, metrics: dict[str, float | None]) -> None:
    rows = [
        ("forgotten class, test accuracy", "acc/forget_test"),
        ("retained classes, test accuracy", "acc/retain_test"),
        ("membership AUC (margin)", "mia/pop_margin/auc"),
        ("request, seconds", "time/unlearn_s"),
    ]
    for title, key in rows:
        columns = [
            f"{phase} {value:.4g}"
            for phase in ("original", "unlearned", "retrained")
            if (value := metrics.get(f"{phase}/{key}")) is not None
        ]
        if columns:
            _say(f"{title:34s} {', '.join(columns)}")
    from orthounlearn.files import read_json

    verdict = read_json(folder / "audit.json")["verdict"]
    _say(f"{'verdict':34s} {verdict['headline']}: {verdict['title']}")
    _say(f"Why: {folder / 'certificate.md'}")
    _say(f"All figures: {folder / 'metrics.json'}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


JOBS: dict[str, Callable[[], Any]] = {
    "train": train,
    "prepare": prepare,
    "unlearn": unlearn,
    "evaluate": evaluate,
    "sweep": sweep,
    "report": report,
    "tune": tune,
}


def main() -> None:
    """Run a job; exit with 0, or 2 with one message if the input is at fault."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _say(_USAGE.format(version=__version__))
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        _say(__version__)
        sys.exit(0)
    job, *overrides = arguments
    if job not in JOBS:
        sys.stderr.write(f"error: expected a job out of {', '.join(JOBS)}, but got {job!r}.\n")
        sys.exit(2)
    sys.exit(run(job, overrides))


def run(job: str, overrides: list[str]) -> int:
    """Run a job in this process and return its exit code."""
    schema.register()
    resolvers.register()
    trust_a_plan()
    # A user's own network or method lies where the command is called, as with `python -m`.
    sys.path.append(str(Path.cwd()))
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of ending the process with 1
    sys.argv = [f"orthounlearn {job}", *overrides]
    try:
        JOBS[job]()
    except (*_USERS, _RefusedError) as error:
        if wants_traceback:
            raise
        sys.stderr.write(f"error: {explain(error)}\n")
        return 2
    except (AssertionError, ValueError) as error:
        if wants_traceback or not is_slip(error):
            raise
        sys.stderr.write(f"error: {explain(error)}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on where it stopped.\n")
        return 130
    return 0
