"""The job `report`: read runs, write and print the table."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from orthounlearn.config.checks import validate_file_name
from orthounlearn.errors import UsageError
from orthounlearn.files import write_json, write_text
from orthounlearn.report.collect import find_diverged, find_runs, plain_name, read_runs
from orthounlearn.report.columns import COLUMNS
from orthounlearn.report.columns import columns as chosen_columns
from orthounlearn.report.listing import read_listing, refuse_a_sweeps, write_listing
from orthounlearn.report.rows import make_rows
from orthounlearn.report.writers import show, to_csv, to_json, to_latex, to_markdown

_DEFAULT = "all"


def report(
    *,
    runs: str,
    name: str = _DEFAULT,
    table: str | None = None,
    dataset: str | None = None,
    folders: Sequence[Path] | None = None,
    columns: Sequence[str] | None = None,
    command: str | None = None,
    page: bool = False,
    figures: bool = False,
    wandb: str | None = None,
) -> Path:
    """Write `RUNS/tables/NAME/table.{md,csv,tex,json}` and print the table.

    Of a sweep, which names its folders, the list of them is written too, so that `table` can read
    exactly these again. With `page`, `report.html` is written beside them: the table with all
    figures; with `figures`, each figure as PNG and PDF below `figures/`.

    Args:
        runs: Folder of all results.
        name: Of the table.
        table: Name of a sweep's table, instead: its runs, its columns and command where none are
            given here, and its folder.
        dataset: Only runs on this data set.
        folders: Only these runs; None takes all.
        columns: Keys of the figures to show, and `verdict`; None: the usual ones.
        command: What made the runs, for the record.
        page: Whether to make the page, which reads what the networks said, and takes some seconds.
        figures: Whether to draw them for a paper; needs kaleido and a Chrome or Chromium.
        wandb: ENTITY/PROJECT to publish a workspace and a report in; needs wandb-workspaces.

    Returns:
        The folder of the table.

    Raises:
        UsageError: There is no finished run, the name is that of a sweep's table or `table` is not,
            a column that no figure has, no browser to draw
            figures with, or nothing can be published.
    """
    root = Path(runs).absolute()
    by_sweep = folders is not None
    if table is not None:
        name = _only(table, name=name, dataset=dataset)
        listing = read_listing(root, name)
        folders = [root / folder for folder in listing.folders]
        columns, command = columns or listing.columns, command or listing.command
    else:
        validate_file_name("name", name)
        if not by_sweep:
            refuse_a_sweeps(root, name)
    found, problems = find_runs(root) if folders is None else read_runs(folders)
    datasets = sorted({plain_name(run.data) for run in found})
    found = [run for run in found if dataset in (None, run.data, plain_name(run.data))]
    console = Console(width=None if sys.stdout.isatty() else 200)
    for problem in problems:
        console.print(f"left out: {problem}", style="yellow", highlight=False)
    if not found:
        raise UsageError(
            f"Expected finished runs below {root}"
            + (f" on {dataset}" if dataset else "")
            + ", but there are "
            + (f"only some on {', '.join(datasets)}. " if datasets else "none. ")
            + "Make some with `orthounlearn unlearn` or `orthounlearn sweep`."
        )
    rows = make_rows(found)
    keys = chosen_columns(rows, columns or COLUMNS)
    folder = root / "tables" / name
    about: dict[str, Any] = {
        "command": command,
        "environment": found[0].environment,
        "diverged": find_diverged(root, data=dataset, folders=folders),
    }
    if by_sweep:
        write_listing(root, name, folders or (), columns=columns, command=command)
    write_json(folder / "table.json", to_json(rows, **about))
    write_text(folder / "table.csv", to_csv(rows))
    write_text(folder / "table.md", to_markdown(rows, keys, **about))
    latex = to_latex(rows, keys, name=name, command=command, diverged=about["diverged"])
    write_text(folder / "table.tex", latex)
    show(rows, keys, console, diverged=about["diverged"])
    if page:
        from orthounlearn.report.page import render_page  # plotly takes a while to import

        text = render_page(
            found, rows, keys, name=name, command=command, problems=problems, root=root
        )
        write_text(folder / "report.html", text)
        console.print(f"Written: {folder}/report.html", highlight=False, soft_wrap=True)
    if figures:
        from orthounlearn.report.export import write_figures

        count = write_figures(folder / "figures", found, rows)
        console.print(f"Written: {count} figures in {folder}/figures", highlight=False)
    if wandb is not None:
        from orthounlearn.report.wandb_workspace import publish

        for address in publish(wandb, rows, keys, name=name, **about):
            console.print(f"Published: {address}", highlight=False, soft_wrap=True)
    console.print(f"Written: {folder}/table.{{md,csv,tex,json}}", highlight=False, soft_wrap=True)
    if by_sweep:
        call = f"orthounlearn report table={name}{_elsewhere(root)}"
        console.print(f"A page with all figures: {call}", highlight=False, soft_wrap=True)
    return folder


def _only(table: str, *, name: str, dataset: str | None) -> str:
    """Return the name of a sweep's table; refuse what would make another table of it."""
    validate_file_name("table", table)
    if name != _DEFAULT or dataset is not None:
        raise UsageError(
            f"Expected table={table} without name= and dataset=, since it is a sweep's whole "
            f"table, in its own folder. `orthounlearn report name=NAME dataset=NAME` makes one of "
            "other runs."
        )
    return table


def _elsewhere(root: Path) -> str:
    """Return what a command needs to find results that are not where it looks."""
    usual = Path(os.environ.get("ORTHOUNLEARN_RUNS", "runs")).absolute()
    return "" if usual == root else f" {shlex.quote(f'runs={root}')}"
