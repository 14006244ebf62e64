"""What is left of the class in each block."""

import plotly.graph_objects as go

from orthounlearn.report.cases import FEW, Case
from orthounlearn.report.figures.kinds import LEGEND, Detail

_PREFIX = "depth/"


def draw(case: Case) -> go.Figure | None:
    """Return the probe recall over the blocks, a line for each method."""
    blocks = sorted(
        {int(key.removeprefix(_PREFIX)) for key in case.keys(_PREFIX) if key[-1].isdigit()}
    )
    values = {block: case.values(f"{_PREFIX}{block}") for block in blocks}
    methods = list(dict.fromkeys(method for found in values.values() for method in found))
    if not methods:
        return None
    prominent = case.prominent
    figure = go.Figure()
    for method in methods:
        look = case.looks[method]
        figure.add_scatter(
            x=[block for block in blocks if method in values[block]],
            y=[100 * values[block][method] for block in blocks if method in values[block]],
            mode="lines+markers", name=method,
            visible=True if method in prominent else "legendonly",
            line={"color": look.colour, "dash": look.dash, "width": 1.6},
            marker={"color": look.colour, "symbol": look.symbol, "size": 8},
            hovertemplate=f"<b>{method}</b><br>block %{{x}}: %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="block, from the image to the classifier", dtick=1)
    figure.update_yaxes(title_text="probe recall %")
    figure.update_layout(
        height=420 + 29 * (len(methods) // 8),
        margin={"t": 20},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    )
    return figure


FIGURE = Detail(
    "depth",
    "What is left of the class, block by block",
    "Share of the forgotten test images that a fresh linear classifier on the pooled output of "
    "each block finds again. A network that has forgotten follows retrain's line; one that only "
    "hides the class follows the original's up to the last block. "
    f"{FEW}",
    170,
    draw,
    LEGEND,
)
