"""What each method does to each class."""

import numpy as np
import plotly.graph_objects as go

from orthounlearn.report.cases import ORIGINAL, Case
from orthounlearn.report.figures.kinds import Detail
from orthounlearn.report.figures.panels import BAR, bars_height
from orthounlearn.report.style import DIVERGING

_PREFIX = "acc/retain_test_per_class/"
_FORGOTTEN = "acc/forget_test"
_MOST = 24  # columns that can be read side by side
_WORST = 30.0  # points at which the colours end: a forgotten class must not bleach the others


def draw(case: Case) -> go.Figure | None:
    """Return methods x classes: accuracy as text, difference to the original as colour."""
    keys = [_FORGOTTEN, *case.keys(_PREFIX)]
    values = {key: case.values(key) for key in keys}
    methods = [method for method in case.methods if method in values[_FORGOTTEN]]
    if ORIGINAL not in values[_FORGOTTEN] or not methods:
        return None
    accuracy = np.array(
        [[100 * values[key].get(method, np.nan) for key in keys] for method in methods]
    )
    before = np.array([100 * values[key].get(ORIGINAL, np.nan) for key in keys])
    change = accuracy - before
    names = ["forgotten", *(key.removeprefix(_PREFIX) for key in keys[1:])]
    if len(names) > _MOST:
        most = np.argsort(-np.nan_to_num(np.abs(change[:, 1:])).max(0))[: _MOST - 1]
        kept = [0, *np.sort(most + 1)]
        accuracy, change = accuracy[:, kept], change[:, kept]
        names = [names[i] for i in kept]
    figure = go.Figure(
        go.Heatmap(
            z=change.round(2), x=names, y=methods, colorscale=DIVERGING,
            zmin=-_WORST, zmax=_WORST, zmid=0, xgap=1, ygap=1, text=accuracy.round(1),
            texttemplate="%{text:.0f}", customdata=accuracy.round(2),
            colorbar=BAR | {"title": {"text": "points against<br>the original"}},
            hovertemplate="<b>%{y}</b>, %{x}<br>accuracy %{customdata:.1f} %"
            "<br>%{z:+.1f} points against the original<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=bars_height(len(methods)), margin={"t": 20})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(side="bottom", showgrid=False, type="category")
    return figure


FIGURE = Detail(
    "per-class",
    "Accuracy of each class",
    "Test accuracy in %, as the number; its difference to the original, as the colour, which ends "
    f"at {_WORST:.0f} points. A good method changes the first column alone, and that to what "
    "retrain has there. Of many classes those that change most are shown.",
    110,
    draw,
)
