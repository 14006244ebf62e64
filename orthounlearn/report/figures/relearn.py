"""How fast the class comes back."""

import numpy as np
import plotly.graph_objects as go

from orthounlearn.report.cases import FEW, Case
from orthounlearn.report.figures.kinds import LEGEND, Detail
from orthounlearn.report.figures.panels import grid


def draw(case: Case) -> go.Figure | None:
    """Return a panel for each learning rate: accuracy on the forgotten class over steps."""
    stored = {method: case.curves(method, "relearn") for method in case.methods}
    rates = sorted(
        {key.partition("/")[0] for runs in stored.values() for run in runs for key in run}
    )
    if not rates:
        return None
    prominent = case.prominent
    titles = [f"learning rate {rate.removeprefix('lr')}" for rate in rates]
    figure, places = grid(titles, columns=2, row_height=330, names=len(stored))
    for index, (rate, (line, column)) in enumerate(zip(rates, places, strict=True)):
        for method, runs in stored.items():
            found = [run for run in runs if f"{rate}/steps" in run]
            if not found:
                continue
            look = case.looks[method]
            for kind, width, opacity in (("forget", 2.0, 1.0), ("retain", 1.0, 0.5)):
                figure.add_scatter(
                    x=found[0][f"{rate}/steps"],
                    y=100 * np.mean([run[f"{rate}/{kind}"] for run in found], axis=0),
                    mode="lines", name=method, legendgroup=method,
                    visible=True if method in prominent else "legendonly",
                    showlegend=index == 0 and kind == "forget", opacity=opacity,
                    line={"color": look.colour, "width": width,
                          "dash": look.dash if kind == "forget" else "dot"},
                    hovertemplate=f"<b>{method}</b>, {kind}<br>step %{{x}}: %{{y:.1f}} %"
                    "<extra></extra>",
                    row=line, col=column,
                )  # fmt: skip
        figure.update_xaxes(title_text="steps", row=line, col=column)
        figure.update_yaxes(title_text="test accuracy %", row=line, col=column)
    return figure


FIGURE = Detail(
    "relearn",
    "Relearning",
    "Test accuracy on the forgotten class (thick) and on the retained ones (thin, dotted) while "
    "the network is trained on a few fresh images of the class. What comes back faster than in a "
    "retrained network was never gone. "
    f"{FEW}",
    180,
    draw,
    LEGEND,
    missing="Not measured in these runs: metrics=standard, on the command that made them, does.",
)
