"""Utility against leakage or time: what nobody beats in both."""

from collections.abc import Sequence
from math import log10
from statistics import median

import plotly.graph_objects as go

from orthounlearn.report.cases import ORIGINAL, RETRAIN
from orthounlearn.report.columns import heading
from orthounlearn.report.figures.panels import by_group, grid
from orthounlearn.report.rows import Cell, Row
from orthounlearn.report.style import GREY, Look

UTILITY = "acc/retain_test"

READING = (
    "The dotted line joins the methods that no other one beats in both. What stands on the "
    "lower edge lies far below the others, at the accuracy beside ▼. Of a sequence the first step."
)
"""What a caption says of every front."""

_REFERENCES = (ORIGINAL, RETRAIN)
_LABEL = 0.08  # of the axis: what the label of a mark on the edge takes
_LEAST_SHOWN = 10.0  # points below the best that an axis always has room for
_FAR = 3.0  # times the median distance to the best


def draw_front(
    rows: Sequence[Row],
    looks: dict[str, Look],
    *,
    key: str,
    scale: float,
    title: str,
    log: bool = False,
) -> go.Figure | None:
    """Return retained accuracy over one cost, a panel for each kind of original.

    Later steps of a sequence are left out: they stand for more than a single request.

    Args:
        rows: Of the table.
        looks: Of the methods.
        key: Of the cost; the nearer to 0 the better.
        scale: Times its value.
        title: Of the cost's axis.
        log: Whether that axis is logarithmic.
    """
    shown = [row for row in rows if row.step == 1 and key in row.metrics and UTILITY in row.metrics]
    if log:
        shown = [row for row in shown if row.metrics[key].mean > 0]
    if not shown:
        return None
    groups = by_group(shown)
    figure, places = grid(
        list(groups), columns=2, row_height=330, names=len({row.method for row in shown})
    )
    named: set[str] = set()
    for members, (line, column) in zip(groups.values(), places, strict=True):
        # By the marks: a few runs give intervals so wide that the marks would lie on a line.
        lowest = floor([_utility(row) for row in members])
        upwards = _around([max(_utility(row), lowest) for row in members])
        costs = [row.metrics[key].mean * scale for row in members]
        along = [log10(cost) for cost in costs] if log else costs
        across = _around(along)
        far = {
            row.method: (x - across[0]) / (across[1] - across[0])
            for row, x in zip(members, along, strict=True)
            if _utility(row) < lowest
        }
        heights = dict(zip(far, stacked(list(far.values()), _LABEL), strict=True))
        ends = sorted(
            (abs(row.metrics[key].mean) * scale, row.metrics[key].mean * scale, _utility(row))
            for row in front(members, key)
        )
        figure.add_scatter(
            x=[x for _, x, _ in ends], y=[y for *_, y in ends], mode="lines", name="front",
            line={"color": GREY, "width": 1, "dash": "dot"}, hoverinfo="skip",
            legendgroup="front", showlegend="front" not in named, row=line, col=column,
        )  # fmt: skip
        named.add("front")
        for row in members:
            look, cell, utility = looks[row.method], row.metrics[key], _utility(row)
            place: dict[str, object] = {
                "y": [utility], "mode": "markers", "error_x": _bar(cell, scale),
                "error_y": _bar(row.metrics[UTILITY], 100),
            }  # fmt: skip
            if utility < lowest:
                place = {
                    "y": [upwards[0]], "mode": "markers+text",
                    "text": [f"▼ {utility:.0f}" + "<br> " * heights[row.method]],
                    "textposition": "top center", "cliponaxis": False,
                }  # fmt: skip
            figure.add_scatter(
                x=[cell.mean * scale], name=row.method,
                legendgroup=row.method, showlegend=row.method not in named,
                marker={"color": look.colour, "symbol": look.symbol, "size": 11},
                hovertemplate=f"<b>{row.method}</b><br>{title}: %{{x:.3g}}"
                f"<br>retained: {utility:.1f} %<extra></extra>",
                row=line, col=column, **place,
            )  # fmt: skip
            named.add(row.method)
        figure.update_xaxes(title_text=title, range=across, row=line, col=column)
        figure.update_yaxes(title_text=heading(UTILITY), range=upwards, row=line, col=column)
    if log:
        figure.update_xaxes(type="log", dtick=1, exponentformat="power")
    return figure


def floor(utilities: Sequence[float]) -> float:
    """Return the utility below which a method would press the others together.

    >>> floor([90.0, 88.0, 85.0, 87.0, 20.0])
    80.0
    """
    best = max(utilities)
    typical = median([best - utility for utility in utilities])
    return best - max(_LEAST_SHOWN, _FAR * typical)


def stacked(places: Sequence[float], width: float) -> list[int]:
    """Return the line that each label stands in, the lowest in which it meets no other.

    Args:
        places: Of the labels' centres along an axis.
        width: Of a label.

    >>> stacked([0.0, 0.3, 0.1, 0.05], 0.08)
    [0, 0, 0, 1]
    """
    lines = [0] * len(places)
    ends: list[float] = []  # of the last label in each line
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        free = (line for line, end in enumerate(ends) if places[index] - end >= width)
        lines[index] = line = next(free, len(ends))
        ends = [*ends[:line], places[index], *ends[line + 1 :]]
    return lines


def _around(values: Sequence[float]) -> list[float]:
    """Return the ends of an axis that shows all values, with some room on both sides."""
    room = 0.08 * (max(values) - min(values)) or 0.5
    return [min(values) - room, max(values) + room]


def front(rows: Sequence[Row], key: str) -> list[Row]:
    """Return the rows that no other one beats in both; the references, which set the scale, apart.

    Args:
        rows: Of one kind of original.
        key: Of the cost; its distance from 0 counts.
    """
    rivals = [row for row in rows if row.method not in _REFERENCES]
    return [
        row for row in rivals if not any(_beats(_at(other, key), _at(row, key)) for other in rivals)
    ]


def _at(row: Row, key: str) -> tuple[float, float]:
    return abs(row.metrics[key].mean), -row.metrics[UTILITY].mean


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _utility(row: Row) -> float:
    return row.metrics[UTILITY].mean * 100


def _bar(cell: Cell, scale: float) -> dict[str, object]:
    if cell.low is None or cell.high is None:
        return {}
    return {
        "type": "data", "array": [(cell.high - cell.mean) * scale],
        "arrayminus": [(cell.mean - cell.low) * scale], "thickness": 1, "width": 3,
    }  # fmt: skip
