"""What each membership attack finds at each price."""

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from orthounlearn.metrics import scores
from orthounlearn.metrics.scores import Floats, Ints
from orthounlearn.report.cases import FEW, Case
from orthounlearn.report.figures.kinds import LEGEND, Detail
from orthounlearn.report.figures.panels import grid, menu
from orthounlearn.report.style import GREY

Attack = Callable[[NDArray[np.floating], Ints, Sequence[int]], Floats]

_ATTACKS: dict[str, Attack] = {
    "confidence, or margin": lambda logits, labels, _: scores.margin(logits, labels),
    "entropy": lambda logits, labels, _: scores.entropy(logits, labels),
    "modified entropy": lambda logits, labels, _: scores.modified_entropy(logits, labels),
    "margin without the class": lambda logits, _, forget: scores.rest(logits, forget),
}
"""Name -> score of each image. Those that have to be fitted stand in the table alone."""

_GRID = np.unique(np.concatenate([np.logspace(-3, 0, 61), np.linspace(0.05, 1, 39)])).round(5)


def draw(case: Case) -> go.Figure | None:
    """Return a panel for each attack, a curve for each method."""
    curves = {method: _curves(case, method) for method in case.methods}
    curves = {method: found for method, found in curves.items() if found}
    if not curves:
        return None
    prominent = case.prominent
    figure, places = grid(list(_ATTACKS), columns=2, row_height=290, names=len(curves))
    finest = min(_finest(case, method) for method in curves)
    for index, (attack, (line, column)) in enumerate(zip(_ATTACKS, places, strict=True)):
        figure.add_scatter(
            x=_GRID, y=_GRID, mode="lines", name="coin", legendgroup="coin",
            line={"color": GREY, "dash": "dot", "width": 1}, showlegend=index == 0,
            hoverinfo="skip", row=line, col=column,
        )  # fmt: skip
        for method, found in curves.items():
            look = case.looks[method]
            figure.add_scatter(
                x=_GRID.astype(np.float32), y=found[attack], mode="lines", name=method,
                legendgroup=method, showlegend=index == 0,
                visible=True if method in prominent else "legendonly",
                line={"color": look.colour, "dash": look.dash, "width": 1.6},
                hovertemplate=f"<b>{method}</b><br>%{{y:.1%}} of members at %{{x:.2%}} "
                "false alarms<extra></extra>",
                row=line, col=column,
            )  # fmt: skip
    low = float(np.log10(finest))
    figure.update_xaxes(type="log", range=[low, 0], tickformat="~%", dtick=1)
    figure.update_yaxes(type="log", range=[low, 0], tickformat="~%", dtick=1)
    figure.update_xaxes(title_text="false alarms", row=places[-1][0])
    figure.update_yaxes(title_text="members found", col=1)
    axes = [f"{side}axis{n or ''}" for side in "xy" for n in [0, *range(2, len(_ATTACKS) + 1)]]
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


def _curves(case: Case, method: str) -> dict[str, NDArray[np.float32]]:
    """Return attack -> true-positive rate on the grid, mean over classes and seeds."""
    found: dict[str, list[Floats]] = {}
    answers = (case.answers(method, split) for split in ("forget_train", "forget_test"))
    for (member_logits, members), (other_logits, others) in zip(*answers, strict=True):
        forget = [int(label) for label in np.unique(others)]
        for label in forget:
            ours, theirs = members == label, others == label
            for name, attack in _ATTACKS.items():
                pair = (
                    attack(member_logits[ours], members[ours], forget),
                    attack(other_logits[theirs], others[theirs], forget),
                )
                if all(map(len, pair)):
                    found.setdefault(name, []).append(curve(*pair))
    return {name: np.mean(curves, axis=0).astype(np.float32) for name, curves in found.items()}


def curve(members: Floats, others: Floats) -> Floats:
    """Return the largest true-positive rate at each false-positive rate of the grid."""
    truth = np.concatenate([np.ones(len(members)), np.zeros(len(others))])
    said = np.nan_to_num(np.concatenate([members, others]))
    fpr, tpr, _ = roc_curve(truth, said, drop_intermediate=False)
    rates: Floats = tpr[np.searchsorted(fpr, _GRID, side="right") - 1]
    return rates


def _finest(case: Case, method: str) -> float:
    """Return the smallest false-positive rate that the images can resolve."""
    return min(1 / len(labels) for _, labels in case.answers(method, "forget_test"))


FIGURE = Detail(
    "roc",
    "Membership attacks",
    "Share of the forgotten training images that each attack finds, over the share of unseen "
    "images of the same class that it takes for them; mean over seeds. The target is retrain's "
    "curve, not the coin's. Both axes are logarithmic, because an attack that is sure of few is a "
    "leak too. Confidence and margin order the images alike; attacks that have to be fitted stand "
    f"in the table alone. {FEW}",
    160,
    draw,
    f"The buttons change between this and the whole curve. {LEGEND}",
)
