"""Figures that know their images, so that two networks can be compared on the same draws of them.

A figure is one number; its sample is what each image adds to it. Resampling the images and asking
both networks about the same draw gives the paired bootstrap interval of their difference, in one
way for shares, losses, probes and attacks alike. What was fitted (probes, attackers, thresholds)
stays as it is: the interval is over other images to be asked about, not over other attackers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Protocol
from weakref import WeakKeyDictionary
from zlib import crc32

import numpy as np

from orthounlearn.metrics import divergence, roc
from orthounlearn.metrics.scores import Floats, Ints

Weights = Mapping[str, Floats]
"""Split -> how often each draw (row) has each image (column), (B, N)."""

ROUNDS = 1000
"""Draws of an interval: enough for its ends to be stable to a tenth of its width."""

ENDS = ("low", "high")
"""How the keys of an interval end."""

_LEVEL = 0.95
_CHUNK = 100  # draws at a time: weights stay in the cache, and memory does not grow with the draws


@dataclass(frozen=True)
class Part:
    """What some images of a split are worth.

    Attributes:
        split: Its name.
        values_N: One value for each.
        rows_N: Which images of the split, as indices; None: all, in order.
        total: Number of images of the split.
    """

    split: str
    values_N: Floats
    rows_N: Ints | None
    total: int

    @classmethod
    def whole(cls, split: str, values_N: Floats) -> "Part":
        """Return the part that is all images of a split."""
        return cls(split, values_N, None, len(values_N))

    def only(self, chosen: Ints, values_N: Floats) -> "Part":
        """Return some images of the part, as indices into it, with other values."""
        rows_N = chosen if self.rows_N is None else self.rows_N[chosen]
        return Part(self.split, values_N, rows_N, self.total)

    def drawn(self, weights: Weights) -> Floats:
        """Return how often each draw has each image of the part, (B, n)."""
        weights_BN = weights[self.split]
        return weights_BN if self.rows_N is None else weights_BN[:, self.rows_N]


class Sample(Protocol):
    """One figure or several of one attack, image by image."""

    @property
    def parts(self) -> Sequence[Part]:
        """The images that it reads."""

    @property
    def values(self) -> dict[str, float]:
        """End of the key ("" for a figure of its own) -> value."""

    def resampled(self, weights: Weights) -> dict[str, Floats]:
        """Return the same figures on draws of the images, (B,) each."""


@dataclass(frozen=True, eq=False)
class Mean:
    """Σ_i share_i · the mean over part i.

    Attributes:
        parts: Of one split or several.
        shares: One for each; they add up to 1.
    """

    parts: tuple[Part, ...]
    shares: tuple[float, ...] = (1.0,)

    @classmethod
    def whole(cls, split: str, values_N: Floats) -> "Mean":
        """Return the mean over all images of a split."""
        return cls((Part.whole(split, values_N),))

    @cached_property
    def values(self) -> dict[str, float]:
        """The mean; nan if a part is empty."""
        means = [part.values_N.mean() if len(part.values_N) else np.nan for part in self.parts]
        return {"": float(np.dot(self.shares, means))}

    def resampled(self, weights: Weights) -> dict[str, Floats]:
        """Return the mean of each draw; nan where a draw has taken none of a few images."""
        found: Floats = np.zeros(())
        for part, share in zip(self.parts, self.shares, strict=True):
            drawn_BN = part.drawn(weights)
            with np.errstate(invalid="ignore"):
                found = found + share * (drawn_BN @ part.values_N) / drawn_BN.sum(1)
        return {"": found}


@dataclass(frozen=True, eq=False)
class Calibration:
    """The expected calibration error, of what `accuracy.calibration` returns.

    Attributes:
        gaps: 1 where the network is right, less its confidence.
        bins_N: The bin of each image's confidence.
    """

    gaps: Part
    bins_N: Ints

    @property
    def parts(self) -> tuple[Part, ...]:
        """The images that it reads."""
        return (self.gaps,)

    @cached_property
    def values(self) -> dict[str, float]:
        """The error; nan without images."""
        if not len(self.bins_N):
            return {"": float("nan")}
        everything = {self.gaps.split: np.ones((1, self.gaps.total))}
        return {"": float(self.resampled(everything)[""][0])}

    def resampled(self, weights: Weights) -> dict[str, Floats]:
        """Return the error of each draw."""
        binned_NB = self.gaps.values_N[:, None] * np.eye(self.bins_N.max() + 1)[self.bins_N]
        drawn_BN = self.gaps.drawn(weights)
        return {"": np.abs(drawn_BN @ binned_NB).sum(1) / drawn_BN.sum(1)}


@dataclass(frozen=True, eq=False)
class Routing:
    """How unlike the classes are that two networks send the same images to: JS in bits.

    Attributes:
        routes: Number of the class that each image goes to.
        others: The same of other networks; the figure is the mean over them.
        classes: K.
    """

    routes: Part
    others: tuple[Part, ...]
    classes: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """The images that it reads."""
        return (self.routes, *self.others)

    @cached_property
    def values(self) -> dict[str, float]:
        """The mean divergence; nan without images."""
        if not len(self.routes.values_N):
            return {"": float("nan")}
        everything = {self.routes.split: np.ones((1, self.routes.total))}
        return {"": float(self.resampled(everything)[""][0])}

    def resampled(self, weights: Weights) -> dict[str, Floats]:
        """Return the mean divergence of each draw."""
        own_BK, *others = (self._shares(part, weights) for part in self.parts)
        return {"": np.mean([divergence.js_of(own_BK, other_BK) for other_BK in others], axis=0)}

    def _shares(self, part: Part, weights: Weights) -> Floats:
        drawn_BN = part.drawn(weights)
        one_hot_NK = np.eye(self.classes)[part.values_N.astype(int)]
        return np.asarray(drawn_BN @ one_hot_NK / drawn_BN.sum(1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ROC of members against others, averaged over pairs of parts.

    Attributes:
        pairs: Scores of members and of others, higher = member: one pair for each class that is
            attacked on its own, or for each attacker. Without any, its figures are undefined.
        advantage: Whether 2·|AUC − ½| is a figure too.
        rates: Name -> false-positive rate at which the true-positive rate is a figure too.
    """

    pairs: tuple[tuple[Part, Part], ...]
    advantage: bool = False
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The images that it reads."""
        return tuple(part for pair in self.pairs for part in pair)

    @cached_property
    def values(self) -> dict[str, float]:
        """`auc`, `adv` and the names of `rates`; nan where undefined."""
        rows = []
        for members, others in self.pairs:
            sides = members.values_N, others.values_N
            area = roc.auc(*sides)
            found = {"auc": area} | ({"adv": roc.advantage(area)} if self.advantage else {})
            found |= {key: roc.resolved_tpr(*sides, alpha) for key, alpha in self.rates.items()}
            rows.append(found)
        if not rows:
            return {"auc": float("nan")}
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    @cached_property
    def curve(self) -> Floats:
        """The true-positive rates at `roc.CURVE_FPR`, (T,); nan where undefined."""
        curves = [roc.curve(members.values_N, others.values_N) for members, others in self.pairs]
        mean: Floats = np.mean(curves or [np.full(len(roc.CURVE_FPR), np.nan)], axis=0)
        return mean

    def resampled(self, weights: Weights) -> dict[str, Floats]:
        """Return the figures of each draw."""
        rows = []
        for members, others in self.pairs:
            draw = (
                *(members.values_N, others.values_N),
                *(members.drawn(weights), others.drawn(weights)),
            )
            area_B = roc.weighted_auc(*draw)
            found = {"auc": area_B} | ({"adv": 2 * np.abs(area_B - 0.5)} if self.advantage else {})
            if self.rates:
                tpr_BT, fpr_BT = roc.weighted_rates(*draw)
                for key, alpha in self.rates.items():
                    rate_B = np.where(fpr_BT <= alpha, tpr_BT, 0.0).max(1)
                    found[key] = np.where(np.isnan(area_B), np.nan, rate_B)
            rows.append(found)
        return {key: np.mean([row[key] for row in rows], axis=0) for key in rows[0]}


Samples = Mapping[str, Sample]
"""Beginning of the keys -> sample; a key is that and an end that the sample names."""


def values(samples: Samples) -> dict[str, float]:
    """Return every figure under its key."""
    return {
        beginning + end: value
        for beginning, sample in samples.items()
        for end, value in sample.values.items()
    }


def gap_intervals(
    ours: Samples, theirs: Sequence[Samples], *, rounds: int = ROUNDS, seed: int = 0
) -> dict[str, float]:
    """Return the paired 95 % bootstrap interval of every figure's difference.

    The images of each split are drawn with replacement, members and others apart; all networks are
    asked about the same draw, since a finite draw shifts all networks alike. The interval is that
    of percentiles.

    Args:
        ours: Of a network.
        theirs: Of one or more networks on the same images; the difference is to their mean.
        rounds: Number of draws.
        seed: Of the draws.

    Returns:
        `KEY_gap_low` and `KEY_gap_high` of each key that all networks have; nan where one of them
        has no value.
    """
    shared = [key for key in ours if all(key in samples for samples in theirs)]
    chosen = {key: [samples[key] for samples in (ours, *theirs)] for key in shared}
    defined = {
        key: {end for end in row[0].values if all(isfinite(_value(one, end)) for one in row)}
        for key, row in chosen.items()
    }
    drawn = _drawn([one for key in shared if defined[key] for one in chosen[key]], rounds, seed)
    found: dict[str, float] = {}
    for key, (own, *others) in chosen.items():
        for end in own.values:
            ends = (np.nan, np.nan)
            if end in defined[key]:
                gap_B = drawn[own][end] - np.mean([drawn[one][end] for one in others], axis=0)
                ends = interval(gap_B)
            found |= {f"{key}{end}_gap_{at}": v for at, v in zip(ENDS, ends, strict=True)}
    return found


def on_draws(samples: Samples, *, rounds: int = ROUNDS, seed: int = 0) -> dict[str, Floats]:
    """Return every figure on draws of the images, (rounds,) each: on the same as `gap_intervals`.

    Args:
        samples: Of a network.
        rounds: Number of draws.
        seed: Of the draws.
    """
    drawn = _drawn(list(samples.values()), rounds, seed)
    return {
        f"{key}{end}": values_B
        for key, sample in samples.items()
        for end, values_B in drawn[sample].items()
    }


def interval(values_B: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % interval of percentiles of a figure's draws.

    A draw without any of few images says nothing, and is left out; nan if none is left.
    """
    kept_B = values_B[np.isfinite(values_B)]
    if not kept_B.size:
        return np.nan, np.nan
    low, high = np.quantile(kept_B, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _value(sample: Sample, end: str) -> float:
    return sample.values.get(end, np.nan)


_DRAWN: WeakKeyDictionary[Sample, dict[tuple[int, int], dict[str, Floats]]] = WeakKeyDictionary()
"""What samples are on draws, as long as they live: a table's references meet every method."""


def _drawn(samples: Sequence[Sample], rounds: int, seed: int) -> dict[Sample, dict[str, Floats]]:
    """Return the figures of each sample on the same draws, (rounds,) each."""
    which = rounds, seed
    missing = [sample for sample in samples if which not in _DRAWN.setdefault(sample, {})]
    sizes = {part.split: part.total for sample in missing for part in sample.parts}
    parts: list[list[dict[str, Floats]]] = [[] for _ in missing]
    for weights in _draws(sizes, rounds, seed):
        for sample, found in zip(missing, parts, strict=True):
            found.append(sample.resampled(weights))
    for sample, found in zip(missing, parts, strict=True):
        _DRAWN[sample][which] = {
            end: np.concatenate([one[end] for one in found]) for end in found[0]
        }
    return {sample: _DRAWN[sample][which] for sample in samples}


def _draws(sizes: Mapping[str, int], rounds: int, seed: int) -> Iterator[Weights]:
    # A stream for each split: its draws are the same whatever else is read.
    streams = {split: np.random.default_rng([seed, crc32(split.encode())]) for split in sizes}
    for start in range(0, rounds, _CHUNK):
        count = min(_CHUNK, rounds - start)
        yield {split: _draw(count, size, streams[split]) for split, size in sizes.items()}


def _draw(count: int, size: int, rng: np.random.Generator) -> Floats:
    drawn = rng.integers(size, size=(count, size)) + size * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(float)
