"""What W&B gets of a request beside its scalars: tables, figures, and where the checkpoints are."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from orthounlearn.metrics.catalog import figure
from orthounlearn.report.collect import Run

_PER_CLASS = "acc/retain_test_per_class/"
_ROUTED = "pred/forget_hist/"


def log_views(logger: WandbLogger, run: Run, checkpoints: Sequence[Path]) -> None:
    """Log the figures of a run as tables, its drawings, and its checkpoints by reference.

    No weights are sent: an artifact holds their path and their hash.

    Args:
        logger: Of the run.
        run: Whose files are there.
        checkpoints: Files to refer to; those that are missing are left out.
    """
    import wandb  # seconds, and only here

    dashboard = logger.experiment
    views: dict[str, Any] = {
        "tables/figures": wandb.Table(list(_FIGURES), [list(line) for line in figure_lines(run)]),
        "tables/per_class": wandb.Table(list(_CLASSES), [list(line) for line in class_lines(run)]),
    }
    views |= {f"figures/{name}": wandb.Plotly(drawing) for name, drawing in _drawings(run)}
    dashboard.log(views)
    artifact = wandb.Artifact(
        f"network-{run.folder.name}", type="model", metadata={"folder": str(run.folder)}
    )
    for path in checkpoints:
        if path.exists():
            artifact.add_reference(path.absolute().as_uri(), name=f"{path.parent.name}/{path.name}")
    dashboard.log_artifact(artifact)


_FIGURES = ("figure", "unlearned", "original", "retrained", "target", "formula")
_CLASSES = (
    "class",
    "forgotten",
    "original",
    "unlearned",
    "retrained",
    "forgotten images sent here",
)


def figure_lines(run: Run) -> Iterator[tuple[Any, ...]]:
    """Yield every figure of a run beside those of its references, with its meaning."""
    for key, value in run.metrics.items():
        entry = figure(key)
        references = run.original.get(key), run.retrained.get(key)
        yield key, value, *references, entry.arrow, entry.formula


def class_lines(run: Run) -> Iterator[tuple[Any, ...]]:
    """Yield the test accuracy of every class in the three networks, and the forgotten images' way.

    One number stands for all forgotten classes together.
    """
    for name in run.classes:
        forgotten = name in (*run.forget, *sum(run.after, ()))
        key = "acc/forget_test" if forgotten else f"{_PER_CLASS}{name}"
        accuracies = (phase.get(key) for phase in (run.original, run.metrics, run.retrained))
        yield name, forgotten, *accuracies, run.metrics.get(f"{_ROUTED}{name}")


def _drawings(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield every figure of a report that one run can fill."""
    from orthounlearn.report.cases import make_cases  # plotly takes a while to import
    from orthounlearn.report.figures import details
    from orthounlearn.report.style import looks, template

    (case,) = make_cases([run], looks([run.method]))
    for detail in details():
        drawing = detail.draw(case)
        if drawing is not None:
            yield detail.name, drawing.update_layout(template=template(dark=False))
