"""What a run says of itself in `run.json`: what a report names it by, and tells it apart by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orthounlearn.config.build import settings
from orthounlearn.data.splits import SPLIT_NAMES
from orthounlearn.engine.experiment import environment
from orthounlearn.engine.request import AUDIT_VERSION, Request
from orthounlearn.engine.tuned import recorded, trials_of
from orthounlearn.files import digest, file_digest


def identity_of(request: Request) -> dict[str, Any]:
    """Return what names a finished run, what tells it apart, and what it was made with."""
    experiment = request.experiment
    config = experiment.config
    return named(request) | {
        "trials": trials_of(config["method"]) if config["method"] else None,
        "key": request.key,
        "audit": AUDIT_VERSION,
        "origin": request.origin,
        "original": _original(request),
        "network": network_kind(request),
        "settings": settings_kind(request),
        "options": recorded(_deciding(config["method"])) if config["method"] else {},
        "data_fingerprint": experiment.data.fingerprint,
        "model_sha256": file_digest(audited_file(request)),
        "images": {name: len(request.splits[name]) for name in SPLIT_NAMES},
        "group": config["group"],
        "environment": environment(experiment),
    }


def named(request: Request) -> dict[str, Any]:
    """Return what a request is called by."""
    experiment = request.experiment
    config = experiment.config
    return {
        "data": experiment.data.name,
        "model": experiment.model_name,
        "regularizer": config["regularizer"]["name"],
        "seed": config["seed"],
        "method": config["method"]["name"] if config["method"] else "evaluate",
        "classes": list(experiment.data.class_names),
        "forget": request.names[-1],
        "after": request.names[:-1],
    }


_SHOWN = 8
"""Characters of a hash that people read, as in the names of folders."""


def network_kind(request: Request) -> str:
    """Return what tells kinds of original apart: a hash of the training, the same for all seeds.

    Of a file nobody knows how it was trained: each is of a kind of its own.
    """
    experiment = request.experiment
    config = experiment.config
    given = config["checkpoint"] if config["method"] else config["original"]
    key = file_digest(Path(given)) if given else experiment.training_key(without=(), seed=0)
    return key[:_SHOWN]


def settings_kind(request: Request) -> str:
    """Return what tells methods of one name apart: a hash of the options that decide the result.

    Of a network that was unlearned elsewhere that is its file, which is all that is known of how.
    """
    method = request.experiment.config["method"]
    if not method:
        return request.origin[:_SHOWN]
    return digest(_deciding(method))[:_SHOWN]


def _deciding(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method that decide what it does."""
    # Where an inverse is saved to changes no weight.
    return {key: value for key, value in settings(method).items() if key not in ("name", "inverse")}


def _original(request: Request) -> str | None:
    """Return the key or hash of the network before the request; None if nobody said which."""
    config = request.experiment.config
    if config["method"]:
        return request.origin
    return file_digest(Path(config["original"])) if config["original"] else None


def audited_file(request: Request) -> Path:
    """Return the file of the network that a request audits."""
    given = request.experiment.config["checkpoint"]
    return request.checkpoint if request.experiment.config["method"] else Path(given)
