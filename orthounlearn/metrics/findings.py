"""A network's audit beside its references: the original before it, the retrained ones beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from weakref import WeakKeyDictionary, ref

import numpy as np

from orthounlearn.metrics import suite
from orthounlearn.metrics.comparison import (
    against_both,
    against_original,
    composite_intervals,
    composites,
    distance_samples,
    floors,
    gaps,
    neighbour_samples,
    similarities,
    worst_case_privacy,
)
from orthounlearn.metrics.relearn import ain, area_ratio
from orthounlearn.metrics.sample import Sample, gap_intervals, values


@dataclass(frozen=True)
class Findings:
    """What a network says, and what follows from that.

    Attributes:
        outputs: On the splits of `suite.AUDITED`.
        samples: What each image adds to its figures.
        figures: Key -> value; nan where it is undefined.
    """

    outputs: suite.Outputs
    samples: dict[str, Sample]
    figures: dict[str, float]

    @classmethod
    def of(
        cls,
        outputs: suite.Outputs,
        *,
        forget: Sequence[int],
        class_names: Sequence[str],
        seed: int = 0,
        block_probes: Sequence[str] = (),
    ) -> "Findings":
        """Return every figure that needs the network alone; arguments as in `suite.samples`."""
        found = suite.samples(
            outputs, forget=forget, class_names=class_names, seed=seed, block_probes=block_probes
        )
        return cls(outputs, found, values(found))


def compare(
    ours: Findings, original: Findings | None, retrained: Sequence[Findings]
) -> dict[str, float]:
    """Set a network against its references.

    What compares it is added to its figures. Attacks and distances are added to those of the
    references too: a retrained network has its distance to the others, which is the floor.

    Args:
        ours: The audited network.
        original: The network before the request; None: what needs it is left out.
        retrained: Of one or more seeds, without the audited network; likewise.

    Returns:
        What the references have, for a log: `original/KEY`, and of the retrained ones the mean,
        the standard deviation and the floor as `retrained/KEY`, `retrained_sd/KEY` and
        `retrained_floor/KEY`.
    """
    before = [] if original is None else [original]
    beside: dict[str, float] = {}
    if retrained:
        for network in (ours, *before, *retrained):
            _add_beside(network, retrained)
    if original is not None:
        ours.figures.update(against_original(ours.figures, original.figures))
        beside |= {f"original/{key}": value for key, value in original.figures.items()}
    if retrained:
        theirs, spread = _mean(retrained), _spread(retrained)
        among = floors([reference.figures for reference in retrained])
        for phase, of in (("", theirs), ("_sd", spread), ("_floor", among)):
            beside |= {f"retrained{phase}/{key}": value for key, value in of.items()}
        drawn = [reference.samples for reference in retrained]
        ours.figures.update(gaps(ours.figures, theirs))
        ours.figures.update(gap_intervals(ours.samples, drawn))
        ours.figures.update(_relearning(ours.figures, theirs))
        if original is not None:
            ours.figures.update(against_both(ours.figures, original.figures, theirs))
        ours.figures.update(
            composite_intervals(ours.samples, original.samples if original else None, drawn)
        )
    for name, references in (("original", before), ("retrained", retrained)):
        ours.figures.update(_similarities(ours.outputs, references, f"cka/{name}"))
    ours.figures.update(suite.block_shots(ours.outputs))
    return beside


_Added = tuple[dict[str, Sample], dict[str, float]]
"""Samples and figures."""

_BESIDE: WeakKeyDictionary[suite.Outputs, dict[tuple[ref[suite.Outputs], ...], _Added]] = (
    WeakKeyDictionary()
)
"""What was added to a network beside those retrained ones: a table's references meet each other
once, and not again for each method."""


def _add_beside(network: Findings, retrained: Sequence[Findings]) -> None:
    """Attack a network by the class that the retrained ones confuse, and measure how far it is.

    A retrained network's distance is that to the others.
    """
    known = _BESIDE.setdefault(network.outputs, {})
    others = [one for one in retrained if one is not network]
    which = tuple(ref(one.outputs) for one in (*retrained, *others))
    if which not in known:
        known[which] = _beside(network, retrained, others)
    samples, figures = known[which]
    network.samples.update(samples)
    network.figures.update(figures)


def _beside(network: Findings, retrained: Sequence[Findings], others: Sequence[Findings]) -> _Added:
    """Return what `_add_beside` adds; distances are those to the others."""
    (added,) = neighbour_samples([network.outputs], [one.outputs for one in retrained])
    said = [other.outputs for other in others]
    added |= distance_samples(network.outputs, said) if others else {}
    figures = values(added)
    if others:
        figures |= worst_case_privacy(network.outputs, said)
        figures |= composites(network.figures, _mean(others))
    return added, figures


def _similarities(
    outputs: suite.Outputs, references: Sequence[Findings], prefix: str
) -> dict[str, float]:
    """Return the mean similarity to the references; {} without any."""
    each = [similarities(outputs, reference.outputs) for reference in references]
    keys = each[0] if each else ()
    return {f"{prefix}/{key}": float(np.mean([one[key] for one in each])) for key in keys}


def _relearning(figures: Mapping[str, float], retrained: Mapping[str, float]) -> dict[str, float]:
    """Return AIN and the ratio of areas for each learning rate at which both were relearned."""
    found: dict[str, float] = {}
    for key in figures:
        if key.startswith("relearn/") and key.endswith("/steps") and key in retrained:
            base = key.removesuffix("/steps")
            steps = [_uncensored(one[key]) for one in (figures, retrained)]
            index = ain(*steps)
            found[f"{base}/ain"] = float("nan") if index is None else index
            areas = [one[f"{base}/area"] for one in (figures, retrained)]
            found[f"{base}/area_ratio"] = area_ratio(*areas)
    return found


def _uncensored(steps: float) -> int | None:
    return int(steps) if isfinite(steps) else None


def _mean(references: Sequence[Findings]) -> dict[str, float]:
    """Return the mean of each figure that all references have."""
    return {key: float(np.mean(each)) for key, each in _gathered(references).items()}


def _spread(references: Sequence[Findings]) -> dict[str, float]:
    """Return the standard deviation of each figure over the references; {} for one."""
    if len(references) < 2:
        return {}
    return {key: float(np.std(each, ddof=1)) for key, each in _gathered(references).items()}


def _gathered(references: Sequence[Findings]) -> dict[str, list[float]]:
    return {
        key: [reference.figures[key] for reference in references]
        for key in references[0].figures
        if all(key in reference.figures for reference in references)
    }
