"""Which channels were edited, by which score, and what classes share them."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from orthounlearn.report.cases import Case
from orthounlearn.report.figures.kinds import Detail
from orthounlearn.report.figures.panels import menu
from orthounlearn.report.style import BLUE, SEQUENTIAL

_MOST_CLASSES = 24  # rows of the matrix that can be read
_MOST_POINTS = 600  # of the scatter: more are one cloud, and make a page heavy
_LAYER, _GAP, _LOWER, _TOP, _BOTTOM = 20, 110, 300, 80, 90  # pixels
_NAMED = 3  # methods without channels
_NONE = -1  # beyond the channels of a layer

_STRENGTHS = [
    [0.0, "rgba(0,0,0,0)"], [0.0098, "rgba(0,0,0,0)"], [0.0099, "rgba(128,128,128,0.16)"],
    [0.05, "#F0C9A8"], [0.5, "#D55E00"], [1.0, "#C2187A"],
]  # fmt: skip
"""From nothing there (−1) over untouched (0) to pruned (100), seen on light and on dark paper."""


def draw(case: Case) -> go.Figure | None:
    """Return layers x channels, score against strength, and classes x classes, for one method."""
    stored = {method: case.arrays(method, "channels.npz") for method in case.rivals}
    edits = {method: runs[0] for method, runs in stored.items() if runs}
    if not edits:
        return None
    figure = make_subplots(
        2, 2, specs=[[{"colspan": 2}, None], [{}, {}]], horizontal_spacing=0.16,
        subplot_titles=["strength of every channel, %", "score and strength",
                        "channels that two classes share, %"],
    )  # fmt: skip
    figure.update_annotations(font_size=12)
    for method, arrays in edits.items():
        shown = method == next(iter(edits))
        for trace, (row, column) in (
            (_layers(arrays), (1, 1)),
            (_scores(arrays), (2, 1)),
            (_overlap(arrays, case), (2, 2)),
        ):
            figure.add_trace(trace.update(visible=shown), row=row, col=column)
    count = len(figure.data) // len(edits)
    frames = {method: _frame(len(_part(arrays, "strength"))) for method, arrays in edits.items()}
    buttons = [
        {
            "label": method,
            "method": "update",
            "args": [
                {"visible": [i // count == place for i in range(len(figure.data))]},
                frames[method],
            ],
        }
        for place, method in enumerate(edits)
    ]
    figure.update_xaxes(title_text="channel", showgrid=False, row=1, col=1)
    figure.update_yaxes(type="category", showgrid=False, dtick=1, row=1, col=1)
    figure.update_xaxes(title_text="score, of the layer's largest", row=2, col=1)
    figure.update_yaxes(title_text="strength %", range=[-4, 104], row=2, col=1)
    figure.update_xaxes(type="category", showgrid=False, tickangle=-60, row=2, col=2)
    figure.update_yaxes(
        autorange="reversed", type="category", showgrid=False, dtick=1, row=2, col=2
    )
    silent = [method for method in case.rivals if method not in edits]
    if silent:
        figure.add_annotation(
            text=f"no record of channels: {_some(silent)}", showarrow=False, font={"size": 12},
            x=1, xref="paper", xanchor="right", y=1, yref="paper", yanchor="bottom", yshift=26,
        )  # fmt: skip
    figure.update_layout(
        updatemenus=[menu(buttons)], margin={"t": _TOP, "b": _BOTTOM}, showlegend=False
    )
    figure.plotly_relayout(frames[next(iter(edits))])
    return figure


def _some(names: list[str]) -> str:
    """Return the first names, and how many more there are.

    >>> _some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _frame(layers: int) -> dict[str, Any]:
    """Return the layout in which each of so many layers has the same height."""
    upper = _LAYER * max(layers, 2)
    whole = upper + _GAP + _LOWER
    low = _LOWER / whole
    return {
        "height": whole + _TOP + _BOTTOM,
        "yaxis.domain": [1 - upper / whole, 1],
        "yaxis.range": [layers - 0.5, -0.5],
        "yaxis2.domain": [0, low],
        "yaxis3.domain": [0, low],
        "annotations[0].y": 1,
        "annotations[1].y": low,
        "annotations[2].y": low,
    }


