"""What an audit adds to running the network over the audited images."""

import torch

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired
from orthounlearn.data.loader import BatchLoader
from orthounlearn.engine.audit.predict import audited, predict
from orthounlearn.metrics.suite import AUDITED, audit

_FORGOTTEN = (3,)


def measure(setting: Setting) -> list[Row]:
    """Compare the fast audit of thin ResNet-18, logits to last figure, with bare inference.

    Both read the images from the cache and make floats of them.
    """
    rounds, limit = setting.choose((5, 5000), (1, 50))
    experiment = setting.experiment("model=resnet18_thin", f"metrics.max_images={limit}")
    data, net = experiment.data, experiment.new_net(0).eval()
    splits = experiment.splits(_FORGOTTEN)

    def whole() -> None:
        outputs = predict(experiment, net, splits)
        audit(outputs, forget=_FORGOTTEN, class_names=data.class_names)

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
            f"fast audit of one network, {count:,} images",
            "inference passes over the same images",
            Spread.of(both / bare for both, bare in times),
            Target("at most", 1.5),
        )
    ]
