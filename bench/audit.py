"""What an audit adds to running the network over the audited images."""

from dataclasses import dataclass

import torch

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired
from orthounlearn.data.loader import BatchLoader
from orthounlearn.engine.audit.predict import audited, predict
from orthounlearn.engine.experiment import Experiment
from orthounlearn.metrics.sample import Sample, gap_intervals, values
from orthounlearn.metrics.suite import (
    AUDITED,
    Outputs,
    against_both,
    against_original,
    composites,
    distance_samples,
    gaps,
    neighbour_samples,
    samples,
    similarities,
    worst_case_privacy,
)
from orthounlearn.metrics.verdict import judge

_FORGOTTEN = (3,)


def measure(setting: Setting) -> list[Row]:
    """Compare the fast audit of thin ResNet-18, logits to last figure, with bare inference.

    Both read the images from the cache and make floats of them. The original and three retrained
    networks stand beside it, as in a table: what these said is kept for all methods, and only the
    comparison with them is counted, its intervals and the verdict included.
    """
    rounds, limit = setting.choose((5, 5000), (1, 50))
    experiment = setting.experiment("model=resnet18_thin", f"metrics.max_images={limit}")
    data, net = experiment.data, experiment.new_net(0).eval()
    splits = experiment.splits(_FORGOTTEN)
    others = [
        _measured(experiment, predict(experiment, experiment.new_net(seed).eval(), splits))
        for seed in range(1, 5)
    ]

    def whole() -> None:
        ours = _measured(experiment, predict(experiment, net, splits))
        _compare(ours, others[0], others[1:], {name: len(splits[name]) for name in AUDITED})

    @torch.inference_mode()
    def inference() -> None:
        for name in AUDITED:
            part = data.train if name.endswith(("_train", "_val")) else data.test
            loader = BatchLoader(
                part,
                audited(experiment, splits, name),
                batch_size=experiment.config["metrics"]["batch_size"],
            )
            for images, _ in loader:
                with experiment.autocast():
                    net(experiment.transform.evaluate(images))

    times = paired(whole, inference, rounds=rounds)
    count = sum(len(audited(experiment, splits, name)) for name in AUDITED)
    return [
        Row(
            "audit",
            f"fast audit of one network beside four, {count:,} images",
            "inference passes over the same images",
            Spread.of(both / bare for both, bare in times),
            Target("at most", 1.5),
        )
    ]


@dataclass(frozen=True)
class _Measured:
    outputs: Outputs
    samples: dict[str, Sample]
    figures: dict[str, float]


def _measured(experiment: Experiment, outputs: Outputs) -> _Measured:
    names = experiment.data.class_names
    found = samples(outputs, forget=_FORGOTTEN, class_names=names)
    return _Measured(outputs, found, values(found))


def _compare(
    ours: _Measured, original: _Measured, retrained: list[_Measured], images: dict[str, int]
) -> None:
    """Do what `engine.audit.network` does of a network that is measured, but for the references."""
    said = [one.outputs for one in retrained]
    theirs = retrained[0].figures  # as good as their mean
    for found in (*neighbour_samples([ours.outputs], said), distance_samples(ours.outputs, said)):
        ours.samples.update(found)
        ours.figures.update(values(found))
    figures = ours.figures | worst_case_privacy(ours.outputs, said)
    figures |= composites(figures, theirs) | against_original(figures, original.figures)
    figures |= gaps(figures, theirs)
    figures |= gap_intervals(ours.samples, [one.samples for one in retrained])
    figures |= against_both(figures, original.figures, theirs)
    for one in (original, *retrained):
        similarities(ours.outputs, one.outputs)
    judge(figures, original.figures, [one.figures for one in retrained], images=images)
