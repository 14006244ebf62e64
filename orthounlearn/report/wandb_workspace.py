"""A W&B workspace and report as code: the same questions as on the page, on the runs of a project.

Runs get there with `logger=wandb`, at once, or later with `wandb sync`.
"""

from collections.abc import Sequence
from typing import Any

from orthounlearn.errors import UsageError
from orthounlearn.report.columns import VERDICT, heading
from orthounlearn.report.figures import details
from orthounlearn.report.rows import Row
from orthounlearn.report.writers import LEGEND, to_markdown

_UNLEARNED = "unlearned/"
_METHOD = "method.name"
_QUESTIONS = {
    "Is it still useful?": ("acc/retain_test", "acc/nearest_class_drop"),
    "Has it forgotten?": ("acc/forget_test", "probe/", "depth/index", "relearn/"),
    "Can members be told?": ("mia/", "privacy/", "lira/", "ulira/", "rmia/", "shadows/"),
    "Is it like retraining?": ("routing_js", "avg_gap", "tow", "cka/"),
    "What does it cost?": ("time/",),
}
"""Title of a section -> how the keys of its figures start."""


def project_of(target: str) -> tuple[str, str]:
    """Return entity and project.

    Raises:
        UsageError: It is not ENTITY/PROJECT.

    >>> project_of("lab/unlearning")
    ('lab', 'unlearning')
    """
    entity, slash, project = target.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise UsageError(
            f"Expected wandb=ENTITY/PROJECT, such as wandb=lab/orthounlearn, but got {target!r}."
        )
    return entity, project


def publish(
    target: str,
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    name: str,
    command: str | None,
    environment: dict[str, Any],
    diverged: Sequence[str] = (),
) -> list[str]:
    """Save a workspace and a report in a project, and return their addresses.

    Args:
        target: ENTITY/PROJECT.
        rows: Of the table.
        keys: Its columns.
        name: Of the table.
        command: What made the runs.
        environment: Versions and device of the runs.
        diverged: What is to be said of the runs without figures.

    Raises:
        UsageError: The target is no project, wandb-workspaces is missing, or nobody is logged in.
    """
    entity, project = project_of(target)
    view = workspace(entity, project, keys, name=name)
    about: dict[str, Any] = {"environment": environment, "diverged": diverged}
    written = report(entity, project, rows, keys, name=name, command=command, **about)
    try:
        return [view.save().url, written.save().url]
    except Exception as error:  # the package raises plain ones
        raise UsageError(
            f"Expected to save a workspace and a report in {target}, but W&B refuses ({error}). "
            "Is the project there, and are you logged in (`wandb login`)?"
        ) from error


def workspace(entity: str, project: str, keys: Sequence[str], *, name: str) -> Any:  # noqa: ANN401
    """Return the workspace: a section for each question, runs grouped by method.

    Args:
        entity: User or team.
        project: Where the runs are.
        keys: Columns of the table.
        name: Of the table.
    """
    workspaces, reports = _packages()
    sections = [
        workspaces.Section(name=title, panels=panels, is_open=True)
        for title, panels in _panels(keys, reports).items()
    ]
    views = [
        reports.WeavePanelSummaryTable(table_name=f"tables/{table}")
        for table in ("per_class", "figures")
    ]
    views.append(
        reports.MediaBrowser(media_keys=[f"figures/{figure.name}" for figure in details()])
    )
    training = [reports.LinePlot(x="Step", y=[y]) for y in ("val/acc", "train/loss", "gram_error")]
    sections += [
        workspaces.Section(name="Run by run", panels=views),
        workspaces.Section(name="Training", panels=training),
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"Unlearning: {name}",
        sections=sections,
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Config(_METHOD)]),
    )


def report(
    entity: str,
    project: str,
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    name: str,
    command: str | None,
    environment: dict[str, Any],
    diverged: Sequence[str] = (),
) -> Any:  # noqa: ANN401
    """Return the report: the table as it was printed, and live panels for each question.

    Args:
        entity: User or team.
        project: Where the runs are.
        rows: Of the table.
        keys: Its columns.
        name: Of the table.
        command: What made the runs.
        environment: Versions and device of the runs.
        diverged: What is to be said of the runs without figures.
    """
    _, reports = _packages()
    blocks: list[Any] = [
        reports.TableOfContents(),
        reports.H1("Table"),
        reports.MarkdownBlock(
            to_markdown(rows, keys, command=None, environment=environment, diverged=diverged)
        ),
    ]
    for title, panels in _panels(keys, reports).items():
        runs = reports.Runset(
            entity=entity, project=project, name="by method", groupby=[f"config.{_METHOD}"]
        )
        blocks += [reports.H1(title), reports.PanelGrid(runsets=[runs], panels=panels)]
    if command:
        blocks += [reports.H1("Provenance"), reports.CodeBlock(code=command, language="markdown")]
    return reports.Report(
        entity=entity,
        project=project,
        title=f"Unlearning report: {name}",
        description=LEGEND,
        blocks=blocks,
        width="fluid",
    )


def _panels(keys: Sequence[str], reports: Any) -> dict[str, list[Any]]:  # noqa: ANN401
    """Return title of a section -> bars of each figure, and the trade-off first."""
    found: dict[str, list[Any]] = {}
    for title, starts in _QUESTIONS.items():
        bars = [
            reports.BarPlot(
                title=heading(key), metrics=[_UNLEARNED + key], groupby=f"config.{_METHOD}",
                groupby_aggfunc="mean", groupby_rangefunc="stderr",
            )
            for key in keys
            if key != VERDICT and key.startswith(starts)
        ]  # fmt: skip
        if bars:
            found[title] = bars
    utility, leakage = "acc/retain_test", "probe/k50"
    if utility in keys and leakage in keys:
        trade = reports.ScatterPlot(
            title="Utility and what is left of the class",
            x=reports.SummaryMetric(_UNLEARNED + leakage),
            y=reports.SummaryMetric(_UNLEARNED + utility),
        )
        found[next(iter(found))].insert(0, trade)
    return found


def _packages() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UsageError(
            "Expected wandb-workspaces for wandb=ENTITY/PROJECT, but it is not installed: "
            "`pip install 'orthounlearn[workspaces]'`."
        ) from error
    return workspaces, reports
