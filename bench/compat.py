"""The SVM attack of other codebases: ours, on weighted bins, against one on single images."""

from collections.abc import Callable

import numpy as np
from sklearn.svm import SVC

from bench.results import Row, Target
from bench.setting import Setting
from bench.timing import Spread, paired
from orthounlearn.metrics import compat, scores
from orthounlearn.metrics.scores import Floats, Ints

_CLASSES = 10
_FORGOTTEN = 3


def measure(setting: Setting) -> list[Row]:
    """Time the attack on confidence and entropy, on logits like those of a trained network.

    Both get the same equal sides. The value of the SVM on single images depends on where its solver
    stops, so it is compared once with a solution to 1e-5 beside the public code's 1e-3.
    """
    rounds, count = setting.choose((3, 2000), (1, 60))
    rng = np.random.default_rng(0)
    members, others = _logits(rng, count, gain=9.0), _logits(rng, count, gain=7.5)
    asked = _logits(rng, 2 * count, gain=3.0, label=_FORGOTTEN)
    features: dict[str, Callable[[Floats, Ints], Floats]] = {
        "confidence": lambda logits, labels: np.exp(scores.confidence(logits, labels)),
        "entropy": lambda logits, labels: -scores.entropy(logits, labels),
    }
    # The draw of equal sides is the one of the attack.
    draw = np.random.default_rng(0)
    sides = [
        (logits[rows], labels[rows])
        for logits, labels in (others, members)
        for rows in (draw.permutation(count),)
    ]

    def plain(name: str, tolerance: float) -> float:
        of_sides = [features[name](*side) for side in sides]
        attacker = SVC(C=3, gamma="auto", kernel="rbf", tol=tolerance)
        attacker.fit(np.concatenate(of_sides)[:, None], np.repeat([0, 1], count))
        return 1 - float(attacker.predict(features[name](*asked)[:, None]).mean())

    def ours() -> dict[str, Floats]:
        return compat.salun_efficacy(members, others, asked)

    def refitted() -> list[float]:
        return [plain(name, 1e-3) for name in features]

    times = paired(refitted, ours, rounds=rounds, warmup=0)
    found = ours()
    apart = max(abs(found[f"salun_{name}"].mean() - plain(name, 1e-5)) for name in features)
    return [
        Row(
            "compat",
            f"SVM on {2 * count} single images, confidence and entropy",
            "the same attack on weighted bins, and on correctness too",
            Spread.of(single / binned for single, binned in times),
            Target("at least", 10),
            note=f"the values differ by {apart:.1e} at most",
        )
    ]


def _logits(
    rng: np.random.Generator, count: int, *, gain: float, label: int | None = None
) -> tuple[Floats, Ints]:
    labels = rng.integers(_CLASSES, size=count) if label is None else np.full(count, label)
    logits = 2 * rng.normal(size=(count, _CLASSES))
    logits[np.arange(count), labels] += gain * rng.random(count) ** 0.5
    return logits, labels
