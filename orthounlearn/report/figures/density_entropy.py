"""How undecided a network is on images of the forgotten class."""

from math import log

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from orthounlearn.metrics.scores import Floats, Ints, entropy
from orthounlearn.report.cases import Case
from orthounlearn.report.figures.density import HINT, draw_density
from orthounlearn.report.figures.kinds import Detail


def draw(case: Case) -> go.Figure | None:
    """Return densities of minus the entropy of the answer."""
    counts = {a.shape[1] for m in case.methods for a, _ in case.answers(m, "forget_test")}
    if not counts:
        return None
    limit = round(log(max(counts)) + 0.05, 1)
    axis = "minus the entropy of the answer, in nats; 0 is certain"
    return draw_density(case, _certainty, axis=axis, limits=(-limit, 0.0))


def _certainty(logits_NK: NDArray[np.floating], labels_N: Ints) -> Floats:
    with np.errstate(invalid="ignore"):  # a class whose logit is −inf adds nothing: 0 log 0
        return entropy(logits_NK, labels_N)


FIGURE = Detail(
    "entropy",
    "Entropy: members and non-members",
    "As for the confidence, of minus the entropy of the answer, which needs no label: on the right "
    "the network is certain of some class, whichever it is.",
    150,
    draw,
    HINT,
)
