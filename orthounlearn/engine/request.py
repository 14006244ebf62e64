"""What is asked: the request, the requests before it, its key and its run directory."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from orthounlearn.config.build import settings
from orthounlearn.data.splits import Splits, resolve_sequence
from orthounlearn.engine.audit.predict import audited
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.own_code import sources
from orthounlearn.engine.store import short_name, stored_model
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, file_digest
from orthounlearn.metrics.shadow import check_count
from orthounlearn.metrics.suite import AUDITED, PROBES

AUDIT_VERSION = 8
"""Raise it when the audit or the engine changes what is reported: runs are then done again."""


@dataclass(frozen=True)
class Request:
    """A forget request on one original model, alone or after others.

    Attributes:
        experiment: Data, network, recipe.
        splits: Of all classes forgotten by now, those of earlier requests too: the audit's, which
            has to see a class that comes back.
        origin: Hash of the original: its training key, or of the user's file.
        steps: The classes of each request in order, sorted; the last is this one.
        reference_seeds: Of the retrained networks to compare with: those that were there when the
            request was opened, or will be trained for it. Fixed then, since the key has them:
            one that is trained meanwhile must not move the run to another folder.
    """

    experiment: Experiment
    splits: Splits
    origin: str
    steps: tuple[tuple[int, ...], ...]
    reference_seeds: tuple[int, ...]

    @property
    def forget(self) -> tuple[int, ...]:
        """The classes of this request alone, sorted."""
        return self.steps[-1]

    @property
    def gone(self) -> tuple[int, ...]:
        """The classes of the earlier requests, sorted; their images are deleted."""
        return tuple(sorted(c for step in self.steps[:-1] for c in step))

    @property
    def earlier(self) -> "Request | None":
        """The request whose result this one starts from; None when that is the original."""
        config = self.experiment.config
        if not config["after"]:
            return None
        *before, last = config["after"]
        return open_request(
            replace(self.experiment, config={**config, "after": before, "forget": last})
        )

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the result."""
        config = self.experiment.config
        determines = {
            "audit": AUDIT_VERSION,
            "origin": self.origin,
            "splits": self.splits.hash,
            "method": config["method"] and settings(config["method"]),
            "metrics": config["metrics"],
            "seed": config["seed"],
            "references": [
                stored_model(self.experiment, without=self.splits.forget, seed=seed).key
                for seed in self.reference_seeds
            ],
            "steps": self.steps,
            "original": config["original"] and file_digest(Path(config["original"])),
        }
        if config["retrained"]:
            determines["retrained"] = [file_digest(Path(path)) for path in config["retrained"]]
        if config["checkpoint"]:  # a training key has these; the hash of a file has not
            determines |= {**self.experiment.handling, **self.experiment.trained_on}
        if own := sources([config["method"], config["checkpoint"] and config["model"]]):
            determines["sources"] = own
        return digest(determines)

    @property
    def names(self) -> list[list[str]]:
        """The names of the classes of each request, in order."""
        return [[self.experiment.data.class_names[c] for c in step] for step in self.steps]

    @property
    def folder(self) -> Path:
        """The run directory."""
        experiment, config = self.experiment, self.experiment.config
        forgotten = "-then-".join("+".join(step) for step in self.names)
        return (
            experiment.runs
            / experiment.data.name
            / short_name(f"{experiment.model_name}_{config['regularizer']['name']}")
            / f"seed{config['seed']}"
            / short_name(f"forget-{forgotten}".replace("/", "-"))
            / f"{config['method']['name'] if config['method'] else 'evaluate'}_{self.key[:8]}"
        )

    @property
    def checkpoint(self) -> Path:
        """The unlearned network; the next request of a sequence starts from it."""
        return self.folder / "unlearned.ckpt"

    @property
    def is_done(self) -> bool:
        """Whether the run is complete; metrics.json is written last."""
        return (self.folder / "metrics.json").exists()


