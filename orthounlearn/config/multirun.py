"""Hydra's sweeper, told that the cells of a table have been composed already."""

import os
from collections.abc import Sequence

from hydra.plugins.sweeper import Sweeper

PLANNED = "ORTHOUNLEARN_PLANNED"
"""Environment variable that a sweep sets for its multiruns."""


def trust_a_plan() -> None:
    """Let multiruns of this process begin at once, if a sweep has planned them.

    Hydra composes every cell before the first one runs, to find mistakes early, and each again
    where it runs. A sweep has composed them all to know which are missing; of 688 cells (digits,
    all methods) the second time took two and a half minutes with one core idle.
    """
    if os.environ.get(PLANNED):
        setattr(Sweeper, Sweeper.validate_batch_is_legal.__name__, _taken_as_valid)


def _taken_as_valid(_: Sweeper, batch: Sequence[Sequence[str]]) -> None:
    """Stand for a method of Hydra's that composes each entry of `batch`."""
