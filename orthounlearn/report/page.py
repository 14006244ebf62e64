"""The report page: one HTML file that needs nothing else, made of the figures and the table."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log10
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from orthounlearn import __version__
from orthounlearn.metrics.catalog import figure as catalogued
from orthounlearn.metrics.verdict import (
    ACCURACY_TOLERANCE,
    AUC_TOLERANCE,
    CLASS_TOLERANCE,
    FLAGS,
    PROBE_TOLERANCE,
    TITLES,
)
from orthounlearn.report.cases import Case, make_cases
from orthounlearn.report.claims import claim_lines
from orthounlearn.report.collect import Run
from orthounlearn.report.columns import VERDICT, heading, number, scaled, text, verdicts
from orthounlearn.report.figures import details, overviews
from orthounlearn.report.rows import Cell, Row
from orthounlearn.report.style import looks, template
from orthounlearn.report.writers import legend

MOST_CASES = 24
"""Requests that a page shows in detail: each takes some 300 kB, and a page should open at once."""

_TARGETS = {
    "retrained": "best at the retrained model's own value",
    "zero": "best at 0",
    "low": "the lower the better",
    "high": "the higher the better",
    "info": "for information",
}
_RULE = (
    "compares accuracies, a membership attack, probes and relearning with the mean of the "
    "retrained networks; a difference counts once its 95 % interval lies wholly beyond what "
    f"another training may change ({100 * ACCURACY_TOLERANCE:.0f} points of accuracy, "
    f"{100 * CLASS_TOLERANCE:.0f} of one class, {AUC_TOLERANCE} of AUC, "
    f"{100 * PROBE_TOLERANCE[50]:.0f} points of the 50-shot probe). Of several findings the first "
    f"of {', '.join(FLAGS)} is named; ok: nothing counts; incomplete: something cannot be judged"
)
_NAMES: dict[str, Callable[[Row], str]] = {
    "Data": lambda row: row.data,
    "Model": lambda row: row.model,
    "Loss": lambda row: row.regularizer,
    "Method": lambda row: row.method,
    "Step": lambda row: str(row.step),
}
_WIDTH, _MARGIN = 72, 4  # pixels of a cell's bar


@dataclass(frozen=True)
class Bar:
    """Where mean, interval and target stand within a cell, in pixels; None where there is none."""

    mean: float
    low: float | None
    high: float | None
    target: float | None


@dataclass(frozen=True)
class Shown:
    """One cell of the page's table.

    Attributes:
        text: Mean and half width.
        hover: The whole of it, in words.
        sort: What its column is sorted by; empty cells come last.
        bar: Its picture; None for text.
        badges: Headline, its number of runs, and what it says.
    """

    text: str
    hover: str
    sort: float | str | None
    bar: Bar | None = None
    badges: tuple[tuple[str, int, str], ...] = ()


def render_page(
    runs: Sequence[Run],
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    name: str,
    command: str | None,
    problems: Sequence[str] = (),
    root: Path,
) -> str:
    """Return the page.

    Args:
        runs: All of the table.
        rows: Of the table.
        keys: Its columns.
        name: Of the table.
        command: What made the runs.
        problems: What was left out, and why.
        root: Folder of all results; run directories are named from there.
    """
    # The verdict first: a narrow screen cuts the last columns off.
    keys = sorted(keys, key=lambda key: key != VERDICT)
    styled = looks(row.method for row in rows)
    cases = make_cases(runs, styled)
    shown = _spread(cases, MOST_CASES)
    overall = {f.name: f.draw(rows, styled) for f in overviews()}
    drawn = [_details(case) for case in shown]
    context = {
        "name": name,
        "issued": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "command": command,
        "legend": legend(rows),
        "runs": runs,
        "columns": [_column(key) for key in keys],
        "named": _named(rows),
        "filters": {
            title: list(dict.fromkeys(_NAMES[title](row) for row in rows)) for title in _named(rows)
        },
        "rows": _table(rows, keys),
        "shared": {
            title: name(rows[0])
            for title, name in _NAMES.items()
            if title not in _named(rows) and (title, name(rows[0])) != ("Step", "1")
        },
        "width": _WIDTH,
        "verdict_titles": TITLES,
        "overviews": [f for f in overviews() if overall[f.name] is not None],
        "details": [f for f in details() if f.missing or any(f.name in specs for specs in drawn)],
        "specs": _json({n: _spec(drawing) for n, drawing in overall.items() if drawing}),
        "cases": [
            {"title": case.title, "specs": _json(specs)}
            for case, specs in zip(shown, drawn, strict=True)
        ],
        "left_out": len(cases) - len(shown),
        "themes": _json({theme: template(dark=theme == "dark") for theme in ("light", "dark")}),
        "claims": claim_lines([row for row in rows if row.step == 1]),
        "environments": _environments(runs),
        "problems": problems,
        "folders": [(run, _relative(run.folder, root)) for run in runs],
        "plotly": Markup(get_plotlyjs().replace("</script", r"<\/script")),  # noqa: S704 - ours
    }
    return _PAGES.get_template("report.html").render(context)


def _spread(cases: Sequence[Case], most: int) -> list[Case]:
    """Return at most so many of the cases, from all over the list."""
    if len(cases) <= most:
        return list(cases)
    return [cases[i * len(cases) // most] for i in range(most)]


def _details(case: Case) -> dict[str, Any]:
    drawn = {figure.name: figure.draw(case) for figure in details()}
    return {name: _spec(drawing) for name, drawing in drawn.items() if drawing is not None}


def _spec(drawing: go.Figure) -> dict[str, Any]:
    """Return data and layout; the template is the page's, once for all."""
    spec: dict[str, Any] = drawing.to_plotly_json()
    spec["layout"].pop("template", None)
    return {"data": spec["data"], "layout": spec["layout"]}


