"""The request: original model -> method -> unlearned checkpoint -> audit -> run directory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from filelock import FileLock
from lightning import seed_everything
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn

from orthounlearn.config.build import build
from orthounlearn.engine.audit.network import audit_network
from orthounlearn.engine.audit.predict import save_outputs
from orthounlearn.engine.checkpoints import load_network, save_network
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.dry_run import check_network
from orthounlearn.engine.experiment import Experiment, environment, plain_metrics
from orthounlearn.engine.identity import audited_file, identity_of, named
from orthounlearn.engine.loggers import opened
from orthounlearn.engine.origin import Origin, open_origin
from orthounlearn.engine.references import save_references
from orthounlearn.engine.request import Request
from orthounlearn.engine.store import stored_model
from orthounlearn.engine.timing import Timed, carry_out
from orthounlearn.engine.views import save_channels, save_gallery
from orthounlearn.engine.wandb_run import log_views
from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.files import (
    make_folder,
    read_json,
    write_json,
    write_text,
    writing,
)
from orthounlearn.lit.callbacks.status import report_stage, reporting
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.report.certificate import write_certificate
from orthounlearn.report.collect import DIVERGED, Run, as_run

_log = logging.getLogger(__name__)


def unlearn(request: Request, trained: nn.Module | None = None) -> dict[str, float | None]:
    """Carry out a request and audit the result, unless that was done before.

    With `after`, the requests before it are carried out first, each like this one, from the result
    of the one before; a request that is being carried out elsewhere is waited for.

    Args:
        request: With a method.
        trained: The original model, if it was just trained; it is left as it is.

    Returns:
        The flat metrics of the run.

    Raises:
        UsageError: There is no method, or it diverged.
    """
    experiment = request.experiment
    if not experiment.config["method"]:
        raise UsageError("Expected method=NAME to say how to unlearn; see conf/method/.")
    if request.is_done:
        return _metrics(request)
    method = build(experiment.config["method"], UnlearningMethod)
    start = _start(request, method, trained)
    make_folder(request.folder.parent)
    # Only once the network is there: a training that ends in this request holds that one's lock.
    with FileLock(request.folder.with_name(request.folder.name + ".lock")):
        if request.is_done:
            return _metrics(request)
        start_run(request)
        status = reporting(request.folder / "status.json", _what(request))
        with status, _recording_divergence(request):
            timed = _carry_out(request, method, start)
            about = experiment.about(
                forget=request.forget,
                after=request.steps[:-1],
                method=experiment.config["method"]["name"],
                origin=request.origin,
            )
            save_network(timed.net, request.checkpoint, about=about)
            net = _reload(experiment, timed.net, request.checkpoint)
            report_stage("audit")
            return finish_run(request, net, timed=timed)


def evaluate(request: Request) -> dict[str, float | None]:
    """Audit a checkpoint as it is: somebody has unlearned it already.

    Raises:
        UsageError: Bad input.
    """
    experiment = request.experiment
    if not experiment.config["checkpoint"]:
        raise UsageError("Expected checkpoint=FILE: the network that was unlearned elsewhere.")
    if request.is_done:
        return _metrics(request)
    check_network(experiment)
    make_folder(request.folder.parent)
    with FileLock(request.folder.with_name(request.folder.name + ".lock")):
        return _metrics(request) if request.is_done else _evaluate(request)


def _evaluate(request: Request) -> dict[str, float | None]:
    experiment = request.experiment
    net = experiment.new_net(experiment.config["seed"])
    config = experiment.config
    for path in filter(None, (config["original"], *config["retrained"])):
        load_network(net, Path(path))  # read again in the audit: damaged, it costs no run directory
    load_network(net, Path(experiment.config["checkpoint"]))
    start_run(request)
    with reporting(request.folder / "status.json", _what(request)):
        return finish_run(request, net.to(experiment.device), timed=None)


def _metrics(request: Request) -> dict[str, float | None]:
    """Return the metrics of a complete run; issue its certificate if that is what it lacks."""
    _log.info("Already done: %s", request.folder)
    if not (request.folder / "audit.json").exists():  # interrupted between the two
        write_certificate(request.folder, command=environment(request.experiment)["command"])
    return read_json(request.folder / "metrics.json")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Start:
    """What a request starts from.

    Attributes:
        origin: The network that the method prepares on.
        left: The state that earlier requests have left, if the preparation came before them.
    """

    origin: Origin
    left: dict[str, Tensor] | None = None


def _start(request: Request, method: UnlearningMethod, trained: nn.Module | None) -> _Start:
    """Return what to start from: the original, or what the earlier request has left.

    The statistics of the latter are its own, beside its checkpoint: those of the original describe
    weights that are edited now, and images that are deleted. Only what lasts is the original's.
    """
    if request.earlier is None:
        return _Start(open_origin(request.experiment, trained))
    with _recording_divergence(request):  # nothing can be taken from what has no network
        unlearn(request.earlier)
    experiment = request.experiment
    net = experiment.new_net(experiment.config["seed"])
    load_network(net, request.earlier.checkpoint)
    net = net.to(experiment.device).eval()  # as `open_origin` gives it
    if not method.lasting:
        return _Start(Origin(net, request.earlier.folder))
    return _Start(open_origin(experiment, trained), left=net.state_dict())


def start_run(request: Request) -> None:
    """Write first what explains a run even if it crashes: configuration, environment, splits."""
    folder, config = request.folder, request.experiment.config
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_json(folder / "env.json", environment(request.experiment))
    request.splits.save(folder / "splits.npz")


def _what(request: Request) -> str:
    """Return what a view of running jobs calls a request."""
    config = request.experiment.config
    method = config["method"]["name"] if config["method"] else "evaluate"
    network = f"{request.experiment.model_name} {config['regularizer']['name']}"
    return f"{method}, {' '.join(request.names[-1])}, {network} seed {config['seed']}"


def _carry_out(request: Request, method: UnlearningMethod, start: _Start) -> Timed:
    experiment = request.experiment
    seed = experiment.config["seed"]
    seed_everything(seed, workers=True, verbose=False)
    context = RequestContext(
        experiment,
        method,
        splits=request.splits,
        gone=request.gone,
        seed=seed,
        kept_folder=start.origin.folder,
    )
    timed = carry_out(method, start.origin.net, context, left=start.left)
    save_channels(method.channels(request.forget), request.folder / "channels.npz")
    return timed


def _reload(experiment: Experiment, net: nn.Module, checkpoint: Path) -> nn.Module:
    """Read the unlearned checkpoint back, so that what is audited is what was written."""
    for parameter in net.parameters():
        parameter.data.fill_(float("nan"))
    load_network(net, checkpoint)
    return net.to(experiment.device)


def finish_run(request: Request, net: nn.Module, *, timed: Timed | None) -> dict[str, float | None]:
    """Audit a network, compare it, and write and log everything.

    `metrics.json` comes last of the figures, and says that they are whole; the certificate is made
    of the files before it.
    """
    experiment, folder = request.experiment, request.folder
    audited = audit_network(request, net, timed=timed)
    # Features are large and can be made again from the checkpoint.
    save_outputs(replace(audited.outputs, features={}), folder / "outputs.npz", request.splits)
    references = {
        "original": audited.original,
        "retrained": audited.retrained[0].outputs if audited.retrained else None,
    }
    save_references(references, folder / "references.npz")
    arrays: dict[str, Any] = {key: of.astype(np.float32) for key, of in audited.curves.items()}
    with writing(folder / "curves.npz") as temporary:
        np.savez_compressed(temporary, **arrays)
    if audited.shadows:
        with writing(folder / "shadows.npz") as temporary:
            np.savez_compressed(temporary, **audited.shadows)
    save_gallery(experiment.data.test, request.splits, folder / "gallery.npz")
    identity, plain = identity_of(request), plain_metrics(audited.metrics)
    write_json(folder / "run.json", identity)
    write_json(folder / "retrained.json", [entry.record for entry in audited.retrained])
    _send_to_loggers(request, as_run(folder, identity, plain), audited.metrics)
    write_json(folder / "metrics.json", plain)
    write_certificate(folder, command=environment(experiment)["command"])
    return plain


@contextmanager
def _recording_divergence(request: Request) -> Iterator[None]:
    """Write down that a method diverged: tables say so, and a sweep does not try it again."""
    try:
        yield
    except DivergedError as error:
        write_json(request.folder / DIVERGED, {**named(request), "why": str(error)})
        raise


def _send_to_loggers(request: Request, run: Run, metrics: dict[str, float]) -> None:
    finite = {key: value for key, value in metrics.items() if value == value}
    job_type: Literal["unlearn", "evaluate"] = (
        "unlearn" if request.experiment.config["method"] else "evaluate"
    )
    with opened(request.experiment, request.folder, job_type=job_type) as loggers:
        for logger in loggers:
            logger.log_metrics(finite)
            if isinstance(logger, WandbLogger):
                log_views(logger, run, _checkpoints(request))


def _checkpoints(request: Request) -> list[Path]:
    """Return the audited network, and the original where it is stored."""
    config = request.experiment.config
    original = stored_model(request.experiment, seed=config["seed"]).checkpoint
    return [audited_file(request), original]
