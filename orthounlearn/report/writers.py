"""The table as Markdown, LaTeX, CSV and JSON, and on the terminal."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.table import Table

from orthounlearn.report.claims import claim_lines
from orthounlearn.report.collect import is_marked
from orthounlearn.report.columns import heading, in_sequence, text
from orthounlearn.report.rows import Cell, Row, group_title

LEGEND = (
    "Mean ± 95 % t-interval over forget classes × seeds; n=… where only so many runs of a row have "
    "a value. →R: the closer to the retrained model's "
    "own value the better; →0: 0 is as after retraining, 1 as before the request; ↓ lower, "
    "↑ higher is better. A masked logit reaches forget accuracy 0 with the class left in the "
    "features, so forget accuracy alone proves nothing."
)
_MARKS = (
    "#… tells apart what has one name, but other images, another training or other options: "
    "data_fingerprint, network or settings in run.json, beside config.yaml."
)


def to_json(
    rows: Sequence[Row],
    *,
    command: str | None,
    environment: dict[str, Any],
    diverged: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the whole table: every figure of every row, and which runs have none."""
    return {
        "command": command,
        "environment": environment,
        "diverged": list(diverged),
        "rows": [
            {
                "data": row.data,
                "model": row.model,
                "regularizer": row.regularizer,
                "method": row.method,
                "step": row.step,
                "trials": row.trials,
                "metrics": {key: _rounded(cell) for key, cell in row.metrics.items()},
            }
            for row in rows
        ],
    }


