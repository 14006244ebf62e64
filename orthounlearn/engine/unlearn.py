"""The request: original model -> method -> unlearned checkpoint -> audit -> run directory."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from lightning import seed_everything
from torch import nn

from orthounlearn.config.build import build
from orthounlearn.data.splits import Splits, resolve_forget
from orthounlearn.engine.checkpoints import load_network, save_network
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment, environment, plain_metrics
from orthounlearn.engine.loggers import opened
from orthounlearn.engine.predict import cached_outputs, predict, save_outputs
from orthounlearn.engine.store import ensure_trained, stored_model
from orthounlearn.engine.timing import Timed, carry_out
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, file_digest, read_json, write_json, write_text
from orthounlearn.lit.callbacks.status import write_status
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.metrics.suite import (
    Outputs,
    against_both,
    against_original,
    against_retrained,
    audit,
)

_log = logging.getLogger(__name__)

AUDIT_VERSION = 1
"""Raise it when the audit or the engine changes what is reported: runs are then done again."""


@dataclass(frozen=True)
class Reference:
    """A network that others are compared with, and what it says."""

    outputs: Outputs
    values: dict[str, float]


@dataclass(frozen=True)
class Request:
    """A forget request on one original model.

    Attributes:
        experiment: Data, network, recipe.
        splits: With the forgotten classes.
        origin: Hash of the original: its training key, or of the user's file.
    """

    experiment: Experiment
    splits: Splits
    origin: str

    @property
    def key(self) -> str:
        """Hash of everything that determines the result."""
        config = self.experiment.config
        return digest(
            {
                "audit": AUDIT_VERSION,
                "origin": self.origin,
                "splits": self.splits.hash,
                "method": _settings(config["method"]),
                "metrics": config["metrics"],
                "seed": config["seed"],
                "reference": self._reference_key(),
            }
        )

    def _reference_key(self) -> str | None:
        wanted = self.experiment.config["metrics"]["reference"]
        stored = stored_model(
            self.experiment, without=self.splits.forget, seed=self.experiment.config["seed"]
        )
        present = wanted == "train" or (wanted == "auto" and stored.is_trained)
        return stored.key if present else None

    @property
    def folder(self) -> Path:
        """The run directory."""
        experiment, config = self.experiment, self.experiment.config
        forgotten = "+".join(experiment.data.class_names[c] for c in self.splits.forget)
        return (
            experiment.runs
            / experiment.data.name
            / f"{experiment.model_name}_{config['regularizer']['name']}"
            / f"seed{config['seed']}"
            / f"forget-{forgotten}".replace("/", "-")
            / f"{config['method']['name'] if config['method'] else 'evaluate'}_{self.key[:8]}"
        )

    @property
    def is_done(self) -> bool:
        """Whether the run is complete; metrics.json is written last."""
        return (self.folder / "metrics.json").exists()


def _settings(method: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what decides the result: how values were chosen (`tuned`, `search`) does not."""
    return method and {k: v for k, v in method.items() if k not in ("search", "tuned")}


def open_request(experiment: Experiment) -> Request:
    """Check a request and find its original model, without training or loading anything.

    Raises:
        UsageError: The classes are not valid, or the checkpoint is missing.
    """
    config = experiment.config
    if config["metrics"]["reference"] not in ("auto", "train", "none"):
        raise UsageError(
            "Expected metrics.reference to be auto, train or none, "
            f"but got {config['metrics']['reference']!r}."
        )
    forget = resolve_forget(config["forget"], experiment.data.class_names)
    if config["checkpoint"]:
        path = Path(config["checkpoint"])
        if not path.is_file():
            raise UsageError(
                f"Expected checkpoint to be a file, but there is no {path.absolute()}."
            )
        origin = file_digest(path)
    else:
        origin = stored_model(experiment, seed=config["seed"]).key
    return Request(experiment, experiment.splits(forget), origin)


def unlearn(experiment: Experiment, trained: nn.Module | None = None) -> dict[str, float | None]:
    """Carry out the configured request and audit the result, unless that was done before.

    Args:
        experiment: With `forget` and `method`.
        trained: The original model, if it was just trained; it is left as it is.

    Returns:
        The flat metrics of the run.

    Raises:
        UsageError: Bad input, or the method diverged.
    """
    request = open_request(experiment)
    if not experiment.config["method"]:
        raise UsageError("Expected method=NAME to say how to unlearn; see conf/method/.")
    if request.is_done:
        _log.info("Already done: %s", request.folder)
        return read_json(request.folder / "metrics.json")  # type: ignore[no-any-return]
    method = build(experiment.config["method"], UnlearningMethod)
    net, folder = _original(request, trained)
    start_run(request)
    timed = _carry_out(request, method, net, folder)
    checkpoint = request.folder / "unlearned.ckpt"
    about = experiment.about(
        forget=request.splits.forget,
        method=experiment.config["method"]["name"],
        origin=request.origin,
    )
    save_network(timed.net, checkpoint, about=about)
    return finish_run(request, _reload(experiment, timed.net, checkpoint), timed=timed)


def evaluate(experiment: Experiment) -> dict[str, float | None]:
    """Audit a checkpoint as it is: somebody has unlearned it already.

    Raises:
        UsageError: Bad input.
    """
    if not experiment.config["checkpoint"]:
        raise UsageError("Expected checkpoint=FILE: the network that was unlearned elsewhere.")
    request = open_request(experiment)
    if request.is_done:
        _log.info("Already done: %s", request.folder)
        return read_json(request.folder / "metrics.json")  # type: ignore[no-any-return]
    net = experiment.new_net(experiment.config["seed"])
    load_network(net, Path(experiment.config["checkpoint"]))
    start_run(request)
    return finish_run(request, net.to(experiment.device), timed=None)


