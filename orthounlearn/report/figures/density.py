"""Densities of one score of forgotten, unseen and retrained images, with a threshold to move."""

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from scipy.ndimage import gaussian_filter1d

from orthounlearn.metrics.scores import Floats, Ints
from orthounlearn.report.cases import RETRAIN, Case
from orthounlearn.report.style import GREY, MEMBERS, OTHERS, RETRAINED

Score = Callable[[NDArray[np.floating], Ints], Floats]

HINT = "The slider moves the threshold, which all methods share."

_BINS = 96
_SMOOTH = 1.5  # bins; the eye should see the shape, not the draw
_STEPS = 41
_LETTER = 7  # pixels of its width


def draw_density(
    case: Case, score: Score, *, axis: str, limits: tuple[float, float]
) -> go.Figure | None:
    """Return a line of densities for each method, and one threshold through all of them.

    Args:
        case: The request.
        score: Of one network's answers, one number for each image.
        axis: Title of the score's axis.
        limits: Its outermost ends; what lies beyond is counted in the outermost bins.
    """
    methods = [m for m in case.prominent if case.answers(m, "forget_train")]
    if not methods:
        return None
    members = {m: _scores(case, m, "forget_train", score, limits) for m in methods}
    others = {m: _scores(case, m, "forget_test", score, limits) for m in methods}
    limits = _used(list(members.values()))
    figure = make_subplots(len(methods), 1, shared_xaxes=True, vertical_spacing=0.012)
    edges = np.linspace(*limits, _BINS + 1)
    x = ((edges[1:] + edges[:-1]) / 2).round(4).astype(np.float32)
    for line, method in enumerate(methods, start=1):
        drawn = [("forgotten, trained on", members[method], MEMBERS, "solid", "tozeroy"),
                 ("same class, never seen", others[method], OTHERS, "solid", "none")]  # fmt: skip
        if RETRAIN in methods and method != RETRAIN:
            what = "forgotten, as retrain says"
            drawn.append((what, members[RETRAIN], RETRAINED, "dot", "none"))
        for name, values, colour, dash, fill in drawn:
            figure.add_scatter(
                x=x, y=_density(values, edges), mode="lines", name=name, fill=fill,
                line={"color": colour, "width": 1.6, "dash": dash},
                fillcolor=_faint(colour), legendgroup=name,
                showlegend=line == (2 if RETRAIN in methods and methods[0] == RETRAIN else 1),
                hovertemplate=f"{method}, {name}<extra></extra>", row=line, col=1,
            )  # fmt: skip
    _label(figure, methods)
    _threshold(figure, methods, members, others, limits)
    figure.update_yaxes(showticklabels=False, showgrid=False, ticks="", rangemode="tozero")
    figure.update_xaxes(range=limits)
    figure.update_xaxes(title_text=axis, row=len(methods), col=1)
    figure.update_layout(
        height=150 + 62 * len(methods),
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        margin={"l": 30 + _LETTER * max(map(len, methods)), "r": 205, "t": 40, "b": 90},
    )
    return figure


def _scores(
    case: Case, method: str, split: str, score: Score, limits: tuple[float, float]
) -> Floats:
    values = np.concatenate([score(*answers) for answers in case.answers(method, split)])
    clipped: Floats = np.clip(np.nan_to_num(values, nan=limits[0]), *limits)
    return clipped


def _used(scores: list[Floats]) -> tuple[float, float]:
    """Return the ends of what all methods say, a few images left out."""
    ends = [np.quantile(values, [0.002, 0.998]) for values in scores]
    return float(np.floor(min(low for low, _ in ends))), float(np.ceil(max(h for _, h in ends)))


def _density(values: Floats, edges: Floats) -> NDArray[np.float32]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges, density=True)
    smooth = gaussian_filter1d(counts, _SMOOTH, mode="nearest")
    return np.asarray(smooth.round(4), dtype=np.float32)


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _label(figure: go.Figure, methods: list[str]) -> None:
    for line, method in enumerate(methods, start=1):
        domain = figure.layout[f"yaxis{line if line > 1 else ''}"].domain
        figure.add_annotation(
            text=method, x=-0.01, xref="paper", xanchor="right", y=sum(domain) / 2, yref="paper",
            yanchor="middle", showarrow=False, align="right",
        )  # fmt: skip


def _threshold(
    figure: go.Figure,
    methods: list[str],
    members: dict[str, Floats],
    others: dict[str, Floats],
    limits: tuple[float, float],
) -> None:
    """Add a line at a threshold, what it splits at the right of each row, and a slider for both."""
    cuts = np.linspace(*limits, _STEPS).round(3)
    texts = {
        method: [_split(members[method], others[method], float(cut)) for cut in cuts]
        for method in methods
    }
    start = _STEPS // 2
    first = len(figure.layout.annotations)
    for line, method in enumerate(methods, start=1):
        domain = figure.layout[f"yaxis{line if line > 1 else ''}"].domain
        figure.add_annotation(
            text=texts[method][start], x=1.01, xref="paper", xanchor="left", y=sum(domain) / 2,
            yref="paper", yanchor="middle", showarrow=False, align="left", font={"size": 11},
        )  # fmt: skip
    figure.add_shape(
        type="line", x0=cuts[start], x1=cuts[start], xref="x", y0=0, y1=1, yref="paper",
        line={"color": GREY, "width": 2},
    )  # fmt: skip
    steps = [
        {
            "label": f"{cut:g}",
            "method": "relayout",
            "args": [
                {"shapes[0].x0": float(cut), "shapes[0].x1": float(cut)}
                | {
                    f"annotations[{first + line}].text": texts[method][index]
                    for line, method in enumerate(methods)
                }
            ],
        }
        for index, cut in enumerate(cuts)
    ]
    figure.update_layout(
        sliders=[
            {
                "active": start, "steps": steps, "pad": {"t": 40, "b": 4}, "ticklen": 0,
                "minorticklen": 0, "currentvalue": {
                    "prefix": "members from ", "font": {"size": 13, "color": GREY},
                },
                "font": {"size": 1, "color": "rgba(0,0,0,0)"},
            }
        ]
    )  # fmt: skip


def _split(members: Floats, others: Floats, cut: float) -> str:
    hit, wrong = np.mean(members >= cut), np.mean(others >= cut)
    return (
        f"<b>{(hit + 1 - wrong) / 2:.0%}</b> right<br>{hit:.0%} of trained, {wrong:.0%} of unseen"
    )
