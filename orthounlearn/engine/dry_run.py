"""A look at a network before it is trained or loaded: what does not fit costs no time, no files."""

import torch
from torch import Tensor, nn

from orthounlearn.config.build import build
from orthounlearn.engine.experiment import Experiment
from orthounlearn.errors import UsageError
from orthounlearn.orthogonality.penalties import Penalty


def check_network(experiment: Experiment) -> None:
    """Pass two images through a new network, as in inference and as in training.

    Raises:
        UsageError: It raises, or returns anything but logits (N, K).
    """
    net = experiment.new_net(0).to(experiment.device)  # its own: training moves statistics
    for training in (False, True):
        _check_pass(experiment, net.train(training))


def check_training(experiment: Experiment) -> None:
    """Check the network, and that the regulariser finds kernels in it.

    Raises:
        UsageError: One of both is not so.
    """
    check_network(experiment)
    penalty = experiment.config["regularizer"]["penalty"]
    if not penalty:
        return
    try:
        build(penalty, Penalty).convolutions(experiment.new_net(0))
    except UsageError as error:
        raise UsageError(
            f"{error} A network without such kernels is trained with regularizer=none."
        ) from error


def _check_pass(experiment: Experiment, net: nn.Module) -> None:
    images = experiment.example()
    wanted = (len(images), experiment.data.num_classes)
    expected = (
        f"Expected {experiment.config['model']['_target_']} to return logits {wanted} for images "
        f"{tuple(images.shape)}, but in {'training' if net.training else 'eval'} mode it"
    )
    try:
        with torch.no_grad():
            logits = net(images)
    except Exception as error:  # a user's network may raise anything
        raise UsageError(
            f"{expected} raises {type(error).__name__}: {error}. It is made with those of "
            "num_classes, in_channels and image_size that it takes; HYDRA_FULL_ERROR=1 shows where."
        ) from error
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"{expected} returns a {type(logits).__name__}. Return the tensor of logits alone."
        )
    if logits.shape != wanted:
        raise UsageError(
            f"{expected} returns {tuple(logits.shape)}. Let the class take num_classes, "
            "or give the option of it that sets the number of classes."
        )
