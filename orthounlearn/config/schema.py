"""The root schema: a typo in a key or a wrong type is an error that names file, key and node."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class DataConfig:
    """Images and their splits."""

    name: str = MISSING
    root: str | None = None
    source: dict[str, Any] = field(default_factory=dict)
    val_fraction: float = 0.1
    split_seed: int = 0
    crop_padding: int = 0
    flip: bool = False


@dataclass
class RegularizerConfig:
    """The orthogonal-kernel loss."""

    name: str = MISSING
    penalty: dict[str, Any] | None = None


@dataclass
class RecipeConfig:
    """How a network is trained; the original and every retrained one share it."""

    epochs: int = MISSING
    batch_size: int = MISSING
    label_smoothing: float = 0.0
    image_sizes: list[int] | None = None


@dataclass
class MethodConfig:
    """An unlearning method and its options; free, since each method has its own."""

    name: str = MISSING


@dataclass
class RelearnConfig:
    """How a network is made to learn the forgotten classes again."""

    images: int = MISSING
    steps: int = MISSING
    every: int = MISSING
    learning_rates: list[float] = MISSING
    batch_size: int = MISSING
    batch_norm: str = MISSING
    reset_row: bool = MISSING
    max_test_images: int = MISSING


@dataclass
class MetricsConfig:
    """How much the audit measures."""

    max_images: int = 5000
    reference: str = "auto"
    reference_seeds: list[int] = field(default_factory=list)
    block_probes: list[str] = field(default_factory=list)
    batch_size: int = 512
    relearn: RelearnConfig | None = None
    latency: bool = False
    shadows: int = 0


@dataclass
class PathsConfig:
    """Folders."""

    runs: str = "runs"
    cache: str = MISSING


@dataclass
class TableConfig:
    """The axes of a comparison: every combination is one cell.

    `forget` is a list of requests, each a class or a list of classes; "all" is every class alone.
    With `sequence` they come one after the other, each on what the one before has left. Without
    `references` the retrained networks that are stored are compared with, and none is trained.
    `prepared` names, by number, the only classes that preparations have to cover; null: all.
    `options` are axes of method options, each a list of values: {rate: [0.1, 0.3]}; each method
    takes those that it has. null: none.
    """

    name: str = MISSING
    models: list[str] = MISSING
    regularizers: list[str] = MISSING
    methods: list[str] = MISSING
    options: Any = None
    forget: Any = MISSING
    sequence: bool = False
    references: bool = True
    seeds: list[int] = MISSING
    jobs: int = 1
    launcher: str = "joblib"
    columns: list[str] | None = None
    prepared: list[int] | None = None


@dataclass
class TuneConfig:
    """What `tune` tries each setting on, and how many settings it tries."""

    trials: int = 16
    models: list[str] = MISSING
    regularizers: list[str] = MISSING
    forget: list[Any] = MISSING


@dataclass
class Config:
    """What `train`, `unlearn`, `evaluate` and `sweep` are told."""

    data: DataConfig = MISSING
    model: dict[str, Any] = MISSING
    regularizer: RegularizerConfig = MISSING
    recipe: RecipeConfig = MISSING
    optimizer: dict[str, Any] = MISSING
    scheduler: dict[str, Any] | None = None
    trainer: dict[str, Any] = MISSING
    callbacks: dict[str, Any] = MISSING
    logger: dict[str, Any] = MISSING
    method: dict[str, Any] | None = None
    metrics: MetricsConfig = MISSING
    paths: PathsConfig = MISSING
    table: TableConfig | None = None
    tune: TuneConfig | None = None
    forget: Any = None
    after: list[Any] = field(default_factory=list)
    without: Any = None
    shadow: int | None = None
    seed: int = 0
    checkpoint: str | None = None
    original: str | None = None
    retrained: list[str] = field(default_factory=list)
    group: str | None = None


@dataclass
class ReportConfig:
    """What `report` is told."""

    runs: str = "runs"
    name: str = "all"
    table: str | None = None
    dataset: str | None = None
    columns: list[str] | None = None
    command: str | None = None
    figures: bool = False
    wandb: str | None = None


def register() -> None:
    """Make the schemas available to the `defaults` lists of `conf/`."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(name="report_schema", node=ReportConfig)
