"""Shadow attacks: what scoring costs, once the shadows' outputs are there."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired, repeated
from orthounlearn.data.loader import BatchLoader
from orthounlearn.metrics import lira, rmia, shadow
from orthounlearn.metrics.scores import Floats, Ints, confidence, margin

_SHADOWS = 8


def measure(setting: Setting) -> list[Row]:
    """Time LiRA and RMIA on random logits against a pass of thin ResNet-18 over as many images.

    From logits to scores of one target: margins and log-probabilities of all shadows are part of
    it. The passes that make the logits are one per shadow, so that the ratio to all of them is
    eight times smaller still.
    """
    rounds, count = setting.choose((7, 2000), (2, 20))
    calls = setting.choose(10, 1)
    experiment = setting.experiment("model=resnet18_thin")
    data = experiment.data
    net = experiment.new_net(0).eval()
    batch_size = experiment.config["metrics"]["batch_size"]
    loader = BatchLoader(data.train, np.arange(count), batch_size=batch_size)
    batches = [experiment.transform.evaluate(images) for images, _ in loader]

    rng = np.random.default_rng(0)
    logits, population = (
        rng.normal(0, 3, (1 + _SHADOWS, size, data.num_classes)).astype(np.float32)
        for size in (count, count // 4)
    )
    member_KN = shadow.balanced_membership(count, _SHADOWS, seed=0)

    def scoring() -> None:
        phi, p, p_Z = (
            _of_all(score, images)
            for score, images in ((margin, logits), (confidence, logits), (confidence, population))
        )
        lira.pooled(phi[0], *lira.fit_both(phi[1:], member_KN))
        rmia.score(p[0], rmia.online_reference(p[1:]), p_Z[0], rmia.online_reference(p_Z[1:]))

    @torch.inference_mode()
    def inference() -> None:
        for images in batches:
            with experiment.autocast():
                net(images)

    times = paired(repeated(scoring, calls), inference, rounds=rounds)
    milliseconds = Spread.of(scored / calls * 1e3 for scored, _ in times).median
    return [
        Row(
            "shadow",
            f"LiRA and RMIA of {count} images by {_SHADOWS} shadows, from logits",
            "an inference pass of thin ResNet-18 over as many images",
            Spread.of(scored / calls / passed for scored, passed in times),
            Target("at most", 0.1),
            note=f"{milliseconds:.3g} ms",
        )
    ]


def _of_all(
    score: Callable[[NDArray[np.floating], Ints], Floats], logits_KNC: NDArray[np.floating]
) -> Floats:
    """Return the scores (K, N) of every network's logits, for label 0."""
    models, images, classes = logits_KNC.shape
    flat = score(logits_KNC.reshape(-1, classes), np.zeros(models * images, dtype=np.int64))
    return flat.reshape(models, images)
