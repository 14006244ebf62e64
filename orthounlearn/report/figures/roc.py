"""What each membership attack finds at each price."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from orthounlearn.metrics.roc import CURVE_FPR
from orthounlearn.report.cases import FEW, Case
from orthounlearn.report.figures.kinds import LEGEND, OLDER, Detail
from orthounlearn.report.figures.panels import grid, menu
from orthounlearn.report.style import GREY

_ATTACKS = {
    "mia/pop_margin": "confidence, or margin",
    "mia/pop_entropy": "entropy",
    "mia/pop_mentr": "modified entropy",
    "mia/pop_rest": "margin without the class",
    "mia/pop_lr": "learned from ten scores",
    "mia/neighbour": "nearest class, against its own",
    "mia/retained_margin": "retained images: margin",
    "lira": "shadows: LiRA",
    "lira/rest": "shadows: LiRA without the class",
    "rmia": "shadows: RMIA",
    "lira/retained": "shadows: LiRA, retained images",
}
"""Key -> title of each attack, in the order of its panel."""


def draw(case: Case) -> go.Figure | None:
    """Return a panel for each attack, a curve for each method."""
    curves = {method: _curves(case, method) for method in case.methods}
    attacks = [key for key in _ATTACKS if any(key in found for found in curves.values())]
    if not attacks:
        return None
    prominent = case.prominent
    named: set[str] = set()
    titles = [_ATTACKS[attack] for attack in attacks]
    figure, places = grid(titles, columns=2, row_height=290, names=len(curves))
    for index, (attack, (line, column)) in enumerate(zip(attacks, places, strict=True)):
        figure.add_scatter(
            x=CURVE_FPR, y=CURVE_FPR, mode="lines", name="coin", legendgroup="coin",
            line={"color": GREY, "dash": "dot", "width": 1}, showlegend=index == 0,
            hoverinfo="skip", row=line, col=column,
        )  # fmt: skip
        for method in (method for method, found in curves.items() if attack in found):
            look = case.looks[method]
            figure.add_scatter(
                x=CURVE_FPR.astype(np.float32), y=curves[method][attack], mode="lines",
                name=method, legendgroup=method, showlegend=method not in named,
                visible=True if method in prominent else "legendonly",
                line={"color": look.colour, "dash": look.dash, "width": 1.6},
                hovertemplate=f"<b>{method}</b><br>%{{y:.1%}} of members at %{{x:.2%}} "
                "false alarms<extra></extra>",
                row=line, col=column,
            )  # fmt: skip
            named.add(method)
    low = float(np.log10(_finest(curves)))
    figure.update_xaxes(type="log", range=[low, 0], tickformat="~%", dtick=1)
    figure.update_yaxes(type="log", range=[low, 0], tickformat="~%", dtick=1)
    figure.update_xaxes(title_text="false alarms", row=places[-1][0])
    figure.update_yaxes(title_text="members found", col=1)
    axes = [f"{side}axis{n or ''}" for side in "xy" for n in [0, *range(2, len(attacks) + 1)]]
    zoom = {"type": "log", "range": [low, 0], "dtick": 1}
    whole = {"type": "linear", "range": [0, 1], "dtick": 0.25}
    buttons = [
        {"label": "few false alarms", "method": "relayout", "args": [_on(axes, zoom)]},
        {"label": "whole curve", "method": "relayout", "args": [_on(axes, whole)]},
    ]
    figure.update_layout(updatemenus=[menu(buttons, kind="buttons")], margin={"t": 80})
    return figure


def _on(axes: Sequence[str], settings: dict[str, object]) -> dict[str, object]:
    return {f"{axis}.{key}": value for axis in axes for key, value in settings.items()}


def _curves(case: Case, method: str) -> dict[str, NDArray[np.floating]]:
    """Return attack -> true-positive rates at `CURVE_FPR`, mean over seeds."""
    runs = case.curves(method, "roc")
    return {
        attack: np.mean([run[attack] for run in runs if attack in run], axis=0)
        for attack in dict.fromkeys(key for run in runs for key in run)
    }


def _finest(curves: Mapping[str, Mapping[str, NDArray[np.floating]]]) -> float:
    """Return the smallest false-positive rate that any attack's images resolve."""
    known_AT = np.isfinite([curve for found in curves.values() for curve in found.values()])
    return float(CURVE_FPR[known_AT.any(0)].min(initial=1.0))


FIGURE = Detail(
    "roc",
    "Membership attacks",
    "Share of the forgotten training images that each attack finds, over the share of unseen "
    "images of the same class that it takes for them; mean over seeds. The target is retrain's "
    "curve, not the coin's. Both axes are logarithmic, because an attack that is sure of few is a "
    "leak too. Confidence and margin order the images alike. Nearest class: unseen images of the "
    "forgotten class against those of the class that they now go to. Shadows (metrics=full) "
    f"attack the method on other networks of the recipe. {FEW}",
    160,
    draw,
    f"The buttons change between this and the whole curve. {LEGEND}",
    missing=OLDER,
)
