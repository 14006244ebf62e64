"""From figures to a verdict: what an audit found, what it did not, and what it could not judge.

Figures are compared with the mean of the retrained networks. A difference counts once its 95 %
interval over other *images* lies wholly beyond a tolerance for another *training* of the same
recipe; so a second retrained network is `ok`, and a small audit finds little but says so.

| figure                            | tolerance | lower raises     | higher raises     |
|-----------------------------------|-----------|------------------|-------------------|
| `acc/forget_train`, `forget_test` | 2 points  | –                | `under_unlearned` |
| `mia/pop_margin/auc`              | 0.02      | `over_unlearned` | `under_unlearned` |
| `probe/k50`                       | 10 points | `over_unlearned` | `under_unlearned` |
| else `probe/k10`                  | 15 points | `over_unlearned` | `under_unlearned` |
| `probe/kall`; without `probe/k50` | 10; 15    | –                | `under_unlearned` |
| `probe/depth`; with 10 shots      | 5; 15     | `over_unlearned` | `under_unlearned` |
| `relearn/*/area`, if measured     | 10 points | –                | `under_unlearned` |
| `acc/retain_test`                 | 2 points  | `utility_fail`   | –                 |
| that of the worst retained class  | 10 points | `utility_fail`   | –                 |

* The worst retained class is the one that is furthest beyond its interval and tolerance: a request
  that ruins one class of a hundred costs a point of the mean. As the worst of C classes is looked
  for, intervals are those of level 1 − 0.05 / C (Bonferroni).
* `head_only`: the few-shot probe of what the classifier reads, or the mean of those of all blocks,
  is higher, its index (u − r) / (o − r) above 0.5, and no accuracy raises a flag. It is the worst
  case of `under_unlearned`, which always stands beside it. Membership has no part in it: an
  overfitted network with a masked logit keeps its AUC, and is hiding all the same. Nor has the
  probe of all images, which learns from hundreds of them what the class looks like.
* Flags stand together; the headline is the first of `FLAGS`. With none, it is `ok`, or
  `incomplete` if some flag could be neither raised nor excluded: then there is no `ok`.
* Two or more retrained networks: the tolerance is 3 standard deviations of them if that is more,
  and that of probes and relearning need only be half of what the table says.
* A probe's tolerance is at least a tenth of (o − r): an index below 0.1 is never a finding.
* Probes that could not tell even the original from the retrained networks exclude nothing: only
  they see a class that is hidden behind the last layer, so without one there is no `ok`.
* Relearning is judged at each learning rate.
* Distances of outputs to retraining's and shadow attacks have no part in the verdict: the first say
  that a network is another, not that it knows the class, the second are figures of the method.
* No retrained network: forgotten classes are compared with accuracy 0, since one that never saw a
  label does not answer it; the retained ones with the original's accuracy, tolerance 5 points,
  10 for a class.
  Membership and probe have no target, hence no verdict.

The interval of a figure is `KEY_gap_low`, `KEY_gap_high` if the audit has it (resampled images,
both networks on the same draw). Else it is that of two networks on *different* images, which is
wider and errs to silence: shares as binomial with one hit and one miss added to each (Agresti and
Caffo, The American Statistician 54, 2000), AUC with its variance at no separation,
(n₁ + n₀ + 1) / (12 n₁ n₀) each (Hanley and McNeil, Radiology 143, 1982).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite, nan, sqrt
from statistics import NormalDist, fmean, stdev

from orthounlearn.metrics import verdict_words as words
from orthounlearn.metrics.check import (
    CLASS,
    DEPTH,
    EVERY,
    MEMBERSHIP,
    RELEARNED,
    SHOTS_OF_BLOCKS,
    Check,
    Figures,
    has,
)
from orthounlearn.metrics.probe import probe_index

FLAGS = ("utility_fail", "head_only", "under_unlearned", "over_unlearned")
"""The worst first: of a damaged network the other figures mean little."""

TITLES = {
    "utility_fail": "The network is damaged beyond the request",
    "head_only": "The class is hidden, not removed",
    "under_unlearned": "The class is not forgotten",
    "over_unlearned": "More than the class is gone",
    "incomplete": "No verdict: the audit lacks something",
    "ok": "As after retraining, by accuracies, membership attack and probes",
}
"""What each headline says to a reader."""

ACCURACY_TOLERANCE = 0.02
"""Two trainings of one recipe differ by about a point of accuracy; twice that is still chance."""

CLASS_TOLERANCE = 0.10
"""Of one class: no class of two retrained networks differed by more than 3.1 points (12 pairs on
CIFAR-10, thin ResNet-18 and VGG-13), and a class loses some of its images by chance where the
forgotten one was its neighbour."""

ORIGINAL_TOLERANCE = 0.05
"""Below the original, which is no target: retraining itself may cost or gain a few points."""

AUC_TOLERANCE = 0.02
"""For a network that saw neither side, AUC differs from ½ by the draw of images alone, which the
interval covers; this makes false alarms rare where a 95 % interval would raise one in twenty."""

PROBE_TOLERANCE = {50: 0.10, 10: 0.15}
"""Of recall by shots, with one retrained network. Measured between two: 4 points on CIFAR-10 (thin
ResNet-18), 8 on Gaussians (MLP); with 10 shots, on digits (ResNet-20), 8 to 33 on 19 images. All
images of a class are no more than a few where there are too few for 50 shots."""

DEPTH_TOLERANCE = {50: 0.05, 10: 0.15}
"""Of the mean recall over all blocks, likewise. Measured between two: 3 points for single blocks on
CIFAR-10 (both networks, standard deviation); with 10 shots, on digits, 0 to 17 for the mean."""

TOLERANCE_MEASURED = 0.5
"""Share of the tolerance of probes and relearning that is left with several retrained networks,
whose own spread counts if it is more."""

RELEARN_TOLERANCE = 0.10
"""Of the area under a relearning curve: those of two retrained networks differed by 3.2 and 3.4
points (CIFAR-10, thin ResNet-18, two learning rates), and the original's is 52 points above."""

