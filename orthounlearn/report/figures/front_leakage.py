"""Utility against what is left of the class in the features."""

from collections.abc import Sequence

import plotly.graph_objects as go

from orthounlearn.report.figures.front import READING, draw_front
from orthounlearn.report.figures.kinds import Overview
from orthounlearn.report.rows import Row
from orthounlearn.report.style import Look

_KEYS = {"probe/k50_index": "50-shot probe index", "probe/k10_index": "10-shot probe index"}


def draw(rows: Sequence[Row], looks: dict[str, Look]) -> go.Figure | None:
    """Return retained accuracy over the probe index; of 50 shots where any row has that."""
    for key, title in _KEYS.items():
        if any(key in row.metrics for row in rows):
            return draw_front(rows, looks, key=key, scale=1, title=title)
    return None


FIGURE = Overview(
    "front-leakage",
    "Utility and what is left of the class",
    "Retained test accuracy over the probe index: 0 is as after retraining, 1 nothing removed, "
    "below 0 more is gone than retraining takes. The best place is at the top, at 0. "
    f"{READING} Bars: 95 % t-intervals over forget classes and seeds; they may end outside of the "
    "picture.",
    10,
    draw,
)
