"""Preparation before any request: what a method makes while all images may be used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import seed_everything

from orthounlearn.config.build import build, locate, settings
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.origin import kept_folder, open_origin
from orthounlearn.engine.own_code import sources
from orthounlearn.engine.request import refuse_others_options
from orthounlearn.engine.timing import now
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, read_json, write_json
from orthounlearn.lit.callbacks.status import reporting
from orthounlearn.methods.base import UnlearningMethod

_DONE = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """What a method has made of an original, for every request.

    Attributes:
        files: Where it is kept; none of a method that keeps nothing, and prepares anew each time.
        seconds: That it took, whenever it was made.
    """

    files: list[Path]
    seconds: float


def prepare(experiment: Experiment) -> Prepared:
    """Let the configured method prepare, and keep what it made beside the original.

    A request makes up for it where it is missing; so this is for who may use the images now and not
    later, and for a sweep, whose requests would wait for each other.

    Args:
        experiment: With a method, without a request.

    Raises:
        UsageError: The method does not prepare, there is a request, or the original cannot be had.
    """
    refuse_others_options(experiment, job="prepare")
    config = experiment.config
    name = config["method"]["name"]
    if config["forget"] is not None:
        raise UsageError(
            f"Expected no forget= in prepare, but got {config['forget']}: what is prepared serves "
            f"every request. `orthounlearn unlearn forget={config['forget']} method={name}` is one."
        )
    if not _prepares(config):
        raise UsageError(
            f"Expected a method that prepares something, but {name} does all its work at the "
            "request. class_transport and soft_prune are two that prepare."
        )
    method = build(config["method"], UnlearningMethod)
    origin = open_origin(experiment)
    seed_everything(config["seed"], workers=True, verbose=False)
    context = RequestContext(
        experiment,
        method,
        splits=experiment.splits(),
        seed=config["seed"],
        kept_folder=origin.folder,
    )
    folder = preparation_folder(experiment)
    what = f"preparing {name}, {experiment.model_name} {config['regularizer']['name']}"
    with reporting(folder / "status.json", f"{what} seed {config['seed']}"):
        with context.preparing():
            start = now(experiment.device)
            method.prepare(origin.net, context)
            seconds = now(experiment.device) - start + context.stored_seconds
        files = [str(path.relative_to(origin.folder)) for path in context.kept_files]
        write_json(folder / _DONE, {"method": name, "files": files, "seconds": seconds})
    return Prepared(context.kept_files, seconds)


def preparation_folder(experiment: Experiment) -> Path:
    """Return where it is noted that the configured method has prepared."""
    config = experiment.config
    decides: dict[str, Any] = {"method": settings(config["method"]), "seed": config["seed"]}
    if own := sources([config["method"]]):
        decides["sources"] = own
    name = f"prepared-{config['method']['name']}-{digest(decides)[:8]}"
    return kept_folder(experiment) / name


def is_prepared(experiment: Experiment) -> bool:
    """Return whether the configured method has prepared, and its files are still there."""
    note = preparation_folder(experiment) / _DONE
    if not note.exists():
        return False
    return all((kept_folder(experiment) / name).exists() for name in read_json(note)["files"])


def _prepares(config: dict[str, Any]) -> bool:
    """Return whether the configured method does anything before a request."""
    target = locate(str(config["method"]["_target_"]))
    return getattr(target, "prepare", None) is not UnlearningMethod.prepare