def _original(request: Request, trained: nn.Module | None) -> tuple[nn.Module, Path]:
    """Return a copy of the original model, and the folder where its statistics belong."""
    experiment = request.experiment
    config = experiment.config
    net = experiment.new_net(config["seed"])
    if trained is not None:
        net.load_state_dict(trained.state_dict())
        return net.to(experiment.device), stored_model(experiment, seed=config["seed"]).folder
    if config["checkpoint"]:
        path = Path(config["checkpoint"])
        load_network(net, path)
        return net.to(experiment.device), path.with_name(path.name + ".statistics")
    stored = ensure_trained(experiment, seed=config["seed"])
    return stored.load(experiment), stored.folder


def start_run(request: Request) -> None:
    """Write first what explains a run even if it crashes: configuration, environment, splits."""
    folder, config = request.folder, request.experiment.config
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_json(folder / "env.json", environment(request.experiment))
    request.splits.save(folder / "splits.npz")
    what = config["method"]["name"] if config["method"] else "evaluate"
    write_status(folder / "status.json", "running", what)


def _carry_out(request: Request, method: UnlearningMethod, net: nn.Module, folder: Path) -> Timed:
    experiment = request.experiment
    seed = experiment.config["seed"]
    seed_everything(seed, workers=True, verbose=False)
    context = RequestContext(
        experiment, method, splits=request.splits, seed=seed, statistics_folder=folder
    )
    return carry_out(method, net, context)


def _reload(experiment: Experiment, net: nn.Module, checkpoint: Path) -> nn.Module:
    """Read the unlearned checkpoint back, so that what is audited is what was written."""
    for parameter in net.parameters():
        parameter.data.fill_(float("nan"))
    load_network(net, checkpoint)
    return net.to(experiment.device)


def finish_run(request: Request, net: nn.Module, *, timed: Timed | None) -> dict[str, float | None]:
    """Audit a network, compare it, and write and log everything."""
    experiment, folder = request.experiment, request.folder
    outputs = predict(experiment, net, request.splits)
    # Features are large and can be made again from the checkpoint.
    save_outputs(replace(outputs, features={}), folder / "outputs.npz", request.splits)
    values = _audit(request, outputs)
    metrics: dict[str, float] = {}
    original = None if timed is None else _reference(request, without=())
    if original is not None:
        values |= against_original(values, original.values)
        metrics |= {f"original/{key}": value for key, value in original.values.items()}
    retrained = _retrained(request)
    if retrained is not None:
        values |= against_retrained(outputs, values, retrained.outputs, retrained.values)
        metrics |= {f"retrained/{key}": value for key, value in retrained.values.items()}
        if original is not None:
            values |= against_both(values, original.values, retrained.values)
    if timed is not None:
        values |= {"time/prep_s": timed.prepare_s, "time/unlearn_s": timed.unlearn_s}
    metrics |= {f"unlearned/{key}": value for key, value in values.items()}
    plain = plain_metrics(metrics)
    write_json(folder / "run.json", _identity(request))
    _send_to_loggers(request, metrics)
    write_status(folder / "status.json", "done", request.folder.name)
    write_json(folder / "metrics.json", plain)
    return plain


def _audit(request: Request, outputs: Outputs) -> dict[str, float]:
    return audit(
        outputs,
        forget=request.splits.forget,
        class_names=request.experiment.data.class_names,
        seed=request.splits.seed,
    )


def _reference(request: Request, *, without: tuple[int, ...]) -> Reference | None:
    """Return a stored network's outputs and figures on this request's splits."""
    experiment = request.experiment
    if not without and experiment.config["checkpoint"]:
        net = experiment.new_net(0)
        path = Path(experiment.config["checkpoint"])
        load_network(net, path)
        outputs = predict(experiment, net.to(experiment.device), request.splits)
    else:
        stored = stored_model(experiment, without=without, seed=experiment.config["seed"])
        if not stored.is_trained:
            return None
        outputs = cached_outputs(experiment, stored.load(experiment), request.splits, stored.folder)
    return Reference(outputs, _audit(request, outputs))


def _retrained(request: Request) -> Reference | None:
    experiment = request.experiment
    wanted = experiment.config["metrics"]["reference"]
    if wanted == "none":
        return None
    if wanted == "train":
        ensure_trained(experiment, without=request.splits.forget, seed=experiment.config["seed"])
    reference = _reference(request, without=request.splits.forget)
    if reference is None:
        _log.info(
            "No retrained model is stored, so nothing is compared with it "
            "(metrics.reference=train trains one)."
        )
    return reference


def _identity(request: Request) -> dict[str, Any]:
    experiment = request.experiment
    config = experiment.config
    return {
        "data": experiment.data.name,
        "model": experiment.model_name,
        "regularizer": config["regularizer"]["name"],
        "seed": config["seed"],
        "method": config["method"]["name"] if config["method"] else "evaluate",
        "forget": [experiment.data.class_names[c] for c in request.splits.forget],
        "key": request.key,
        "group": config["group"],
        "environment": environment(experiment),
    }


def _send_to_loggers(request: Request, metrics: dict[str, float]) -> None:
    finite = {key: value for key, value in metrics.items() if value == value}
    job_type: Literal["unlearn", "evaluate"] = (
        "unlearn" if request.experiment.config["method"] else "evaluate"
    )
    with opened(request.experiment, request.folder, job_type=job_type) as loggers:
        for logger in loggers:
            logger.log_metrics(finite)
