"""How sure a network is of the forgotten class."""

import plotly.graph_objects as go

from orthounlearn.metrics.scores import margin
from orthounlearn.report.cases import FEW, Case
from orthounlearn.report.figures.density import HINT, draw_density
from orthounlearn.report.figures.kinds import Detail


def draw(case: Case) -> go.Figure | None:
    """Return densities of the confidence in the true class, as log-odds."""
    axis = "confidence in the true class, log(p / (1 − p)); 0 is p = ½"
    return draw_density(case, margin, axis=axis, limits=(-12.0, 12.0))


FIGURE = Detail(
    "confidence",
    "Confidence: members and non-members",
    "Density of the confidence in the true class on forgotten images that the original was trained "
    "on, on unseen images of the same class, and of what a retrained network says of the former. "
    "The upright line is a threshold: an attacker who calls members what lies above it is right "
    "in the share at the right, of equally many of each; 50 % is a coin. "
    f"{FEW}",
    140,
    draw,
    HINT,
)
