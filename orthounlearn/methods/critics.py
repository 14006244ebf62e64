"""Linear critics: probes that keep asking a network which class its features belong to."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEPS = 3  # for each step of the network: a critic that lags behind is easily fooled
_LEARNING_RATE = 1e-2
_PENALTY = 1e-3
_CERTAIN = 1 - 1e-3  # a surer critic would give an endless loss


class Critics:
    """A softmax regression on the pooled output of each layer, trained beside the network.

    What a critic finds, a probe would find; a network that no critic gets a grip on has nothing
    to show to a probe either (domain-adversarial training: Ganin et al., arXiv 1505.07818, with
    the confusion of one class as aim).

    Args:
        features: Layer -> pooled output (N, C) of the images that are learned from: gives the
            critics their unit.
        num_classes: K.
    """

    def __init__(self, features: Mapping[str, Tensor], num_classes: int) -> None:
        self._units = {
            layer: (values_NC.mean(0), values_NC.std(0).clamp(min=1e-3))
            for layer, values_NC in features.items()
        }
        self._readers = {
            layer: _blank(values_NC.shape[1], num_classes).to(values_NC)
            for layer, values_NC in features.items()
        }
        self._optimizers = [
            torch.optim.Adam(reader.parameters(), lr=_LEARNING_RATE)
            for reader in self._readers.values()
        ]

    def recognition(self, features: Mapping[str, Tensor], label: int) -> dict[str, Tensor]:
        """Return layer -> mean −log(1 − P(label)), at least 0: 0 where nobody thinks of the class.

        Args:
            features: Layer -> (B, C), of images of the class.
            label: The class. The critics themselves get no gradient.
        """
        found = {}
        for layer, reader in self._readers.items():
            logits_BK = F.linear(
                self._standardised(features, layer), reader.weight.detach(), reader.bias.detach()
            )
            beliefs_B = logits_BK.softmax(1)[:, label].clamp(max=_CERTAIN)
            found[layer] = -torch.log1p(-beliefs_B).mean()
        return found

    def learn(self, features: Mapping[str, Tensor], labels_B: Tensor, weights_B: Tensor) -> None:
        """Fit the critics to what the network now computes.

        Args:
            features: Layer -> (B, C); no gradient flows back.
            labels_B: True classes.
            weights_B: Of the images in the loss.
        """
        for (layer, reader), optimizer in zip(self._readers.items(), self._optimizers, strict=True):
            read_BC = self._standardised(features, layer).detach()
            for _ in range(_STEPS):
                errors_B = F.cross_entropy(reader(read_BC), labels_B, reduction="none")
                loss = (errors_B * weights_B).mean() + _PENALTY * reader.weight.square().sum()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def _standardised(self, features: Mapping[str, Tensor], layer: str) -> Tensor:
        mean_C, deviation_C = self._units[layer]
        return (features[layer] - mean_C) / deviation_C


def _blank(width: int, num_classes: int) -> nn.Linear:
    """Return a reader without an opinion, and leave the random stream where it is."""
    with torch.random.fork_rng(devices=[]):
        reader = nn.Linear(width, num_classes)
    nn.init.zeros_(reader.weight)
    nn.init.zeros_(reader.bias)
    return reader
