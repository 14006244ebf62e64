"""EU-k: the last k layers trained from scratch on the retain set."""

from torch import nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Context
from orthounlearn.methods.cf_k import CatastrophicForgettingK


class ExactUnlearningK(CatastrophicForgettingK):
    """Draw the last k layers anew, then minimise CE(D_r) over them; the others are fixed.

    Layers are counted as in `cf_k`. What the fixed layers learned of the class stays.

    Source: Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv
    2201.06640; shash42@e315401 (10 to 50 of 110 layers, 62 epochs as in training, learning rate
    cycled between 0.1 and 5e-3, batch 64). Defaults here: the last stage of a ResNet-18 and its
    classifier, k = 6, for 10 epochs of SGD 0.01, momentum 0.9, batch 256, as in
    xcadet/deepunlearn@6830ff6.

    Deviations: as in `cf_k`. Layers are drawn as PyTorch initialises them; BatchNorms start anew as
    well, scale and statistics included (the authors' code keeps those of the original model), and
    therefore need batch_norm: train.

    Args:
        k: Layers to train, counted from the end.
        batch_norm: Only "train".
    """

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Find the last layers, fix the others and draw the last ones anew."""
        if self.batch_norm == "frozen":
            raise UsageError(
                "Expected method.batch_norm to be train, but got frozen: the statistics of a "
                "re-initialised BatchNorm must be measured."
            )
        started = super().start(net, context)
        for module in self.trained:
            reset = getattr(module, "reset_parameters", None)
            if reset is None:
                raise UsageError(
                    f"Expected layers that can be initialised anew, but {type(module).__name__} "
                    "has no reset_parameters(); lower method.k to leave it out."
                )
            reset()
        return started
