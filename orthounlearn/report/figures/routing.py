"""Where the images of the forgotten class go."""

import numpy as np
import plotly.graph_objects as go

from orthounlearn.report.cases import Case
from orthounlearn.report.figures.kinds import Detail
from orthounlearn.report.figures.panels import BAR, bars_height
from orthounlearn.report.style import SEQUENTIAL

_PREFIX = "pred/forget_hist/"
_MOST = 24


def draw(case: Case) -> go.Figure | None:
    """Return methods x classes: the share of forgotten test images that are called so."""
    keys = case.keys(_PREFIX)
    values = {key: case.values(key) for key in keys}
    methods = list(dict.fromkeys(method for found in values.values() for method in found))
    if not methods:
        return None
    share = np.array(
        [[100 * values[key].get(method, np.nan) for key in keys] for method in methods]
    )
    names = [key.removeprefix(_PREFIX) for key in keys]
    if len(names) > _MOST:
        kept = np.sort(np.argsort(-np.nan_to_num(share).max(0))[:_MOST])
        share, names = share[:, kept], [names[i] for i in kept]
    figure = go.Figure(
        go.Heatmap(
            z=share.round(2), x=names, y=methods, colorscale=SEQUENTIAL, zmin=0, zmax=100,
            xgap=1, ygap=1, texttemplate="%{z:.0f}",
            colorbar=BAR | {"title": {"text": "% of images"}},
            hovertemplate="<b>%{y}</b><br>%{z:.1f} % are called %{x}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=bars_height(len(methods)), margin={"t": 20})
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, type="category", title_text="predicted class")
    return figure


FIGURE = Detail(
    "routing",
    "Where forgotten images go",
    "Share of the forgotten test images that is called each class, in %. A network that has "
    "forgotten sends them where a retrained one does, which is not everywhere alike. Of many "
    "classes those that are named most are shown.",
    120,
    draw,
)
