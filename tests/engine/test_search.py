"""The stored search: one budget for all processes, and the method's own values first."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orthounlearn.engine.search import WORST, judged, search
from orthounlearn.errors import UsageError

SPACE = {"o.rate": {"low": 0.0, "high": 1.0}}


def test_several_searches_at_once_share_one_budget(tmp_path: Path):
    tried: list[float] = []

    def judge(values: Mapping[str, Any]) -> float:
        time.sleep(0.02)
        tried.append(values["o.rate"])
        return float(values["o.rate"])

    def run() -> None:
        search(tmp_path / "m.log", space=SPACE, own={"o.rate": 0.5}, judge=judge, trials=6)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tried) == len(set(tried)) == 6
    assert tried[0] == 0.5


def test_refusal_counts_unless_it_is_of_the_methods_own_values(tmp_path: Path):
    def refuse(values: Mapping[str, Any]) -> float:
        if values["o.rate"] != 0.5:
            raise UsageError("No such rate.")
        return 1.5

    study = search(tmp_path / "a.log", space=SPACE, own={"o.rate": 0.5}, judge=refuse, trials=3)
    assert judged(study) == 3
    assert [trial.value for trial in study.trials] == [1.5, WORST, WORST]
    for _ in range(2):  # nor does it pass when it is asked again
        with pytest.raises(UsageError, match="No such rate"):
            search(tmp_path / "b.log", space=SPACE, own={"o.rate": 0.4}, judge=refuse, trials=3)


def test_more_trials_go_on_with_the_search(tmp_path: Path):
    tried: list[float] = []

    def judge(values: Mapping[str, Any]) -> float:
        tried.append(values["o.rate"])
        return 0.0

    for trials in (2, 5, 4):
        search(tmp_path / "m.log", space=SPACE, own={"o.rate": 0.5}, judge=judge, trials=trials)
    assert len(tried) == len(set(tried)) == 5
