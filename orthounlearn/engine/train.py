"""Training a network for the store, with unlearning at the end of the fit if a request is given."""

from typing import Any

from torch import nn

from orthounlearn.data.splits import resolve_forget
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import open_request, refuse_others_options
from orthounlearn.engine.store import StoredModel, ensure_trained
from orthounlearn.engine.unlearn import unlearn
from orthounlearn.errors import UsageError


def train(experiment: Experiment) -> StoredModel:
    """Train the configured network, or take it from the store; carry out the request, if any.

    Raises:
        UsageError: Bad input, or training diverged.
    """
    config = experiment.config
    refuse_others_options(experiment, job="train")
    requested = config["forget"] is not None or config["method"] is not None
    if requested and (config["forget"] is None or config["method"] is None):
        raise UsageError(
            "Expected both forget=CLASS and method=NAME to unlearn at the end of the fit, or "
            "neither to train only. A network without a class is that of without=CLASS."
        )
    request = open_request(experiment) if requested else None  # bad classes cost no training

    def on_fit_end(net: nn.Module) -> None:
        if request is not None:
            unlearn(request, trained=net)

    stored = ensure_trained(
        experiment, **configured(experiment), on_fit_end=on_fit_end if requested else None
    )
    if request is not None:  # a stored model had no fit to end; else this finds the finished run
        unlearn(request)
    return stored


def configured(experiment: Experiment) -> dict[str, Any]:
    """Return which network of the store the job `train` is about, as arguments of `stored_model`.

    A shadow has the seed of its number, so that each of a pool is another network.

    Raises:
        UsageError: `without` names no valid classes.
    """
    config = experiment.config
    without, shadow = config["without"], config["shadow"]
    names = experiment.data.class_names
    return {
        "without": resolve_forget(without, names, option="without") if without else (),
        "seed": config["seed"] if shadow is None else shadow,
        "shadow": shadow,
    }