def _json(value: Any) -> Markup:  # noqa: ANN401 - anything JSON can hold
    """Return JSON that cannot end the script element that holds it."""
    text: str = to_json_plotly(value)
    return Markup(text.replace("<", r"\u003c"))  # noqa: S704 - escaped here


def _column(key: str) -> dict[str, str]:
    if key == VERDICT:
        return {"heading": heading(key), "meaning": _RULE}
    entry = catalogued(key)
    return {"heading": heading(key), "meaning": f"{entry.formula}; {_TARGETS[entry.target]}"}


def _named(rows: Sequence[Row]) -> list[str]:
    """Return the headings of what tells rows apart; what all share needs no column."""
    return [
        title
        for title, name in _NAMES.items()
        if title == "Method" or len({name(row) for row in rows}) > 1
    ]


def _table(rows: Sequence[Row], keys: Sequence[str]) -> list[dict[str, Any]]:
    named = _named(rows)
    scales = {key: _scale(rows, key) for key in keys if key != VERDICT}
    return [
        {
            "names": {title: _NAMES[title](row) for title in named},
            "cells": [_verdict(row) if key == VERDICT else _cell(row, key, scales[key])
                      for key in keys],
        }
        for row in rows
    ]  # fmt: skip


def _verdict(row: Row) -> Shown:
    found = verdicts(row)
    badges = tuple((headline, count, TITLES[headline]) for headline, count in found.items())
    return Shown("", "", next(iter(found), None), badges=badges)


def _cell(row: Row, key: str, scale: "_Scale") -> Shown:
    cell = row.metrics.get(key)
    if cell is None:
        return Shown("–", "not measured, or not defined", None)
    parts = [f"{heading(key)}: {number(key, cell)} over {cell.n} run{'s' if cell.n > 1 else ''}"]
    if cell.low is not None and cell.high is not None:
        parts.append(f"95 % interval {scaled(key, cell.low)} to {scaled(key, cell.high)}")
    if cell.target is not None:
        parts.append(f"retrained: {scaled(key, cell.target)}")
    target = cell.target if catalogued(key).target == "retrained" else None
    low, high, aim = (None if v is None else scale(v) for v in (cell.low, cell.high, target))
    bar = Bar(scale(cell.mean), low, high, aim)
    return Shown(text(row, key), "; ".join(parts), cell.mean, bar)


@dataclass(frozen=True)
class _Scale:
    """From a value to pixels within a cell, the same for a whole column."""

    least: float
    most: float
    log: bool

    def __call__(self, value: float) -> float:
        """Return pixels; what is beyond the ends is put there."""
        position = _log(value) if self.log else value
        share = (position - self.least) / (self.most - self.least or 1.0)
        return round(_MARGIN + min(max(share, 0.0), 1.0) * (_WIDTH - 2 * _MARGIN), 1)


def _scale(rows: Sequence[Row], key: str) -> _Scale:
    """Return the scale of the means and targets; an interval may be cut, a mean may not."""
    cells = [row.metrics[key] for row in rows if key in row.metrics]
    log = key.startswith("time/")
    values = [value for cell in cells for value in _marks(cell) if not log or value > 0]
    ends = [_log(value) if log else value for value in values] or [0.0, 1.0]
    return _Scale(min(ends), max(ends), log)


def _marks(cell: Cell) -> list[float]:
    return [cell.mean] if cell.target is None else [cell.mean, cell.target]


def _log(value: float) -> float:
    return log10(max(value, 1e-6))  # below a microsecond nothing was timed


def _environments(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return each combination of code, versions and machine, and how many runs it made."""
    found: Counter[tuple[tuple[str, str], ...]] = Counter()
    for run in runs:
        environment = run.environment
        versions = environment.get("versions", {})
        pairs = {
            "code": environment.get("git") or "not known",
            "device": environment.get("device_name") or environment.get("device", "?"),
            "platform": environment.get("platform", "?"),
            "python": environment.get("python", "?"),
            **versions,
        }
        found[tuple((key, str(value)) for key, value in pairs.items())] += 1
    return [{"runs": count, "pairs": pairs} for pairs, count in found.most_common()]


def _relative(folder: Path, root: Path) -> str:
    return str(folder.relative_to(root)) if folder.is_relative_to(root) else str(folder)


_PAGES = Environment(
    loader=PackageLoader("orthounlearn.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
