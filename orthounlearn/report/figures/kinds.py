"""What a figure is: of the whole table, or of one request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from orthounlearn.report.cases import Case
from orthounlearn.report.rows import Row
from orthounlearn.report.style import Look

OLDER = (
    "Not in these runs, which an older version has made. Delete the folders of those that should "
    "have it (they stand under Provenance) and give their command again."
)
"""What is said of a figure whose files every new run has."""


LEGEND = "A click on a name below hides or shows a method."
"""What can be done with the legend of a figure of curves."""


@dataclass(frozen=True)
class Titled:
    """What every figure says of itself.

    Attributes:
        name: Of its files; also its anchor on the page.
        title: In a few words.
        caption: What is shown, and how to read it.
        place: Figures stand in ascending order.
        draw: Returns None if nothing can be shown.
        hint: What can be pressed or moved, on a page alone.
        missing: What a page says where nothing can be drawn, and how to get it; "" leaves the
            figure out.
    """

    name: str
    title: str
    caption: str
    place: int
    draw: Callable[..., go.Figure | None]
    hint: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Overview(Titled):
    """A figure of the whole table, drawn from its rows and the looks of its methods."""

    draw: Callable[[Sequence[Row], dict[str, Look]], go.Figure | None]


@dataclass(frozen=True)
class Detail(Titled):
    """A figure of one request, drawn from its runs; None if their files lack what is needed."""

    draw: Callable[[Case], go.Figure | None]
