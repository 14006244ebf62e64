"""What an audit adds to running the network over the audited images."""

import torch

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired
from orthounlearn.data.loader import BatchLoader
from orthounlearn.engine.audit.predict import audited, predict
from orthounlearn.engine.experiment import Experiment
from orthounlearn.metrics.findings import Findings, compare
from orthounlearn.metrics.suite import AUDITED, Outputs
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
    original, *retrained = [
        _findings(experiment, predict(experiment, experiment.new_net(seed).eval(), splits))
        for seed in range(1, 5)
    ]

    def whole() -> None:
        ours = _findings(experiment, predict(experiment, net, splits))
        compare(ours, original, retrained)
        images = {name: len(splits[name]) for name in AUDITED}
        judge(ours.figures, original.figures, [one.figures for one in retrained], images=images)

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


def _findings(experiment: Experiment, outputs: Outputs) -> Findings:
    return Findings.of(outputs, forget=_FORGOTTEN, class_names=experiment.data.class_names)