SPREADS = 3.0
"""Standard deviations of the retrained networks that are still chance; few make a poor estimate."""

LEAST_INDEX = 0.1
"""Share of the way back to the original that the probe must find, to be worth a finding."""

HIDDEN_INDEX = 0.5
"""Above it the features have kept more of the class than they have lost."""

PROBE_RESOLUTION = 0.20
"""Recall that a probe must be able to resolve if no original shows what there was to find."""

_Z = 1.96  # of a two-sided 95 % interval

_DERIVED = ("_gap", "_gap_low", "_gap_high")  # ends of keys that are made of another figure


@dataclass(frozen=True)
class Verdict:
    """What an audit says.

    Attributes:
        headline: A key of `TITLES`.
        flags: Sorted: those that were raised; ("ok",) if none was and none is open; else empty.
        reasons: Flag -> one sentence for each figure that raised it.
        not_given: Flag that could be neither raised nor excluded -> why.
        cautions: What weakens the verdict without preventing it.
        checks: The comparisons behind it.
    """

    headline: str
    flags: tuple[str, ...]
    reasons: dict[str, tuple[str, ...]]
    not_given: dict[str, tuple[str, ...]]
    cautions: tuple[str, ...]
    checks: tuple[Check, ...]


def judge(
    unlearned: Figures,
    original: Figures | None,
    retrained: Sequence[Figures],
    *,
    images: Mapping[str, int],
    itself: bool = False,
) -> Verdict:
    """Return the verdict of an audit by the table at the top of this module.

    Args:
        unlearned: Figures of the network, from `suite.audit` and what compares it with the
            retrained one; undefined ones are nan or absent.
        original: Figures of the network before the request, if they are known.
        retrained: Figures of networks trained without the forgotten classes, one for each seed;
            empty if there is none.
        images: Number of audited images of `forget_train`, `forget_test` and `retain_test`.
        itself: Whether the one retrained network is the audited one, so that all is alike.
    """
    return _Case(unlearned, original, retrained, images, itself).verdict()


