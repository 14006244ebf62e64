"""Population attacks: can an attacker tell D_f from unseen images of the *same* class?

Members are the forgotten training images, non-members the forgotten classes' test images. With
members of other classes than the non-members the attack would only see whether a class is known.
With several forgotten classes each is attacked on its own, and the values are averaged.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orthounlearn.metrics import roc, scores
from orthounlearn.metrics.scores import Floats, Ints

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
) -> dict[str, float]:
    """Return AUC, advantage, TPR at low FPR and balanced accuracy of six attacks.

    Args:
        member_logits: (N, K) on the forgotten training images.
        member_labels: (N,).
        other_logits: (M, K) on the forgotten classes' test images.
        other_labels: (M,).
        forget: The forgotten classes.
        seed: Of folds and halves.

    Returns:
        `pop_SCORE/{auc,adv,tpr@fpr1e-2,tpr@fpr5e-2,bacc}` for SCORE in conf, margin, entropy,
        mentr, rest, lr.
    """
    per_class = [
        _attack_one_class(
            member_logits[member_labels == label],
            member_labels[member_labels == label],
            other_logits[other_labels == label],
            other_labels[other_labels == label],
            forget=forget,
            seed=seed,
        )
        for label in forget
    ]
    return {key: float(np.mean([values[key] for values in per_class])) for key in per_class[0]}


def _attack_one_class(
    member_logits: NDArray[np.floating],
    member_labels: Ints,
    other_logits: NDArray[np.floating],
    other_labels: Ints,
    *,
    forget: Sequence[int],
    seed: int,
) -> dict[str, float]:
    pairs: dict[str, tuple[Floats, Floats]] = {
        name: (score(member_logits, member_labels), score(other_logits, other_labels))
        for name, score in (
            ("conf", scores.confidence),
            ("margin", scores.margin),
            ("entropy", scores.entropy),
            ("mentr", scores.modified_entropy),
        )
    }
    pairs["rest"] = (scores.rest(member_logits, forget), scores.rest(other_logits, forget))
    values = {}
    for name, (members, others) in pairs.items():
        values.update(_figures(name, members, others, seed))
    learned = learned_attack(
        _features(member_logits, member_labels, forget),
        _features(other_logits, other_labels, forget),
        seed=seed,
    )
    values.update(_figures("lr", *learned, seed))
    return values


def _figures(name: str, members: Floats, others: Floats, seed: int) -> dict[str, float]:
    area = roc.auc(members, others)
    return {
        f"pop_{name}/auc": area,
        f"pop_{name}/adv": roc.advantage(area),
        f"pop_{name}/tpr@fpr1e-2": roc.resolved_tpr(members, others, 0.01),
        f"pop_{name}/tpr@fpr5e-2": roc.resolved_tpr(members, others, 0.05),
        f"pop_{name}/bacc": roc.balanced_accuracy(members, others, seed=seed),
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
) -> tuple[Floats, Floats]:
    """Return scores of a logistic attacker that never saw the image it judges.

    Equally many members and non-members, five stratified folds. A linear model on the loss alone
    would be one threshold and miss members in the middle; ten features see more.

    Args:
        member_features: (N, D).
        other_features: (M, D).
        seed: Of the draw and the folds.

    Returns:
        Scores of the drawn members and of the drawn others, min(N, M) each; empty arrays if there
        are too few images for the folds.
    """
    count = min(len(member_features), len(other_features))
    if count < _FOLDS:
        return np.empty(0), np.empty(0)
    rng = np.random.default_rng(seed)
    drawn = [side[rng.permutation(len(side))[:count]] for side in (member_features, other_features)]
    truth = np.repeat([1, 0], count)
    attacker = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    judged = cross_val_predict(
        attacker, np.concatenate(drawn), truth, cv=folds, method="decision_function"
    )
    return judged[:count], judged[count:]


def paired_bootstrap(
    unlearned: tuple[Floats, Floats],
    retrained: tuple[Floats, Floats],
    *,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of AUC(unlearned) − AUC(retrained) on the same images.

    Members and non-members are resampled apart; both networks are judged on the same draw, since
    a finite draw shifts all networks alike.

    Args:
        unlearned: Scores of members (N,) and others (M,).
        retrained: Scores of the same images by the other network.
        rounds: Number of resamples.
        level: Of the interval.
        seed: Of the resamples.
    """
    rng = np.random.default_rng(seed)
    count, other_count = len(unlearned[0]), len(unlearned[1])
    # AUC of a resample = weights' bilinear form over P(member > other) + P(tie) / 2.
    difference = _wins(*unlearned) - _wins(*retrained)
    member_weights = rng.multinomial(count, np.full(count, 1 / count), rounds) / count
    other_weights = rng.multinomial(other_count, np.full(other_count, 1 / other_count), rounds)
    values = ((member_weights @ difference) * other_weights).sum(1) / other_count
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _wins(members: Floats, others: Floats) -> Floats:
    compared = members[:, None] - others[None, :]
    return np.asarray((compared > 0) + 0.5 * (compared == 0))
