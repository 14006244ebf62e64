"""Seconds of preparation and of the request."""

from collections.abc import Sequence

import plotly.graph_objects as go

from orthounlearn.report.figures.kinds import Overview
from orthounlearn.report.figures.panels import by_group, grid, row_name
from orthounlearn.report.rows import Row
from orthounlearn.report.style import BLUE, GREY, VERMILION, Look

_KINDS = (
    ("time/prep_s", "preparation, once for all classes", BLUE, "circle-open"),
    ("time/unlearn_s", "request", VERMILION, "circle"),
)


_NOTHING = {"time/prep_s": 1e-4, "time/unlearn_s": 0.0}
"""Seconds up to which nothing was done: a preparation that is there takes milliseconds (the least
of 20 methods 3.6), and one that is not the 3 to 6 microseconds of calling it."""


def draw(rows: Sequence[Row], looks: dict[str, Look]) -> go.Figure | None:  # noqa: ARG001
    """Return a panel for each kind of original, a line for each method."""
    shown = [row for row in rows if any(_took(row, key) for key, *_ in _KINDS)]
    if not shown:
        return None
    groups = by_group(shown)
    longest = max(map(len, groups.values()))
    figure, places = grid(list(groups), columns=2, row_height=120 + 26 * longest, shared_yaxes=True)
    for index, (members, (line, column)) in enumerate(zip(groups.values(), places, strict=True)):
        for row in members:
            ends = [row.metrics[key].mean for key, *_ in _KINDS if _took(row, key)]
            figure.add_scatter(
                x=ends, y=[row_name(row)] * len(ends), mode="lines",
                line={"color": GREY, "width": 1}, hoverinfo="skip", showlegend=False,
                row=line, col=column,
            )  # fmt: skip
        for key, name, colour, symbol in _KINDS:
            timed = [row for row in members if _took(row, key)]
            figure.add_scatter(
                x=[row.metrics[key].mean for row in timed], y=[row_name(row) for row in timed],
                mode="markers", name=name, legendgroup=key, showlegend=index == 0,
                marker={"color": colour, "symbol": symbol, "size": 10},
                hovertemplate=f"<b>%{{y}}</b><br>{name}: %{{x:.3g}} s<extra></extra>",
                row=line, col=column,
            )  # fmt: skip
        figure.update_xaxes(title_text="seconds", row=line, col=column)
    figure.update_xaxes(type="log", dtick=1, exponentformat="power")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _took(row: Row, key: str) -> bool:
    return key in row.metrics and row.metrics[key].mean > _NOTHING[key]


FIGURE = Overview(
    "timings",
    "Time",
    "Mean seconds of the request, and of what may be prepared before anybody asks. Of a retrained "
    "network the request is its training. A method that prepares nothing has no mark for it.",
    30,
    draw,
)