@dataclass(frozen=True)
class _Case:
    unlearned: Figures
    original: Figures | None
    retrained: Sequence[Figures]
    images: Mapping[str, int]
    itself: bool

    def verdict(self) -> Verdict:
        accuracies = [self._forgotten("forget_train"), self._forgotten("forget_test")]
        retained, membership, probe = self._retained(), self._membership(), self._probe()
        shots = self._shots()
        depth = self._further(DEPTH, DEPTH_TOLERANCE[shots])
        every = self._further(EVERY, PROBE_TOLERANCE[shots])
        relearned = self._relearned()
        raised: dict[str, list[str]] = {flag: [] for flag in FLAGS}
        unsettled: dict[str, list[str]] = {flag: [] for flag in FLAGS}

        def weigh(
            check: Check | str, *, higher: str | None = None, lower: str | None = None
        ) -> None:
            """Note what a figure raises, or what its absence (a string) leaves unsettled."""
            for flag, side in ((higher, "higher"), (lower, "lower")):
                if flag and isinstance(check, str):
                    unsettled[flag].append(check)
                elif flag and isinstance(check, Check) and check.outcome == side:
                    raised[flag].append(self._finding(check))

        for check in accuracies:
            weigh(check, higher="under_unlearned")
        weigh(retained, lower="utility_fail")
        worst = self._worst_class()
        if worst:
            weigh(worst, lower="utility_fail")
        accuracies.append(retained)
        looks_retrained = not any(raised.values())
        weigh(probe, higher="under_unlearned", lower="over_unlearned")
        weigh(membership, higher="under_unlearned", lower="over_unlearned")
        if depth:
            weigh(depth, higher="under_unlearned", lower="over_unlearned")
        for further in (every, *relearned):
            if further:
                weigh(further, higher="under_unlearned")
        blind = self._blind(probe, every, depth) if isinstance(probe, Check) else None
        if blind:
            unsettled["under_unlearned"].append(blind)
        if looks_retrained:
            sentence, unknown = self._hidden(blind or probe, accuracies)
            if not sentence and depth:  # behind the layers that the classifier's probe reads
                sentence, deeper = self._hidden(depth, accuracies)
                unknown += deeper
            raised["head_only"] += sentence
            unsettled["head_only"] += [] if sentence else unknown
        if self.itself:
            for reasons in unsettled.values():
                reasons.append(words.ITSELF)
        flags = tuple(sorted(flag for flag in FLAGS if raised[flag]))
        not_given = {
            flag: tuple(dict.fromkeys(unsettled[flag]))
            for flag in FLAGS
            if unsettled[flag] and flag not in flags
        }
        headline = next((f for f in FLAGS if f in flags), "incomplete" if not_given else "ok")
        checks = (*accuracies, worst, membership, probe, every, depth, *relearned)
        return Verdict(
            headline=headline,
            flags=("ok",) if headline == "ok" else flags,
            reasons={flag: tuple(raised[flag]) for flag in FLAGS if flag in flags},
            not_given=not_given,
            cautions=self._cautions(membership, probe),
            checks=tuple(check for check in checks if isinstance(check, Check)),
        )

    # The figures: each a check, or the reason why there is none.

    def _forgotten(self, split: str) -> Check | str:
        key = f"acc/{split}"
        if not has(self.unlearned, key):
            return f"The audit has no accuracy on {split.replace('_', ' ')} images."
        return self._check(key, self._mean(key) or 0.0, ACCURACY_TOLERANCE)

    def _membership(self) -> Check | str:
        if not self.retrained:
            return "There is no retrained network to compare the membership attack with."
        reference = self._mean(MEMBERSHIP)
        if reference is None or not has(self.unlearned, MEMBERSHIP):
            return "The membership attack is undefined on these images."
        return self._check(MEMBERSHIP, reference, AUC_TOLERANCE)

    def _probe(self) -> Check | str:
        probes = {f"probe/k{shots}": least for shots, least in PROBE_TOLERANCE.items()}
        if not any(has(self.unlearned, key) for key in probes):
            return (
                "No probe could read the features: the network has no linear classifier, or a "
                "class has too few held-out images to fit one."
            )
        if not self.retrained:
            return "There is no retrained network to compare the probe with."
        for key, least in probes.items():
            reference = self._mean(key)
            if reference is not None and has(self.unlearned, key):
                return self._probed(key, reference, least)
        return "No probe with the same number of images was fitted on the retrained networks."

    def _shots(self) -> int:
        """Return on how many images of each class the blocks' probes were fitted."""
        if has(self.unlearned, SHOTS_OF_BLOCKS):
            return int(self.unlearned[SHOTS_OF_BLOCKS])
        # An older audit does not say; the classifier's probe was fitted on the same images.
        return 50 if has(self.unlearned, "probe/k50") else 10

    def _further(self, key: str, least: float) -> Check | None:
        """Return the check of another probe; None where it was not fitted on all networks."""
        reference = self._mean(key)
        if reference is None or not has(self.unlearned, key):
            return None
        return self._probed(key, reference, least)

    def _probed(self, key: str, reference: float, least: float) -> Check:
        tolerance = self._least(key, least)
        if self.original and has(self.original, key):
            tolerance = max(tolerance, LEAST_INDEX * (self.original[key] - reference))
        return self._check(key, reference, tolerance)

    def _least(self, key: str, alone: float) -> float:
        """Return the least tolerance of a figure; `alone` is that beside one retrained network."""
        return alone if len(self._theirs(key)) == 1 else TOLERANCE_MEASURED * alone

    def _relearned(self) -> list[Check]:
        """Return the check of each relearning curve that all networks have."""
        found = []
        for key in self.unlearned:
            reference = self._mean(key) if fnmatchcase(key, RELEARNED) else None
            if reference is not None and has(self.unlearned, key):
                found.append(self._check(key, reference, self._least(key, RELEARN_TOLERANCE)))
        return found

    def _retained(self) -> Check | str:
        key = "acc/retain_test"
        reference = self._mean(key)
        if not has(self.unlearned, key):
            return "The audit has no accuracy on retained test images."
        if reference is not None:
            return self._check(key, reference, ACCURACY_TOLERANCE)
        if self.original and has(self.original, key):
            return self._check(key, self.original[key], ORIGINAL_TOLERANCE)
        return "There is neither a retrained nor an original network to compare accuracy with."

    def _worst_class(self) -> Check | None:
        """Return the check of the class that lost most; None if there is nothing to compare."""
        classes = [key for key in self._classes() if has(self.unlearned, key)]
        wider = NormalDist().inv_cdf(1 - 0.025 / max(len(classes), 1)) / _Z
        checks = []
        for key in classes:
            reference = self._mean(key)
            if reference is None and self.original and has(self.original, key):
                reference = self.original[key]
            if reference is not None:
                checks.append(self._check(key, reference, CLASS_TOLERANCE).widened(wider))
        return min(checks, key=lambda check: check.high + check.tolerance, default=None)

    def _classes(self) -> list[str]:
        derived = {f"{key}{end}" for key in self.unlearned for end in _DERIVED}
        return [k for k in self.unlearned if k.startswith(CLASS) and k not in derived]

    def _check(self, key: str, reference: float, least: float, of: Figures | None = None) -> Check:
        """Compare a figure of the network, or of another, with a reference."""
        figures = self.unlearned if of is None else of
        value = figures[key]
        values = self._theirs(key)
        spread = SPREADS * stdev(values) if len(values) > 1 else 0.0
        low, high = self._interval(figures, key, reference)
        return Check(key, value, reference, low, high, max(least, spread))

    def _theirs(self, key: str) -> list[float]:
        return [figures[key] for figures in self.retrained if has(figures, key)]

    def _mean(self, key: str) -> float | None:
        values = self._theirs(key)
        return fmean(values) if values else None

    def _interval(self, figures: Figures, key: str, reference: float) -> tuple[float, float]:
        """Return the ends of the interval of the difference."""
        low, high = f"{key}_gap_low", f"{key}_gap_high"
        if has(figures, low) and has(figures, high):
            return figures[low], figures[high]
        gap = figures[key] - reference
        if fnmatchcase(key, RELEARNED):  # of an older audit, whose areas had no interval
            return gap, gap
        if key == MEMBERSHIP:
            members, others = self.images["forget_train"], self.images["forget_test"]
            half = _Z * sqrt(2 * (members + others + 1) / (12 * members * others))
        else:
            count = self._count(key)
            shares = (figures[key], reference)
            half = _Z * sqrt(sum(_share_variance(share, count) for share in shares))
        return gap - half, gap + half

    def _count(self, key: str) -> float:
        """Return the number of images that a share is counted over."""
        if key.startswith(CLASS):  # a test set has as many of each
            return self.images["retain_test"] / len(self._classes())
        return self.images[key.removeprefix("acc/") if key.startswith("acc/") else "forget_test"]

    # What they say together.

    def _hidden(
        self, probe: Check | str, accuracies: Sequence[Check | str]
    ) -> tuple[list[str], list[str]]:
        """Return the sentence that raises `head_only`, and why it is unsettled; or neither."""
        if isinstance(probe, str):
            return [], [probe]
        if probe.outcome != "higher":
            return [], []
        index = self._index(probe)
        if index is None:
            return [], ["No index says how much the features have kept: it needs the original's."]
        if index <= HIDDEN_INDEX:
            return [], []
        missing = [check for check in accuracies if isinstance(check, str)]
        return ([], missing) if missing else ([words.hiding(accuracies, probe.key, index)], [])

    def _blind(self, probe: Check, *others: Check | None) -> str | None:
        """Return why a probe that found nothing could not have found anything, nor any other."""
        if any(other and self._finds_original(other) for other in others):
            return None
        margin = probe.interval + probe.tolerance
        found = self._finds_original(probe)
        if probe.outcome != "alike" or found or (found is None and margin <= PROBE_RESOLUTION):
            return None
        return words.blind(
            probe,
            images=self.images["forget_test"],
            references=len(self.retrained),
            before=self._before(probe.key),
        )

    def _finds_original(self, check: Check) -> bool | None:
        """Return whether a check would have been higher for the original; None if unknown."""
        if not self.original or not has(self.original, check.key):
            return None
        control = self._check(check.key, check.reference, check.tolerance, of=self.original)
        return control.outcome == "higher"

    def _index(self, probe: Check) -> float | None:
        before = self._before(probe.key)
        index = nan if before is None else float(probe_index(probe.value, before, probe.reference))
        return index if isfinite(index) else None

    def _before(self, key: str) -> float | None:
        return self.original[key] if self.original and has(self.original, key) else None

    def _finding(self, check: Check) -> str:
        return words.finding(
            check,
            references=len(self.retrained),
            before=self._before(check.key),
            index=self._index(check),
        )

    def _cautions(self, membership: Check | str, probe: Check | str) -> tuple[str, ...]:
        notes = []
        if not self.retrained:
            notes.append(words.NO_REFERENCE)
        if len(self.retrained) == 1:
            notes.append(words.one_reference(ACCURACY_TOLERANCE, AUC_TOLERANCE, probe))
        if (
            isinstance(membership, Check)
            and membership.outcome == "alike"
            and self._finds_original(membership) is False
        ):
            notes.append(words.WEAK_ATTACK)
        return tuple(notes)


def _share_variance(share: float, count: float) -> float:
    shrunk = (share * count + 1) / (count + 2)  # so that 0 of 20 is not certain
    return shrunk * (1 - shrunk) / (count + 2)
