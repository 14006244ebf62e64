"""Utility against what a membership attack still tells."""

from collections.abc import Sequence

import plotly.graph_objects as go

from orthounlearn.report.figures.front import READING, draw_front
from orthounlearn.report.figures.kinds import Overview
from orthounlearn.report.rows import Row
from orthounlearn.report.style import Look


def draw(rows: Sequence[Row], looks: dict[str, Look]) -> go.Figure | None:
    """Return retained accuracy over the attack's distance from its value after retraining."""
    key, title = "mia/pop_margin/auc_gap", "MIA AUC, minus retrain's"
    return draw_front(rows, looks, key=key, scale=1, title=title)


FIGURE = Overview(
    "front-membership",
    "Utility and membership",
    "Retained test accuracy over the AUC of the membership attack on the margin, minus that of the "
    "retrained network: 0 is as after retraining, above 0 members are told, below 0 more is gone "
    f"than retraining takes. The best place is at the top, at 0. {READING}",
    15,
    draw,
)
