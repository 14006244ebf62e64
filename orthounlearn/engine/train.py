"""Training an original model, with unlearning at the end of the fit if a request is given."""

from torch import nn

from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import open_request, refuse_earlier_requests
from orthounlearn.engine.store import StoredModel, ensure_trained
from orthounlearn.engine.unlearn import unlearn
from orthounlearn.errors import UsageError


def train(experiment: Experiment) -> StoredModel:
    """Train the configured original, or take it from the store; then carry out the request, if any.

    Raises:
        UsageError: Bad input, or training diverged.
    """
    config = experiment.config
    refuse_earlier_requests(experiment, job="train")
    requested = config["forget"] is not None or config["method"] is not None
    if requested and (config["forget"] is None or config["method"] is None):
        raise UsageError(
            "Expected both forget=CLASS and method=NAME to unlearn at the end of the fit, or "
            "neither to train only."
        )
    request = open_request(experiment) if requested else None  # bad classes cost no training

    def on_fit_end(net: nn.Module) -> None:
        if request is not None:
            unlearn(request, trained=net)

    stored = ensure_trained(
        experiment, seed=config["seed"], on_fit_end=on_fit_end if requested else None
    )
    if request is not None:  # a stored model had no fit to end; else this finds the finished run
        unlearn(request)
    return stored