def open_request(experiment: Experiment) -> Request:
    """Check a request and find its original model, without training or loading anything.

    Raises:
        UsageError: The classes are not valid, or the checkpoint is missing.
    """
    config = experiment.config
    refuse_others_options(experiment, job="unlearn" if config["method"] else "evaluate")
    check_count(config["metrics"]["shadows"])
    if config["metrics"]["reference"] not in ("auto", "train", "none"):
        raise UsageError(
            "Expected metrics.reference to be auto, train or none, "
            f"but got {config['metrics']['reference']!r}."
        )
    unknown = [name for name in config["metrics"]["block_probes"] if name not in PROBES]
    if unknown:
        raise UsageError(
            f"Expected metrics.block_probes out of {', '.join(PROBES)}, but got {unknown}."
        )
    steps = resolve_sequence(config["after"], config["forget"], experiment.data.class_names)
    if config["after"] and config["metrics"]["shadows"]:
        raise UsageError(
            "Expected metrics.shadows=0 with after=: shadows forget one request alone, but got "
            f"{config['metrics']['shadows']}."
        )
    for option, paths in (
        *((name, [config[name]]) for name in ("checkpoint", "original") if config[name]),
        ("retrained", config["retrained"]),
    ):
        for path in map(Path, paths):
            if not path.is_file():
                found = "is a folder" if path.is_dir() else "is not there"
                raise UsageError(f"Expected {option} to be a file, but {path.absolute()} {found}.")
    if config["method"]:
        for option in ("original", "retrained"):
            if config[option]:
                raise UsageError(
                    f"Expected {option}= in the job evaluate alone: a request starts from the "
                    "stored original, or from checkpoint=FILE, and is compared with networks that "
                    "are retrained as that was."
                )
    if config["checkpoint"]:
        origin = file_digest(Path(config["checkpoint"]))
    else:
        origin = stored_model(experiment, seed=config["seed"]).key
    splits = experiment.splits([label for step in steps for label in step])
    _check_images(experiment, splits)
    return Request(experiment, splits, origin, steps, _reference_seeds(experiment, splits.forget))


_LACKING = {
    "retain_val": "probes are fitted on them: data.val_fraction=0.1 holds a tenth out",
    "forget_probe": "a class needs two test images: one half fits the probes, the other is judged",
    "forget_test": "a class needs two test images: one half fits the probes, the other is judged",
}


def _check_images(experiment: Experiment, splits: Splits) -> None:
    """Refuse a request that cannot be audited, before anything is written."""
    for name in AUDITED:
        if len(audited(experiment, splits, name)):
            continue
        limit = experiment.config["metrics"]["max_images"]
        why = _LACKING.get(name, "the data set has none there")
        if len(splits[name]):
            why = f"metrics.max_images={limit} leaves none of {len(splits[name])}"
        raise UsageError(f"Expected images of {name} to audit with, but there are none: {why}.")


def _reference_seeds(experiment: Experiment, forget: tuple[int, ...]) -> tuple[int, ...]:
    """Return the seeds of the retrained networks to compare with, the request's own first."""
    config = experiment.config
    if config["retrained"]:  # these instead
        return ()
    wanted = config["metrics"]["reference"]
    seeds = dict.fromkeys([config["seed"], *config["metrics"]["reference_seeds"]])
    return tuple(
        seed
        for seed in seeds
        if wanted == "train"
        or (wanted == "auto" and stored_model(experiment, without=forget, seed=seed).is_trained)
    )


def refuse_others_options(experiment: Experiment, *, job: str) -> None:
    """Refuse options that say something to another job alone, and would be passed over.

    Args:
        experiment: With the configuration.
        job: That runs.

    Raises:
        UsageError: `after` is given to another job than unlearn, `shadow` or `without` to another
            than train.
    """
    config = experiment.config
    if config["after"] and job != "unlearn":
        raise UsageError(
            f"Expected after= in the job unlearn alone, but got after={config['after']} "
            f"in {job}. `orthounlearn unlearn after=… forget=…` carries a sequence out; sweep "
            "makes the table of one with table.sequence=true."
        )
    for option in ("shadow", "without"):
        if config[option] is not None and job != "train":
            raise UsageError(
                f"Expected {option}= in the job train alone, without a request, but got "
                f"{option}={config[option]} in {job}. A sweep trains the networks that its audits "
                "need: metrics.shadows=8, table.references=true."
            )
