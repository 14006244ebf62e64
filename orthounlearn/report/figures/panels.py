"""Grids of panels, and the few things that several figures do alike."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orthounlearn.report.rows import Row, group_title

_LINE, _NAMES = 29, 8  # pixels of a line of the legend, and names in it


def grid(
    titles: Sequence[str],
    *,
    columns: int,
    row_height: int,
    shared_yaxes: bool = False,
    names: int = 0,
) -> tuple[go.Figure, list[tuple[int, int]]]:
    """Return a figure of panels, with a height that keeps them readable, and their places.

    Args:
        titles: One for each panel.
        columns: At most so many beside each other.
        row_height: Pixels of a row of panels with its title and axis.
        shared_yaxes: Whether the panels of a row have one vertical axis.
        names: In the legend; many of them need some lines of their own.
    """
    columns = min(columns, len(titles))
    rows = ceil(len(titles) / columns)
    height = rows * row_height + 90
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=list(titles),
        vertical_spacing=min(90 / (height - 90), 1 / max(rows - 1, 1)) if rows > 1 else 0,
        horizontal_spacing=(0.04 if shared_yaxes else 0.09) if columns > 1 else 0,
        shared_yaxes=shared_yaxes,
    )
    figure.update_annotations(font_size=12)
    figure.update_layout(
        height=height + _LINE * max(ceil(names / _NAMES) - 1, 0),
        legend={"orientation": "h", "x": 0, "y": -70 / (height - 90), "yanchor": "top"},
        margin={"t": 40, "b": 50},
    )
    return figure, [(i // columns + 1, i % columns + 1) for i in range(len(titles))]


def by_group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each kind of original, under its title."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_title(*row.group), []).append(row)
    return groups


def row_name(row: Row) -> str:
    """Return how a row is named within its group."""
    return row.method if row.step == 1 else f"{row.method}, step {row.step}"


BAR = {"thickness": 12, "nticks": 5, "lenmode": "pixels", "len": 200, "y": 1, "yanchor": "top"}
"""A colour bar whose numbers have room."""


def bars_height(lines: int) -> int:
    """Return the height of a figure of so many lines of cells; `BAR` fits beside it."""
    return max(110 + 30 * lines, 290)


def menu(buttons: Sequence[dict[str, Any]], *, kind: str = "dropdown") -> dict[str, Any]:
    """Return Plotly's menu, above the panels on the left; `kind` may also be "buttons".

    On the right Plotly's own buttons would cover it.
    """
    return {
        "type": kind, "direction": "down" if kind == "dropdown" else "right",
        "buttons": list(buttons), "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom",
        "pad": {"b": 26},
    }  # fmt: skip
