"""Utility against leakage or time: what nobody beats in both."""

from collections.abc import Sequence
from math import log10

import plotly.graph_objects as go

from orthounlearn.report.cases import ORIGINAL, RETRAIN
from orthounlearn.report.columns import heading
from orthounlearn.report.figures.panels import by_group, grid, row_name
from orthounlearn.report.rows import Cell, Row
from orthounlearn.report.style import GREY, Look

UTILITY = "acc/retain_test"

_REFERENCES = (ORIGINAL, RETRAIN)


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

    Args:
        rows: Of the table.
        looks: Of the methods.
        key: Of the cost; the nearer to 0 the better.
        scale: Times its value.
        title: Of the cost's axis.
        log: Whether that axis is logarithmic.
    """
    shown = [row for row in rows if key in row.metrics and UTILITY in row.metrics]
    if log:
        shown = [row for row in shown if row.metrics[key].mean > 0]
    if not shown:
        return None
    groups = by_group(shown)
    figure, places = grid(list(groups), columns=2, row_height=330)
    named: set[str] = set()
    for (_, members), (line, column) in zip(groups.items(), places, strict=True):
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
            look, cell, utility = looks[row.method], row.metrics[key], row.metrics[UTILITY]
            figure.add_scatter(
                x=[cell.mean * scale], y=[utility.mean * 100], mode="markers", name=row.method,
                legendgroup=row.method, showlegend=row.method not in named,
                marker={"color": look.colour, "symbol": look.symbol, "size": 11},
                error_x=_bar(cell, scale), error_y=_bar(utility, 100),
                hovertemplate=f"<b>{row_name(row)}</b><br>{title}: %{{x:.3g}}"
                "<br>retained: %{y:.1f} %<extra></extra>",
                row=line, col=column,
            )  # fmt: skip
            named.add(row.method)
        # By the marks: a few runs give intervals so wide that the marks would lie on a line.
        costs = [row.metrics[key].mean * scale for row in members]
        across = _around([log10(cost) for cost in costs] if log else costs)
        upwards = _around([_utility(row) for row in members])
        figure.update_xaxes(title_text=title, range=across, row=line, col=column)
        figure.update_yaxes(title_text=heading(UTILITY), range=upwards, row=line, col=column)
    if log:
        figure.update_xaxes(type="log", dtick=1, exponentformat="power")
    return figure


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
