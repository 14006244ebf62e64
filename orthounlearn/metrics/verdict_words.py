"""The sentences of a verdict: what a finding, a gap or a caution says to a reader."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from orthounlearn.metrics.check import CLASS, DEPTH, EVERY, MEMBERSHIP, RELEARNED, Check

NO_REFERENCE = (
    "No retrained network: accuracy on forgotten classes is compared with 0, on the "
    "others with the original's."
)

ITSELF = (
    "The only retrained network to compare with is this very network: it needs one of another seed "
    "(metrics.reference_seeds)."
)

WEAK_ATTACK = (
    "The membership attack does not find the images in the original either, so that it "
    "finds none here says little."
)


def finding(
    check: Check, *, references: int, before: float | None = None, index: float | None = None
) -> str:
    """Return what a check says that is not alike.

    Args:
        check: Of the figure.
        references: Number of retrained networks.
        before: The figure of the original, of a probe that has an index.
        index: Of a probe, between the retrained and the original network.
    """
    theirs, beyond = named(references), f"± {points(check.interval + check.tolerance)}"
    here, there = percent(check.value), percent(check.reference)
    if check.key.startswith("acc/forget"):
        which = "training" if check.key.endswith("train") else "unseen test"
        against = f"{theirs} {there}" if references else "a retrained network would name 0"
        return (
            f"The network still names {here} of the forgotten {which} images; {against} ({beyond})."
        )
    if check.key.startswith("acc/retain_test"):
        against = theirs if references else "the original"
        name = check.key.removeprefix(CLASS)
        which = "retained test images" if name == check.key else f"test images of {name}"
        return f"On {which} the network is right in {here}; {against} in {there} ({beyond})."
    if check.key == MEMBERSHIP:
        side = (
            "recognises forgotten training images as once seen"
            if check.outcome == "higher"
            else "tells forgotten training images apart, as stranger than unseen ones"
        )
        return (
            f"A membership attack {side}: AUC {check.value:.3f}; {theirs} "
            f"{check.reference:.3f} (± {check.interval + check.tolerance:.3f})."
        )
    if fnmatchcase(check.key, RELEARNED):
        return (
            f"The class comes back faster ({check.key.split('/')[1]}): area under the "
            f"relearning curve {here}; {theirs} {there} (± {points(check.tolerance)})."
        )
    known = "" if before is None or index is None else f"; the original {percent(before)}"
    found = "" if index is None else f", index {index:.2f}"
    again = "again" if check.outcome == "higher" else "only"
    return (
        f"{probe_name(check.key)} finds {here} of the forgotten images {again}; "
        f"{theirs} {there}{known} ({beyond}{found})."
    )


def hiding(accuracies: Sequence[Check | str], probe: str, index: float) -> str:
    """Return what stands against accuracies that look retrained.

    Args:
        accuracies: Those of forgotten and retained test images among them.
        probe: Key of the probe that found the class.
        index: Its index.
    """
    shown = {c.key: percent(c.value) for c in accuracies if isinstance(c, Check)}
    return (
        "By its accuracies the network looks retrained (forgotten test images "
        f"{shown['acc/forget_test']}, retained {shown['acc/retain_test']}), but its "
        f"{_probe_kind(probe)} index is {index:.2f}: 0 is retrained, 1 nothing removed."
    )


def blind(check: Check, *, images: int, references: int, before: float | None) -> str:
    """Return why a probe that found nothing could not have found anything.

    Args:
        check: Of the probe.
        images: Number of those that it was asked about.
        references: Number of retrained networks.
        before: The figure of the original; None if there is no original.
    """
    name, margin = probe_name(check.key), points(check.interval + check.tolerance)
    if before is None:
        return (
            f"{name} resolves no less than {margin} on {images} images, "
            "and no original shows what there was to find."
        )
    return (
        f"{name} cannot tell even the original ({percent(before)}) from "
        f"{named(references)} ({percent(check.reference)}, ± {margin}) on {images} images."
    )


def one_reference(accuracy: float, auc: float, probe: Check | str) -> str:
    """Return that what two trainings differ by is assumed.

    Args:
        accuracy: Tolerance of accuracies.
        auc: Tolerance of the membership attack.
        probe: The check of the probe, if there is one.
    """
    recall = f", {points(probe.tolerance)} of probe recall" if isinstance(probe, Check) else ""
    return (
        "One retrained network: what two of them differ by is assumed "
        f"({points(accuracy)} of accuracy, {auc} of AUC{recall}), not measured."
    )


def named(references: int) -> str:
    """Return what the retrained networks are called."""
    return "the retrained network" if references == 1 else f"the {references} retrained networks"


def probe_name(key: str) -> str:
    """Return what a probe is called at the beginning of a sentence."""
    return {
        DEPTH: "The mean of the probes of all blocks",
        EVERY: "A probe that was fitted on all held-out images",
    }.get(key, f"A {_probe_kind(key)}")


def _probe_kind(key: str) -> str:
    return "probes' depth" if key == DEPTH else f"{key.removeprefix('probe/k')}-shot probe"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Return a difference of shares in percentage points."""
    return f"{100 * share:.1f} points"
