"""The paper's published claims beside what is measured here."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from orthounlearn.report.rows import Row

_V1 = "arXiv 2506.19891v1, abstract"
_V2 = "arXiv 2506.19891v2 (FedOrtho), abstract"


@dataclass(frozen=True)
class Claim:
    """One published claim and the figure here that speaks to it.

    Attributes:
        text: As published, in short.
        source: Where.
        key: Of the figure.
        show: What is measured, around its number.
        digits: Format of the number.
        scale: Times the mean.
        note: How the two compare.
    """

    text: str
    source: str
    key: str
    show: str
    digits: str
    scale: float
    note: str


CLAIMS = (
    Claim("complete forgetting", _V1, "acc/forget_test", "forget test accuracy {} %", ".1f", 100, "0 % would be complete; a masked logit gets there too"),
    Claim("minimal accuracy loss on retained data", _V1, "acc/nearest_class_drop", "worst retained class loses {} points", ".1f", 100, "the claim does not name a figure"),
    Claim("> 97 % retention accuracy", _V2, "retain_ratio", "{} % of the original's retained accuracy", ".1f", 100, "read as a ratio; federated setting"),
    Claim("> 98 % forgetting quality", _V2, "acc/forget_train", "{} % of D_f still recognised", ".1f", 100, "the measure is not defined in the abstract"),
    Claim("substantially lower membership risk", _V1, "mia/pop_margin/auc_gap", "AUC {} from retrain's", "+.3f", 1, "0 is right; below 0 is over-unlearning"),
    Claim("millisecond-level (v1), subsecond (v2)", f"{_V1}; {_V2}", "time/unlearn_s", "request {} ms", ".2f", 1000, "without preparation, see the column"),
)  # fmt: skip


def claim_lines(
    rows: Sequence[Row], *, method: str = "soft_prune"
) -> list[tuple[str, str, str, str]]:
    """Return (claimed, source, measured, note), measured on each original trained orthogonally.

    One number for all of them would let the good ones hide the bad ones. [] where none of the rows
    is of the method on such an original; of several settings none is the method.

    Args:
        rows: Of the table.
        method: Whose rows count.
    """
    ours = [row for row in rows if row.method == method and row.regularizer != "none"]
    if not ours:
        return []
    names = _names(ours)
    lines = []
    for claim in CLAIMS:
        numbers = [
            format(row.metrics[claim.key].mean * claim.scale, claim.digits) + name
            for name, row in zip(names, ours, strict=True)
            if claim.key in row.metrics
        ]
        measured = claim.show.format(", ".join(numbers)) if numbers else "not measured"
        lines.append((claim.text, claim.source, measured, claim.note))
    return lines


def _names(rows: Sequence[Row]) -> list[str]:
    """Return what to say after a row's number: that in which the rows differ."""
    named = [(*row.group, row.method) for row in rows]
    differ = [len(set(column)) > 1 for column in zip(*named, strict=True)]
    parts = [" ".join(compress(name, differ)) for name in named]
    return [f" ({part})" if part else "" for part in parts]
