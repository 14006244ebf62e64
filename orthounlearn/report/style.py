"""Colours, symbols and templates of all figures, in one place.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart with any kind of
colour vision, without black and yellow, which vanish on dark and on light paper; blue is a little
lighter for the same reason. More methods than colours are told apart by symbol and dash as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, islice

import plotly.graph_objects as go

GREY, GREEN, BLUE, VERMILION = "#888888", "#009E73", "#1F83C4", "#D55E00"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"

MEMBERS, OTHERS, RETRAINED = VERMILION, BLUE, GREEN
"""Forgotten training images, unseen images of the same class, and what a retrained model says."""

SEQUENTIAL = "Cividis"
"""Of shares: made for colour-blind readers, and even in grey."""

DIVERGING = ["#B35806", "#F1A340", "#FEE0B6", "#F7F7F7", "#D8DAEB", "#998EC3", "#542788"]
"""Of differences, losses first: PuOr of ColorBrewer, safe for the colour-blind."""

_FIXED = {
    "original": (GREY, "circle"),
    "retrain": (GREEN, "star"),
    "mask_logit": (BLUE, "square"),
    "soft_prune": (VERMILION, "diamond"),
    "soft_prune_literal": (VERMILION, "diamond-open"),
    "class_transport": (ORANGE, "triangle-up"),
}
"""References, the trivial rival and ours look the same in every report."""

_COLOURS = (SKY, PURPLE, BLUE, ORANGE, VERMILION, GREEN)
_SYMBOLS = ("cross", "x", "triangle-down", "pentagon", "hexagon", "bowtie", "triangle-left")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Look:
    """How one method is drawn, in every figure of a report.

    Attributes:
        colour: Of lines and markers.
        symbol: Of markers.
        dash: Of lines.
    """

    colour: str
    symbol: str
    dash: str


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """Return how each method is drawn; the same for the same methods.

    References are among them: a run says what they were, also where they have no run of their own.

    >>> looks(["soft_prune", "scrub"])["soft_prune"].colour == VERMILION
    True
    """
    named = list(dict.fromkeys(["original", "retrain", *methods]))
    others = [method for method in named if method not in _FIXED]
    found = {
        method: Look(colour, symbol, "longdashdot" if symbol.endswith("-open") else _DASHES[0])
        for method, (colour, symbol) in _FIXED.items()
        if method in named
    }
    for index, (method, colour) in enumerate(
        zip(others, islice(cycle(_COLOURS), len(others)), strict=True)
    ):
        round_ = index // len(_COLOURS) + (index % len(_COLOURS) > 1)
        found[method] = Look(
            colour, _SYMBOLS[index % len(_SYMBOLS)], _DASHES[round_ % len(_DASHES)]
        )
    return found


def template(*, dark: bool) -> go.layout.Template:
    """Return the template of all figures, for light or dark paper."""
    ink, line = ("#e8e8e8", "#3c3c3c") if dark else ("#1a1a1a", "#dedede")
    axis = {
        "gridcolor": line, "zerolinecolor": line, "linecolor": line, "ticks": "outside",
        "tickcolor": line, "automargin": True, "title": {"standoff": 8}, "zeroline": False,
    }  # fmt: skip
    box = "#2a2a2a" if dark else "#ffffff"
    button = {"bgcolor": box, "bordercolor": line, "font": {"color": ink}}
    return go.layout.Template(
        layout={
            "font": {"family": _FONT, "size": 12, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)" if dark else "#ffffff",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": box, "bordercolor": line, "font": {"color": ink}},
            "legend": {"bgcolor": "rgba(0,0,0,0)"},
            "coloraxis": {"colorbar": {"outlinewidth": 0}},
            "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
            "updatemenudefaults": button,
            "sliderdefaults": {"bgcolor": line, "bordercolor": line, "font": {"color": ink}},
        }
    )
