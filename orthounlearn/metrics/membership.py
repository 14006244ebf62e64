"""Population attacks: can an attacker tell D_f from unseen images of the *same* class?

Members are the forgotten training images, non-members the forgotten classes' test images. With
members of other classes than the non-members the attack would only see whether a class is known.
With several forgotten classes each is attacked on its own, and the values are averaged.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orthounlearn.metrics import roc, scores
from orthounlearn.metrics.sample import Mean, Part, Ranking, Sample
from orthounlearn.metrics.scores import Floats, Ints

_RATES = {"tpr@fpr1e-2": 0.01, "tpr@fpr5e-2": 0.05}
_FOLDS = 5
_TOP = 5  # sorted log-probabilities that the learned attacker sees


def population_attacks(
    member_logits: NDArray[np.floating],
    member_labels: Ints,
    other_logits: NDArray[np.floating],
    other_labels: Ints,
    *,
    forget: Sequence[int],
    seed: int = 0,
) -> dict[str, Sample]:
    """Return AUC, advantage, TPR at low FPR and balanced accuracy of six attacks, image by image.

    Args:
        member_logits: (N, K) on the forgotten training images.
        member_labels: (N,).
        other_logits: (M, K) on the forgotten classes' test images.
        other_labels: (M,).
        forget: The forgotten classes.
        seed: Of folds and halves.

    Returns:
        `pop_SCORE/` (a ROC: `auc`, `adv`, `tpr@fpr1e-2`, `tpr@fpr5e-2`) and `pop_SCORE/bacc` for
        SCORE in conf, margin, entropy, mentr, rest, lr.
    """
    rows = [
        [np.flatnonzero(labels == c) for labels in (member_labels, other_labels)] for c in forget
    ]
    by_score: dict[str, list[tuple[Part, Part]]] = {}
    for of_members, of_others in rows:
        scored = _scores(
            (member_logits[of_members], member_labels[of_members]),
            (other_logits[of_others], other_labels[of_others]),
            forget=forget,
            seed=seed,
        )
        for name, ((one, members), (other, others)) in scored.items():
            pair = (
                Part("forget_train", members, of_members[one], len(member_labels)),
                Part("forget_test", others, of_others[other], len(other_labels)),
            )
            by_score.setdefault(name, []).append(pair)
    attacks: dict[str, Sample] = {}
    for name, pairs in by_score.items():
        attacks[f"pop_{name}/"] = Ranking(tuple(pairs), advantage=True, rates=_RATES)
        attacks[f"pop_{name}/bacc"] = _balanced(pairs, seed)
    return attacks


def retained_attack(
    members: tuple[NDArray[np.floating], Ints], others: tuple[NDArray[np.floating], Ints]
) -> Ranking:
    """Return the attack on those who stay, by margin: does a request expose retained members?

    Each class is attacked on its own, as a forgotten one is, and the values are averaged.

    Args:
        members: Logits (N, K) and labels (N,) of retained training images.
        others: Likewise of retained test images.
    """
    sides = [
        (split, scores.margin(*part), part[1])
        for split, part in (("retain_train", members), ("retain_test", others))
    ]
    pairs = []
    for label in np.intersect1d(members[1], others[1]):
        rows = [np.flatnonzero(labels_N == label) for _, _, labels_N in sides]
        one, other = (
            Part(split, margin_N[own], own, len(margin_N))
            for (split, margin_N, _), own in zip(sides, rows, strict=True)
        )
        pairs.append((one, other))
    return Ranking(tuple(pairs))


def _balanced(pairs: Sequence[tuple[Part, Part]], seed: int) -> Mean:
    """Return the balanced accuracy: the mean over classes, halves and sides."""
    parts: list[Part] = []
    for members, others in pairs:
        hits = roc.balanced_hits(members.values_N, others.values_N, seed=seed)
        for side, (chosen, right) in zip((members, members, others, others), hits, strict=True):
            parts.append(side.only(chosen, right))
    return Mean(tuple(parts), (1 / len(parts),) * len(parts))


Scored = tuple[Ints, Floats]
"""Indices of a side's images, and the score of each."""


def _scores(
    members: tuple[NDArray[np.floating], Ints],
    others: tuple[NDArray[np.floating], Ints],
    *,
    forget: Sequence[int],
    seed: int,
) -> dict[str, tuple[Scored, Scored]]:
    def both(score: Callable[[NDArray[np.floating], Ints], Floats]) -> tuple[Scored, Scored]:
        one, other = score(*members), score(*others)
        return (np.arange(len(one)), one), (np.arange(len(other)), other)

    return {
        "conf": both(scores.confidence),
        "margin": both(scores.margin),
        "entropy": both(scores.entropy),
        "mentr": both(scores.modified_entropy),
        "rest": both(lambda logits, _: scores.rest(logits, forget)),
        "lr": learned_attack(_features(*members, forget), _features(*others, forget), seed=seed),
    }


def _features(logits_NK: NDArray[np.floating], labels_N: Ints, forget: Sequence[int]) -> Floats:
    log_p = scores.log_softmax(logits_NK)
    top = -np.sort(-log_p, axis=1)[:, :_TOP]
    return np.column_stack(
        [
            scores.margin(logits_NK, labels_N),
            scores.confidence(logits_NK, labels_N),
            scores.entropy(logits_NK),
            scores.modified_entropy(logits_NK, labels_N),
            top,
            scores.rest(logits_NK, forget),
        ]
    )


def learned_attack(
    member_features: Floats, other_features: Floats, *, seed: int = 0
) -> tuple[Scored, Scored]:
    """Return scores of a logistic attacker that never saw the image it judges.

    Equally many members and non-members, five stratified folds. A linear model on the loss alone
    would be one threshold and miss members in the middle; ten features see more.

    Args:
        member_features: (N, D).
        other_features: (M, D).
        seed: Of the draw and the folds.

    Returns:
        Indices and scores of the drawn members, and of the drawn others, min(N, M) each; empty
        arrays if there are too few images for the folds.
    """
    sides = member_features, other_features
    count = min(map(len, sides))
    if count < _FOLDS:
        return (np.empty(0, np.int64), np.empty(0)), (np.empty(0, np.int64), np.empty(0))
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(len(side))[:count] for side in sides]
    truth = np.repeat([1, 0], count)
    attacker = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    drawn = np.concatenate([side[chosen] for side, chosen in zip(sides, rows, strict=True)])
    judged = cross_val_predict(attacker, drawn, truth, cv=folds, method="decision_function")
    return (rows[0], judged[:count]), (rows[1], judged[count:])
