"""The figures of a report: one file each, found by their `FIGURE`; pure functions of what was read.

A figure knows nothing of pages and files: the same drawing goes into the page, the PNG and the PDF.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from orthounlearn.report.figures.kinds import Detail, Overview


@cache
def _found() -> tuple[Overview | Detail, ...]:
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    figures = [module.FIGURE for module in modules if hasattr(module, "FIGURE")]
    return tuple(sorted(figures, key=lambda figure: figure.place))


def overviews() -> list[Overview]:
    """Return the figures of the whole table, in the order of a page."""
    return [figure for figure in _found() if isinstance(figure, Overview)]


def details() -> list[Detail]:
    """Return the figures of one request, in the order of a page."""
    return [figure for figure in _found() if isinstance(figure, Detail)]
