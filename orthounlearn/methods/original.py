"""The original model as it is: the row that shows what there was to forget."""

from torch import nn

from orthounlearn.methods.base import Context, UnlearningMethod


class Original(UnlearningMethod):
    """Does nothing. M_u = M_o.

    Source: none; the positive control of every audit.

    Deviations: none.
    """

    training_free = True

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:  # noqa: ARG002 - interface
        """Return the network unchanged."""
        return net
