"""The benchmarks run, say what they measured, and take times in turns."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from bench import setting
from bench.__main__ import BENCHMARKS, main
from bench.results import Row, Target
from bench.timing import Spread, paired, repeated
from orthounlearn.errors import UsageError


class FakeClock:
    """Time passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ways_take_turns_and_warm_up_does_not_count():
    clock, turns = FakeClock(), []
    slowdown = itertools.count(1)  # a machine that gets slower with every round

    def work(name: str, seconds: float) -> None:
        turns.append(name)
        clock.now += seconds

    def a() -> None:
        work("a", 3.0 * next(slowdown))

    def b() -> None:
        work("b", 1.0 * len(turns[1::2]) + 1.0)

    times = paired(a, b, rounds=3, warmup=2, clock=clock)
    assert "".join(turns) == "ab" * 5
    assert times == [(9.0, 3.0), (12.0, 4.0), (15.0, 5.0)]
    assert Spread.of(one / other for one, other in times) == Spread(3.0, 3.0, 3.0)


def test_the_median_forgets_one_disturbed_round():
    assert Spread.of([1.0, 100.0, 1.2]) == Spread(1.2, 1.0, 100.0)


def test_repeated_runs_that_often():
    calls: list[int] = []
    repeated(lambda: calls.append(1), 4)()
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("direction", "holds"), [("at least", [False, True, True]), ("at most", [True, True, False])]
)
def test_a_target_is_met_by_the_median(direction, holds):
    target = Target(direction, 2.0)
    rows = [Row("x", "a", "b", Spread(median, 0.0, 9.0), target) for median in (1.0, 2.0, 3.0)]
    assert [row.holds for row in rows] == holds
    assert Row("x", "a", "b", Spread(1.0, 1.0, 1.0), None).holds is None


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "expected names out of input, lightning" in capsys.readouterr().err


# Python 3.12 warns of what torch's own worker processes do.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_everything_runs_without_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def no_images(**_: object) -> None:
        raise UsageError("Cannot fetch cifar10.")

    monkeypatch.setattr(setting, "official", no_images)
    monkeypatch.setenv("ORTHOUNLEARN_RUNS", str(tmp_path))
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    main(["--quick"])

    written = json.loads((tmp_path / "bench.json").read_text())
    assert {row["name"] for row in written["rows"]} == set(BENCHMARKS)
    for row in written["rows"]:
        values = row["spread"]
        assert 0 < values["low"] <= values["median"] <= values["high"] < math.inf, row
    assert written["environment"]["images"] == "random"
    assert "torch" in written["environment"]["versions"]
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == strict  # another test may have set it
    printed = capsys.readouterr().out
    assert "random images of its shape instead" in printed
    assert all(name in printed for name in BENCHMARKS)
