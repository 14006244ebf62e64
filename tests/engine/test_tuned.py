"""How many trials chose the values that a method has."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orthounlearn.config import CONF_DIR
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.tuned import trials_of

Open = Callable[..., Experiment]
FILES = [
    path
    for path in sorted(Path(CONF_DIR, "method", "tuned").glob("digits_cpu/*.yaml"))
    if "tuned" in yaml.safe_load(path.read_text())
]


def trials(open_job: Open, *overrides: str) -> int | None:
    return trials_of(open_job(*overrides).config["method"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_values_are_those_of_their_search(open_job: Open, path: Path):
    stored = yaml.safe_load(path.read_text())["tuned"]
    assert stored["method"] == path.stem
    assert trials(open_job, f"method={path.stem}") == stored["trials"]


@pytest.mark.parametrize(
    "override",
    ["method.rate=0.4", "method.pooling=mean", "method.floor=0.5", "method.sites=convs"],
)
def test_values_set_by_hand_were_not_chosen_by_a_search(open_job: Open, override: str):
    assert trials(open_job, "method=soft_prune") == 16
    assert trials(open_job, "method=soft_prune", override) is None


@pytest.mark.parametrize("override", ["method.rate=0.3", "method.inverse=undo.safetensors"])
def test_what_changes_no_value_leaves_them_chosen(open_job: Open, override: str):
    assert trials(open_job, "method=soft_prune", override) == 16


@pytest.mark.parametrize(
    "control",
    ["hard_mask", "random_mask", "norm_matched_mask", "scrub_rewind", "class_transport_alone",
     "class_transport_features", "class_transport_output"],
)  # fmt: skip
def test_another_methods_values_are_no_search_of_its_own(open_job: Open, control: str):
    assert trials(open_job, f"method={control}") is None


def test_without_values_of_a_search_there_are_defaults_or_no_choice(open_job: Open):
    assert trials_of({"name": "fine_tune", "search": {"epochs": {}}}) == 0
    assert trials(open_job, "method=leace") is None