def _part(arrays: dict[str, Any], part: str) -> dict[str, NDArray[np.float32]]:
    """Return site -> array of one part of the file."""
    prefix = f"{part}/"
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _layers(arrays: dict[str, Any]) -> go.Heatmap:
    strengths = _part(arrays, "strength")
    widest = max(map(len, strengths.values()))
    table = np.full((len(strengths), widest), _NONE, dtype=np.int8)
    for row, strength_C in zip(table, strengths.values(), strict=True):
        row[: len(strength_C)] = np.rint(100 * strength_C)
    edited = [f"{site} ({np.mean(s > 0):.0%} edited)" for site, s in strengths.items()]
    return go.Heatmap(
        z=table, y=edited, colorscale=_STRENGTHS, zmin=_NONE, zmax=100,
        showscale=False, ygap=2,
        hovertemplate="%{y}<br>channel %{x}: %{z} %<extra></extra>",
    )  # fmt: skip


def _scores(arrays: dict[str, Any]) -> go.Scatter:
    strengths, scores = _part(arrays, "strength"), _part(arrays, "score")
    total = sum(map(len, strengths.values()))
    step = -(-total // _MOST_POINTS)
    x, y = [], []
    for site, score_C in scores.items():
        order = np.argsort(-score_C, kind="stable")[::step]
        largest = float(np.abs(score_C).max()) or 1.0
        x.append(score_C[order] / largest)
        y.append(100 * strengths[site][order])
    return go.Scatter(
        x=np.concatenate(x).astype(np.float32), y=np.concatenate(y).astype(np.float32),
        mode="markers", marker={"color": BLUE, "size": 6, "opacity": 0.6},
        hovertemplate="score %{x:.2f}, strength %{y:.0f} %<extra></extra>",
    )  # fmt: skip


def _overlap(arrays: dict[str, Any], case: Case) -> go.Heatmap:
    shares = overlap(_part(arrays, "alone"))
    names = case.classes(len(shares))
    if len(names) > _MOST_CLASSES:
        ours = [label for label, name in enumerate(names) if name in case.gone]
        near = np.nan_to_num(shares[ours]).max(0)
        near[ours] = np.inf
        kept = np.sort(np.argsort(-near, kind="stable")[:_MOST_CLASSES])
        shares, names = shares[np.ix_(kept, kept)], [names[label] for label in kept]
    return go.Heatmap(
        z=shares.round(1).astype(np.float32), x=names, y=names, colorscale=SEQUENTIAL,
        zmin=0, zmax=100, xgap=1, ygap=1,
        colorbar={"thickness": 12, "len": _LOWER, "lenmode": "pixels", "y": 0, "yanchor": "bottom"},
        hovertemplate="%{y} and %{x}: %{z:.0f} % of their channels<extra></extra>",
    )  # fmt: skip


def overlap(alone: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return (K, K): the channels that both classes would lose, in % of those that either would.

    nan where neither class has any.

    Args:
        alone: Site -> strengths (K, C) of a request of each class alone.

    >>> overlap({"a": np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]])}).round(1).tolist()
    [[100.0, 33.3], [33.3, 100.0]]
    """
    chosen_KX = np.concatenate([table > 0 for table in alone.values()], 1).astype(float)
    both = chosen_KX @ chosen_KX.T
    counts = chosen_KX.sum(1)
    either = counts[:, None] + counts - both
    shares_KK: NDArray[np.float64] = np.full_like(both, np.nan)
    np.divide(100 * both, either, out=shares_KK, where=either > 0)
    return shares_KK


FIGURE = Detail(
    "channels",
    "Which channels were edited",
    "Above, each layer's channels, from the images to the classifier, by how much of each has "
    "gone. Below, the score that ranked them against that strength, and how many of its channels "
    "each class would share with each other one if it were forgotten alone: what two classes share "
    "cannot go without harm to the other. Of one seed; of many classes those that share most. "
    "Methods that edit no whole channels have nothing to show here.",
    190,
    draw,
    "The menu chooses the method.",
    missing="No run here has a record of its channels: either no method among them chooses "
    "channels, or an older version has made them. In the second case delete the folders of those "
    "that should have it (they stand under Provenance) and give their command again.",
)
