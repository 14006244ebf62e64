"""Every figure of a report as PNG and PDF, with its caption, for a paper."""

import asyncio
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from orthounlearn.errors import UsageError
from orthounlearn.files import write_text, writing
from orthounlearn.report.cases import make_cases
from orthounlearn.report.collect import Run
from orthounlearn.report.figures import details, overviews
from orthounlearn.report.rows import Row
from orthounlearn.report.style import looks, template

WIDTH = 1000
"""Pixels; text of 12 is then as large as that of a paper whose column is 7 inches wide."""

_FORMATS = ("png", "pdf")
_SCALE = {"png": 2, "pdf": 1}


@dataclass(frozen=True)
class Plate:
    """One figure on its way to a file.

    Attributes:
        name: Of its files, without suffix.
        caption: In full.
        drawing: The figure.
    """

    name: str
    caption: str
    drawing: go.Figure


def plates(runs: Sequence[Run], rows: Sequence[Row]) -> Iterator[Plate]:
    """Yield every figure that the runs' files allow, as it is printed: still, on white paper."""
    styled = looks(row.method for row in rows)
    for overview in overviews():
        drawing = overview.draw(rows, styled)
        if drawing is not None:
            yield Plate(overview.name, f"{overview.title}. {overview.caption}", _still(drawing))
    for case in make_cases(runs, styled):
        for detail in details():
            drawing = detail.draw(case)
            if drawing is None:
                continue
            for method, chosen in _choices(drawing):
                of = f", {method}" if method else ""
                caption = f"{detail.title}, {case.title}{of}. {detail.caption}"
                name = f"{detail.name}-{_file_name(method)}" if method else detail.name
                yield Plate(f"{case.slug}/{name}", caption, _still(chosen))


def _choices(drawing: go.Figure) -> Iterator[tuple[str, go.Figure]]:
    """Yield what a menu would show, one after another, and its entry ("" without a menu)."""
    menus = [menu for menu in drawing.layout.updatemenus if menu.type == "dropdown"]
    if not menus:
        yield "", drawing
    for button in menus[0].buttons if menus else ():
        chosen = go.Figure(drawing)
        traces, layout, *which = button.args
        chosen.plotly_update(traces, layout, trace_indexes=which[0] if which else None)
        yield button.label, chosen


def _file_name(method: str) -> str:
    """Return a method as a row names it, options and all, without what files cannot be named.

    >>> _file_name("ssd (alpha=5), step 2")
    'ssd-alpha=5-step-2'
    """
    return re.sub(r"[^\w.=+-]+", "-", method).strip("-")


def _still(drawing: go.Figure) -> go.Figure:
    """Return a figure for paper: nothing on it can be pressed, and nothing waits for that."""
    drawing.data = [trace for trace in drawing.data if trace.visible != "legendonly"]
    drawing.layout.updatemenus = ()
    drawing.layout.sliders = ()
    drawing.update_layout(template=template(dark=False), width=WIDTH)
    return drawing


def write_figures(folder: Path, runs: Sequence[Run], rows: Sequence[Row]) -> int:
    """Write `NAME.png`, `NAME.pdf` of every figure, and `captions.md`.

    Args:
        folder: For them.
        runs: Of the table.
        rows: Of the table.

    Returns:
        The number of figures.

    Raises:
        UsageError: Kaleido or the browser that it needs is missing.
    """
    kaleido = _kaleido()
    # Without formulas nothing has to be fetched from elsewhere.
    options = {"page_generator": kaleido.PageGenerator(mathjax=False)}

    async def draw() -> list[str]:
        captions = []
        async with kaleido.Kaleido(**options) as browser:  # one for all figures
            for plate in plates(runs, rows):
                for suffix in _FORMATS:
                    drawn = await browser.calc_fig(plate.drawing, opts=_options(plate, suffix))
                    _write(folder / f"{plate.name}.{suffix}", drawn)
                captions.append(f"- **{plate.name}**: {plate.caption}")
        return captions

    try:
        captions = asyncio.run(draw())
    except RuntimeError as error:
        raise UsageError(
            "Expected a Chrome or Chromium to draw figures as PNG and PDF, but it cannot be used "
            f"({error}). Install one, or name it in the variable BROWSER_PATH."
        ) from error
    write_text(folder / "captions.md", "\n".join(["# Captions", "", *captions]) + "\n")
    return len(captions)


def _kaleido() -> Any:  # noqa: ANN401 - an untyped module
    try:
        import kaleido
    except ImportError as error:
        raise UsageError(
            "Expected kaleido for figures as PNG and PDF, but it is not installed: "
            "`pip install 'orthounlearn[figures]'`."
        ) from error
    for name in ("kaleido", "choreographer"):  # they tell the story of each temporary file
        logging.getLogger(name).setLevel(logging.WARNING)
    return kaleido


def _options(plate: Plate, suffix: str) -> dict[str, Any]:
    height = plate.drawing.layout.height
    return {"format": suffix, "scale": _SCALE[suffix], "width": WIDTH, "height": height}


def _write(path: Path, content: bytes) -> None:
    with writing(path) as temporary:
        temporary.write_bytes(content)
