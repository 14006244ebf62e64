"""What measuring class statistics adds to a pass over the images."""

import numpy as np
import torch

from bench.memory import IS_READABLE, extra_memory
from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired
from orthounlearn.data.loader import BatchLoader
from orthounlearn.masking.statistics import class_statistics
from orthounlearn.masking.tracing import select_sites, trace_sites


def measure(setting: Setting) -> list[Row]:
    """Compare the pass of thin ResNet-18 at two choices of sites with bare inference; and memory.

    The batches lie in memory, ready for the network: reading them would dilute the ratio.
    """
    rounds, count = setting.choose((7, 4), (2, 2))
    experiment = setting.experiment("model=resnet18_thin")
    data = experiment.data
    net = experiment.new_net(0).eval()
    batch_size = experiment.config["metrics"]["batch_size"]
    loader = BatchLoader(data.train, np.arange(count * batch_size), batch_size=batch_size)
    batches = [(experiment.transform.evaluate(images), labels) for images, labels in loader]
    sites = trace_sites(net, experiment.example())

    def statistics(which: str) -> None:
        class_statistics(
            net,
            batches,
            sites=select_sites(sites, which),
            num_classes=data.num_classes,
            autocast=experiment.autocast,
        )

    @torch.inference_mode()
    def inference() -> None:
        for images, _ in batches:
            with experiment.autocast():
                net(images)

    times = paired(
        lambda: statistics("last"), lambda: statistics("convs"), inference, rounds=rounds
    )
    rows = [
        Row(
            "statistics",
            f"class statistics of {count * batch_size} images, sites {which}",
            "an inference pass over the same batches",
            Spread.of(turn[way] / turn[2] for turn in times),
            Target("at most", 1.15) if which == "last" else None,
        )
        for way, which in enumerate(("last", "convs"))
    ]
    return [*rows, *_memory(setting)]


def _memory(setting: Setting) -> list[Row]:
    if not IS_READABLE:
        return []
    few, many = setting.choose((16, 64), (1, 4))
    low, high = extra_memory([few, many])
    return [
        Row(
            "statistics",
            f"peak memory of a pass over 4N images, sites convs (N = {few} batches of 64)",
            "the same over N images",
            Spread.of([high / low]),
            Target("at most", 1.05),
            note=f"{low / 2**20:.1f} and {high / 2**20:.1f} MiB above what was in use before",
        )
    ]