def to_csv(rows: Sequence[Row]) -> str:
    """Return one line per row and figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    identity = ["data", "model", "regularizer", "method", "step"]
    writer.writerow([*identity, "metric", "mean", "low", "high", "n", "target"])
    for row in rows:
        for key, cell in row.metrics.items():
            writer.writerow(
                [*(getattr(row, name) for name in identity), key, *_rounded(cell).values()]
            )
    return out.getvalue()


def _rounded(cell: Cell) -> dict[str, float | int | None]:
    """Return the numbers of a cell to seven digits: means of a few runs have no more to say."""
    return {
        name: float(f"{value:.7g}") if isinstance(value, float) else value
        for name, value in asdict(cell).items()
    }


def to_markdown(
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    command: str | None,
    environment: dict[str, Any],
    diverged: Sequence[str] = (),
) -> str:
    """Return the chosen columns, one table per original, and the published claims."""
    lines = []
    if command:
        lines += [f"Command: `{command}`", ""]
    versions = environment.get("versions", {})
    lines += [
        f"Code {environment.get('git') or versions.get('orthounlearn', '?')}, "
        f"torch {versions.get('torch', '?')}, {environment.get('device', '?')}.",
        "",
        *(line for note in _notes(rows, diverged) for line in (note, "")),
    ]
    named = _named(rows)
    for title, group in _groups(rows):
        cells = [[*named, *(heading(key) for key in keys)]]
        cells += [[*_identity(row, named), *_numbers(row, keys)] for row in group]
        lines += [f"### {title}", "", *_markdown_table(cells), ""]
    if claims := claim_lines(_alone(rows)):
        cells = [["Published claim", "Source", "Measured here", "Note"], *map(list, claims)]
        lines += [
            "### The published claims beside ours",
            "",
            "soft_prune on each original trained with an orthogonal loss.",
            "",
            *_markdown_table(cells),
        ]
    return "\n".join(lines) + "\n"


def to_latex(
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    name: str,
    command: str | None,
    diverged: Sequence[str] = (),
) -> str:
    """Return the chosen columns with booktabs rules, as wide as the page, and how to read them."""
    named = _named(rows)
    caption = "Forgetting classes of a trained network. " + " ".join(_notes(rows, diverged))
    lines = [
        f"% {command}" if command else "% orthounlearn report",
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        rf"\caption{{{_latex(caption)}}}",
        rf"\label{{tab:{name}}}",
        r"\resizebox{\textwidth}{!}{%",
    ]
    align = "l" + "r" * (len(named) - 1 + len(keys))
    lines += [r"\begin{tabular}{" + align + "}", r"\toprule"]
    lines.append(" & ".join([*named, *(_stacked(heading(key)) for key in keys)]) + r" \\")
    for title, group in _groups(rows):
        lines += [r"\midrule", rf"\multicolumn{{{len(align)}}}{{l}}{{{_latex(title)}}} \\"]
        lines += [
            " & ".join(map(_latex, [*_identity(row, named), *_numbers(row, keys)])) + r" \\"
            for row in group
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}"]) + "\n"


def show(
    rows: Sequence[Row], keys: Sequence[str], console: Console, *, diverged: Sequence[str] = ()
) -> None:
    """Print the chosen columns and the claims."""
    named = _named(rows)
    for title, group in _groups(rows):
        table = Table(title=title, title_justify="left")
        for name in named:
            table.add_column(name, no_wrap=True)
        for key in keys:
            table.add_column(heading(key), justify="right")
        for row in group:
            table.add_row(*_identity(row, named), *_numbers(row, keys))
        console.print(table)
    console.print(*_notes(rows, diverged), sep="\n", highlight=False, soft_wrap=True)
    if claims := claim_lines(_alone(rows)):
        table = Table(title="The published claims beside soft_prune here", title_justify="left")
        for title in ("Claimed", "Source", "Measured here", "Note"):
            table.add_column(title)
        for line in claims:
            table.add_row(*line)
        console.print(table)


def _notes(rows: Sequence[Row], diverged: Sequence[str]) -> list[str]:
    """Return what a reader of the table has to know, one paragraph each."""
    lost = f"Diverged, hence without figures: {'; '.join(diverged)}." if diverged else ""
    return [note for note in (legend(rows), _settings(rows), lost) if note]


def legend(rows: Sequence[Row]) -> str:
    """Return how to read the table."""
    marked = any(is_marked(name) for row in rows for name in (row.data, row.model, row.method))
    return f"{LEGEND} {_MARKS}" if marked else LEGEND


def _settings(rows: Sequence[Row]) -> str:
    """Return which methods were tuned and which have their defaults; "" if none has a choice.

    Of several settings that nobody tuned, no more than one can be the default: they are left out.
    """
    by_trials: dict[int, list[str]] = {}
    for row in rows:
        if row.trials == 0 and is_marked(row.method):
            continue
        if row.trials is not None and row.method not in by_trials.setdefault(row.trials, []):
            by_trials[row.trials].append(row.method)
    return " ".join(
        f"Settings chosen on validation images, best of {trials}: {', '.join(methods)}."
        if trials
        else f"Default settings: {', '.join(methods)}."
        for trials, methods in sorted(by_trials.items(), reverse=True)
    )


def _named(rows: Sequence[Row]) -> list[str]:
    """Return the headings of what names a row within its group."""
    return ["Method", "Step"] if in_sequence(rows) else ["Method"]


def _identity(row: Row, named: Sequence[str]) -> list[str]:
    return [str(getattr(row, name.lower())) for name in named]


def _alone(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that the claims are about: a request on an original model."""
    return [row for row in rows if row.step == 1]


def _numbers(row: Row, keys: Sequence[str]) -> list[str]:
    return [text(row, key) for key in keys]


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_title(*row.group), []).append(row)
    return list(groups.items())


def _markdown_table(cells: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in cells]
    widths = [max(len(line[i]) for line in escaped) for i in range(len(escaped[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in escaped
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


_HEADING = 12  # characters of a line, about as many as a number with its interval has

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "→": r"$\to$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "–": "--",
    "Δ": r"$\Delta$", "×": r"$\times$", "…": r"\ldots{}",
}  # fmt: skip


def _stacked(text: str) -> str:
    """Return a heading in short lines: columns are then as wide as their numbers."""
    lines = r" \\ ".join(_latex(line) for line in wrap(text, _HEADING))
    return rf"\shortstack[r]{{{lines}}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
