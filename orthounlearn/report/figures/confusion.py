"""Confusion before, after, and as it would be after retraining."""

import numpy as np
import plotly.graph_objects as go
from sklearn.metrics import confusion_matrix

from orthounlearn.metrics.scores import Floats
from orthounlearn.report.cases import ORIGINAL, RETRAIN, Case
from orthounlearn.report.figures.kinds import Detail
from orthounlearn.report.figures.panels import BAR, grid, menu
from orthounlearn.report.style import SEQUENTIAL

_SPLITS = ("forget_test", "retain_test")
_MOST = 14
_REST = "other"


def draw(case: Case) -> go.Figure | None:
    """Return true x predicted class for the original, one method of a menu, and retrain."""
    tables = {method: confusion(case, method) for method in case.methods}
    found = {method: table for method, table in tables.items() if table is not None}
    rivals = [method for method in case.rivals if method in found]
    if not rivals:
        return None
    names = case.classes(len(found[rivals[0]]))
    found, names = _reduced(found, names, case)
    shown = [m for m in (ORIGINAL, rivals[0], RETRAIN) if m in found]
    titles = [_after(m) if m == rivals[0] else m for m in shown]
    figure, places = grid(titles, columns=3, row_height=330, shared_yaxes=True)
    for method, (line, column) in zip(shown, places, strict=True):
        figure.add_heatmap(
            z=found[method], x=names, y=names, coloraxis="coloraxis", xgap=1, ygap=1,
            text=_numbers(found[method]), texttemplate="%{text}", textfont={"size": 9},
            hovertemplate="%{y} called %{x}: %{z:.1f} %<extra></extra>", row=line, col=column,
        )  # fmt: skip
    figure.update_xaxes(title_text="predicted", type="category", showgrid=False, tickangle=-60)
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    figure.update_yaxes(title_text="true class", col=1)
    middle = shown.index(rivals[0])
    buttons = [
        {
            "label": method,
            "method": "update",
            "args": [
                {"z": [found[method]], "text": [_numbers(found[method])]},
                {f"annotations[{middle}].text": _after(method)},
                [middle],
            ],
        }
        for method in rivals
    ]
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 100,
                   "colorbar": BAR | {"title": {"text": "%"}}},
        updatemenus=[menu(buttons)], height=470, margin={"t": 90},
    )  # fmt: skip
    return figure


def _numbers(table: Floats) -> list[list[str]]:
    """Return what stands in the cells: no zeros, which would hide the few numbers that count."""
    return [[f"{share:.0f}" if share > 0.5 else "" for share in line] for line in table]


def _after(method: str) -> str:
    return f"after {method}"


def confusion(case: Case, method: str) -> Floats | None:
    """Return the share (K, K) of each true class that is given each name, in %, mean over seeds."""
    shares = []
    answers = [case.answers(method, split) for split in _SPLITS]
    for parts in zip(*answers, strict=True):
        logits = np.concatenate([part for part, _ in parts])
        truth = np.concatenate([labels for _, labels in parts])
        count = confusion_matrix(truth, logits.argmax(1), labels=range(logits.shape[1]))
        shares.append(100 * count / np.maximum(count.sum(1, keepdims=True), 1))
    return np.mean(shares, axis=0).round(2) if shares else None


def _reduced(
    found: dict[str, Floats], names: list[str], case: Case
) -> tuple[dict[str, Floats], list[str]]:
    """Keep of many classes the forgotten ones and those whose row changes most; sum the others."""
    if len(names) <= _MOST:
        return found, names
    change = np.max([np.abs(t - next(iter(found.values()))).sum(1) for t in found.values()], axis=0)
    change[[label for label, name in enumerate(names) if name in case.gone]] = np.inf
    kept = np.sort(np.argsort(-change)[: _MOST - 1])
    others = np.setdiff1d(np.arange(len(names)), kept)

    def reduce(table: Floats) -> Floats:
        columns = np.column_stack([table[:, kept], table[:, others].sum(1)])
        return np.vstack([columns[kept], columns[others].mean(0)]).round(2)

    return {m: reduce(t) for m, t in found.items()}, [*(names[i] for i in kept), _REST]


FIGURE = Detail(
    "confusion",
    "Confusion before, after, and after retraining",
    "Share of each true class, in %, that is given each name, on test images. What counts is that "
    "the middle looks like retrain, which is on the right if it was trained, in all rows. Of many "
    "classes the forgotten ones and those that change most are shown.",
    130,
    draw,
    "The menu chooses the method in the middle.",
)
