"""What the features still know of a class: attacks that a masked or zeroed logit cannot pass.

A probe is a fresh linear classifier on the frozen features that the network's own classifier
reads, fitted on a few images that neither the original nor the retrained model was trained on. The
target is the retrained model's recall, not chance: a network that never saw cats still has features
that tell cats from dogs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from orthounlearn.metrics.roc import auc
from orthounlearn.metrics.scores import Floats, Ints

SHOTS = (10, 50)
"""Images per class that a probe is fitted on."""

_DRAWS = 3  # of the fitting images; recall is averaged, since one draw moves it by several points
_PENALTY = 0.1  # scikit-learn's C


@dataclass(frozen=True)
class Features:
    """Features and labels of some images.

    Attributes:
        values_NC: (N, C).
        labels_N: (N,).
    """

    values_NC: NDArray[np.floating]
    labels_N: Ints


def most_shots(fit: Features) -> int:
    """Return the largest of `SHOTS` that every class has images for, at least the smallest."""
    count = np.unique(fit.labels_N, return_counts=True)[1].min()
    return max([shots for shots in SHOTS if shots <= count], default=min(SHOTS))


@dataclass(frozen=True)
class Probed:
    """What probes found.

    Attributes:
        found_N: Share of the draws whose probe gave a forgotten image its own class; nan if some
            class has too few images to fit on.
        scores: For each draw the forgotten classes' probability, of the forgotten images and of
            the retained ones; () without these.
    """

    found_N: Floats
    scores: tuple[tuple[Floats, Floats], ...]

    @property
    def recall(self) -> float:
        """Share of the forgotten images that get their own class, in [0, 1]."""
        return float(self.found_N.mean())

    @property
    def auc(self) -> float:
        """Area under the ROC of the scores, forgotten against retained images; nan without any."""
        return float(np.mean([auc(*pair) for pair in self.scores])) if self.scores else float("nan")


def linear_probe(
    fit: Features,
    forgotten: Features,
    retained: Features | None = None,
    *,
    shots: int | None,
    seed: int = 0,
) -> Probed:
    """Return how well a probe finds the forgotten classes again.

    Args:
        fit: Images of all classes to fit on.
        forgotten: Other images of the forgotten classes.
        retained: Other images of the other classes; None: no scores.
        shots: Images per class to fit on; None takes all, each class with the same weight.
        seed: Of the draws.
    """
    forget = np.unique(forgotten.labels_N)
    if not _enough(fit, forget, shots):
        return Probed(np.full(len(forgotten.labels_N), np.nan), ())
    found, scores = [], []
    for draw in range(_DRAWS if shots else 1):
        chosen = (
            _draw(fit.labels_N, shots, np.random.default_rng([seed, draw]))
            if shots
            else np.arange(len(fit.labels_N))
        )
        classifier = LogisticRegression(
            C=_PENALTY, max_iter=1000, class_weight=None if shots else "balanced"
        )
        probe = make_pipeline(StandardScaler(), classifier)
        probe.fit(fit.values_NC[chosen].astype(np.float64), fit.labels_N[chosen])
        # Wide: a channel that was silent on the images of the fit scales beyond half precision.
        found.append(probe.predict(forgotten.values_NC.astype(np.float64)) == forgotten.labels_N)
        if retained is not None:
            columns = np.isin(probe.classes_, forget)
            one, other = (
                probe.predict_proba(part.values_NC.astype(np.float64))[:, columns].sum(1)
                for part in (forgotten, retained)
            )
            scores.append((one, other))
    return Probed(np.mean(found, axis=0), tuple(scores))


def prototype_recall(fit: Features, forgotten: Features, *, shots: int, seed: int = 0) -> Floats:
    """Return which forgotten images are nearest to the mean of their own class (1 or 0).

    Distance is Euclidean between features scaled to length 1; nothing is trained. nan if a class
    has fewer than `shots` images to fit on, or a forgotten one none.
    """
    labels = np.unique(fit.labels_N)
    if not _enough(fit, np.unique(forgotten.labels_N), shots):
        return np.full(len(forgotten.labels_N), np.nan)
    chosen = _draw(fit.labels_N, shots, np.random.default_rng(seed))
    values, own = _unit(fit.values_NC[chosen]), fit.labels_N[chosen]
    means_KC = _unit(np.stack([values[own == label].mean(0) for label in labels]))
    nearest = labels[(_unit(forgotten.values_NC) @ means_KC.T).argmax(1)]
    return np.asarray(nearest == forgotten.labels_N, dtype=np.float64)


def probe_index(unlearned: ArrayLike, original: ArrayLike, retrained: ArrayLike) -> Floats:
    """Return (u − r) / (o − r): 0 as after retraining, 1 nothing removed.

    Below 0 the features are damaged. nan where original and retrained network differ by less than
    0.02, so that it would be noise.

    Args:
        unlearned: Recall u of a probe, or the mean over several layers; of one draw of the images
            or of many.
        original: Likewise.
        retrained: Likewise.
    """
    u, o, r = (np.asarray(recall, np.float64) for recall in (unlearned, original, retrained))
    away = o - r
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(np.abs(away) >= 0.02, (u - r) / away, np.nan)


def _enough(fit: Features, forget: Ints, shots: int | None) -> bool:
    """Return whether each class, and each forgotten one among them, has images to fit on."""
    labels, counts = np.unique(fit.labels_N, return_counts=True)
    return bool(np.isin(forget, labels).all() and counts.min() >= (shots or 1))


def _draw(labels_N: Ints, shots: int, rng: np.random.Generator) -> Ints:
    """Return the indices of `shots` images of each class."""
    members = [np.flatnonzero(labels_N == label) for label in np.unique(labels_N)]
    return np.concatenate([rng.permutation(indices)[:shots] for indices in members])


def _unit(values: NDArray[np.floating]) -> Floats:
    wide = values.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))
