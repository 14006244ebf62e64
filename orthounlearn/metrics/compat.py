"""Figures of widely used codebases, for comparison with their tables only.

They answer another question than `membership`: the attacker is fitted on *retained* members
against test images, and then asked about the forgotten images. A retrained network and a masked
logit both get the best score, so they are no evidence.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from orthounlearn.metrics import scores
from orthounlearn.metrics.scores import Floats, Ints

_SVM_LIMIT = 500  # images per side; the value moves by about 0.01 against 5,000, at 1 % of the time


def salun_efficacy(
    retain_train: tuple[NDArray[np.floating], Ints],
    retain_test: tuple[NDArray[np.floating], Ints],
    forget_train: tuple[NDArray[np.floating], Ints],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Return "MIA-efficacy": the share of D_f that the attacker calls NON-member; 1 is best.

    Definition of SalUn and l1-sparse: SVC(C=3, rbf, gamma="auto") on one feature, members D_r
    against test images, value = 1 − mean(predict(D_f)). Papers quote `confidence`.
    Deviations: sides of equal size (the public imbalance of 4 to 1 makes the attacker constant),
    drawn at random from all classes, and at most 500 images a side.

    Args:
        retain_train: Logits and labels of members.
        retain_test: Logits and labels of non-members.
        forget_train: Logits and labels of D_f.
        seed: Of the draw.
    """
    features: dict[str, Callable[[NDArray[np.floating], Ints], Floats]] = {
        "correctness": scores.correctness,
        "confidence": lambda z, y: np.exp(scores.confidence(z, y)),
        "entropy": lambda z, y: -scores.entropy(z, y),
    }
    return {
        f"salun_{name}": 1
        - _called_member(
            SVC(C=3, gamma="auto", kernel="rbf"),
            [feature(*part)[:, None] for part in (retain_train, retain_test, forget_train)],
            seed,
        )
        for name, feature in features.items()
    }


def golatkar_mia(
    retain_train: tuple[NDArray[np.floating], Ints],
    retain_test: tuple[NDArray[np.floating], Ints],
    forget_train: tuple[NDArray[np.floating], Ints],
    *,
    seed: int = 0,
) -> float:
    """Return the share of D_f called MEMBER by a logistic attacker on the entropy of the output.

    Definition of Golatkar, Bad Teacher and SSD (SSD's balanced logistic form). Lower means more
    forgotten, but the retrained network's own value is the target, not 0.
    """
    parts = [-scores.entropy(*part)[:, None] for part in (retain_train, retain_test, forget_train)]
    return _called_member(LogisticRegression(class_weight="balanced"), parts, seed)


def _called_member(attacker: SVC | LogisticRegression, parts: list[Floats], seed: int) -> float:
    members, others, asked = parts
    count = min(len(members), len(others), _SVM_LIMIT)
    if not count or not len(asked):
        return float("nan")
    rng = np.random.default_rng(seed)
    drawn = [side[rng.permutation(len(side))[:count]] for side in (members, others)]
    attacker.fit(np.concatenate(drawn), np.repeat([1, 0], count))
    return float(np.mean(attacker.predict(asked)))
