"""Utility against the time of a request."""

from collections.abc import Sequence

import plotly.graph_objects as go

from orthounlearn.report.figures.front import READING, draw_front
from orthounlearn.report.figures.kinds import Overview
from orthounlearn.report.rows import Row
from orthounlearn.report.style import Look


def draw(rows: Sequence[Row], looks: dict[str, Look]) -> go.Figure | None:
    """Return retained accuracy over the time of the request, in milliseconds, on a log axis."""
    key, title = "time/unlearn_s", "request, ms"
    return draw_front(rows, looks, key=key, scale=1000, title=title, log=True)


FIGURE = Overview(
    "front-time",
    "Utility and the time of a request",
    "Retained test accuracy over the time that the request takes, without preparation and without "
    "evaluation. The best place is at the top left; it says nothing of forgetting. "
    f"{READING}",
    20,
    draw,
)
