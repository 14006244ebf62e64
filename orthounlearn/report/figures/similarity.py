"""How alike the blocks are to those of the original and of the retrained network."""

import plotly.graph_objects as go

from orthounlearn.report.cases import FEW, Case
from orthounlearn.report.figures.kinds import LEGEND, OLDER, Detail
from orthounlearn.report.figures.panels import grid

_PANELS = {
    "cka/original/forget/": "to the original, forgotten images",
    "cka/retrained/forget/": "to retrain, forgotten images",
    "cka/original/retain/": "to the original, retained images",
    "cka/retrained/retain/": "to retrain, retained images",
}


def draw(case: Case) -> go.Figure | None:
    """Return a panel for each reference and set: CKA over the blocks, a line for each method."""
    keys = {
        prefix: sorted(case.keys(prefix), key=lambda key: int(key.rpartition("/")[2]))
        for prefix in _PANELS
    }
    values = {key: case.values(key) for found in keys.values() for key in found}
    shown = [prefix for prefix, found in keys.items() if any(values[key] for key in found)]
    if not shown:
        return None
    panels = [_PANELS[prefix] for prefix in shown]
    figure, places = grid(
        panels, columns=2, row_height=280, shared_yaxes=True, names=len(case.methods)
    )
    named: set[str] = set()
    prominent = case.prominent
    for prefix, (line, column) in zip(shown, places, strict=True):
        for method in case.methods:
            told = [key for key in keys[prefix] if method in values[key]]
            if not told:
                continue
            look = case.looks[method]
            figure.add_scatter(
                x=[int(key.rpartition("/")[2]) for key in told],
                y=[round(values[key][method], 4) for key in told],
                mode="lines+markers", name=method, legendgroup=method,
                showlegend=method not in named,
                visible=True if method in prominent else "legendonly",
                line={"color": look.colour, "dash": look.dash, "width": 1.6},
                marker={"color": look.colour, "symbol": look.symbol, "size": 7},
                hovertemplate=f"<b>{method}</b><br>block %{{x}}: %{{y:.3f}}<extra></extra>",
                row=line, col=column,
            )  # fmt: skip
            named.add(method)
    figure.update_xaxes(dtick=1)
    figure.update_xaxes(title_text="block", row=places[-1][0])
    figure.update_yaxes(title_text="CKA", col=1)
    return figure


FIGURE = Detail(
    "similarity",
    "Likeness of each block to the original and to retraining",
    "Linear centred kernel alignment (CKA) of each block's pooled output to that of the original "
    "(left) and of the retrained network (right), on unseen images of the forgotten classes "
    "(above) and of the others (below): 1 is alike up to a rotation and a scale. Retrain's own "
    "line on the left is where a network that has forgotten should be; on the right it stands "
    "beside retrained networks of other seeds, or beside itself, at 1, where there are none, and "
    f"the original's line is what two trainings share. {FEW}",
    175,
    draw,
    LEGEND,
    missing=OLDER,
)
