"""Real images, and what the networks call them before and after."""

from base64 import b64encode
from html import escape
from io import BytesIO

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from orthounlearn.report.cases import ORIGINAL, RETRAIN, Case
from orthounlearn.report.figures.kinds import OLDER, Detail
from orthounlearn.report.figures.panels import menu
from orthounlearn.report.style import VERMILION

_SPLITS = ("forget_test", "retain_test")
_LINE = 0.2  # height of a line of text, of an image's
_BLOCK = 1 + 4 * _LINE + 0.25  # an image, four lines and a gap
_PIXELS = 105  # of an image's height
_LONGEST = 11  # letters of a name


def draw(case: Case) -> go.Figure | None:
    """Return images with what the original, one method of a menu, and retrain call them."""
    stored = _images(case)
    if stored is None:
        return None
    seed, images = stored
    told = {m: _told(case, m, seed, images) for m in (ORIGINAL, *case.rivals, RETRAIN)}
    rivals = [method for method in case.rivals if told[method]]
    if not rivals:
        return None
    lines = [m for m in (ORIGINAL, rivals[0], RETRAIN) if told[m]]
    figure = go.Figure()
    count = max(len(pixels) for _, pixels in images.values())
    truth = _truth(case, rivals[0], seed, images)
    for place, texts in enumerate((truth, *(told[m] for m in lines))):
        figure.add_scatter(
            x=_columns(images), y=_heights(images, place), text=texts, mode="text",
            textfont={"size": 11}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    for block, (_, pixels) in enumerate(images.values()):
        for column, image in enumerate(pixels):
            figure.add_layout_image(
                source=_png(image), x=column, y=-block * _BLOCK, xref="x", yref="y",
                sizex=0.94, sizey=1, xanchor="center", yanchor="top", sizing="contain",
            )  # fmt: skip
    middle = 1 + lines.index(rivals[0])
    buttons = [
        {
            "label": method,
            "method": "update",
            "args": [
                {"text": [told[method]]},
                {"yaxis.ticktext": _ticks([method if m == rivals[0] else m for m in lines])},
                [middle],
            ],
        }
        for method in rivals
    ]
    figure.update_xaxes(visible=False, range=[-0.5, count - 0.5], fixedrange=True)
    figure.update_yaxes(
        range=[-_BLOCK * len(images) + 0.2, 0.02], showgrid=False, ticks="", showline=False,
        tickvals=[
            _height(block, place) for block in range(len(images)) for place in range(len(lines) + 1)
        ],
        ticktext=_ticks(lines), fixedrange=True,
    )  # fmt: skip
    figure.update_layout(
        updatemenus=[menu(buttons)], height=round(_PIXELS * _BLOCK * len(images)) + 80,
        margin={"t": 60, "b": 10, "l": 100, "r": 10},
    )  # fmt: skip
    return figure


Shown = dict[str, tuple[NDArray[np.int64], NDArray[np.uint8]]]
"""Split -> rows within it (n,), and the images of these rows (n, H, W, C)."""


def _images(case: Case) -> tuple[int, Shown] | None:
    """Return the first seed of a method that has images, and these."""
    for method in case.rivals:
        for run in case.runs[method]:
            path = run.folder / "gallery.npz"
            if path.exists():
                with np.load(path) as stored:
                    return run.seed, {
                        split: (stored[f"rows/{split}"], stored[f"images/{split}"])
                        for split in _SPLITS
                    }
    return None


def _told(case: Case, method: str, seed: int, images: Shown) -> list[str]:
    """Return what a method's network calls each image, with its confidence; [] if nobody knows."""
    texts = []
    for split, (rows, _) in images.items():
        answers = case.answers_of_seed(method, split, seed)
        if answers is None:
            return []
        names = case.classes(answers[0].shape[1])
        for shares in softmax(answers[0][rows].astype(np.float64), axis=1):
            name = names[int(shares.argmax())]
            text = f"{_short(name)} {shares.max():.0%}"
            texts.append(_marked(text) if name in case.gone else text)
    return texts


def _truth(case: Case, method: str, seed: int, images: Shown) -> list[str]:
    texts = []
    for split, (rows, _) in images.items():
        answers = case.answers_of_seed(method, split, seed)
        if answers is not None:
            names = case.classes(answers[0].shape[1])
            texts += [f"<b>{_short(names[label])}</b>" for label in answers[1][rows]]
    return texts


def _short(name: str) -> str:
    return escape(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…")


def _marked(text: str) -> str:
    return f'<span style="color:{VERMILION}"><b>{text}</b></span>'


def _columns(images: Shown) -> list[int]:
    return [column for rows, _ in images.values() for column in range(len(rows))]


def _heights(images: Shown, place: int) -> list[float]:
    return [_height(block, place) for block, (rows, _) in enumerate(images.values()) for _ in rows]


def _height(block: int, place: int) -> float:
    return round(-block * _BLOCK - 1 - (place + 0.6) * _LINE, 3)


def _ticks(lines: list[str]) -> list[str]:
    return ["<b>true class</b>", *lines] * len(_SPLITS)


def _png(image_HWC: NDArray[np.uint8]) -> str:
    """Return an image as a data URI."""
    grey = image_HWC.shape[2] == 1
    out = BytesIO()
    Image.fromarray(image_HWC[:, :, 0] if grey else image_HWC).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"


FIGURE = Detail(
    "gallery",
    "Images before and after",
    "Unseen images of the forgotten classes (above) and of the others (below): what the original, "
    "the unlearned and the retrained network call each, with the confidence. Names of classes "
    "that are forgotten, now or before, are marked. The same images for all methods, spread "
    "evenly over the classes, of one seed.",
    105,
    draw,
    "The menu chooses the method.",
    missing=OLDER,
)
