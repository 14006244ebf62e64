"""Jobs from the command line, end to end on digits."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.sweeper import Sweeper

from orthounlearn import __version__, cli
from orthounlearn.config.multirun import PLANNED
from orthounlearn.engine import train as training
from orthounlearn.engine.store import StoredModel

FAST = ("model.width=4", "recipe.epochs=2")


def test_unlearn_prints_before_after_and_where(call: Callable, tmp_path: Path):
    result = call("unlearn", "forget=3", "metrics.reference=none", *FAST)
    assert result.code == 0, result.err
    assert "forgotten class, test accuracy" in result.out
    path = Path(result.out.split("All figures: ")[1].strip())
    metrics = json.loads(path.read_text())
    verdict = json.loads((path.parent / "audit.json").read_text())["verdict"]["headline"]
    assert f"{verdict}: " in result.out
    assert path.is_relative_to(tmp_path / "runs" / "digits")
    assert metrics["unlearned/time/unlearn_s"] < metrics["unlearned/time/prep_s"]
    csv = next(path.parent.glob("metrics.csv")).read_text()
    assert "unlearned/acc/forget_test" in csv


@pytest.mark.parametrize("planned", [False, True])
def test_cells_that_a_sweep_has_planned_are_composed_once(
    call: Callable, planned: bool, monkeypatch: pytest.MonkeyPatch
):
    composed = []
    compose = ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "load_sweep_config",
        lambda *args, **options: composed.append(options) or compose(*args, **options),
    )
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", Sweeper.validate_batch_is_legal)
    monkeypatch.setenv(PLANNED, "1" if planned else "")
    monkeypatch.setattr(training, "train", lambda _: StoredModel(Path(), ""))
    result = call("train", "-m", "seed=0,1,2")
    assert result.code == 0, result.err
    assert len(composed) == (3 if planned else 6)


def test_the_recorded_command_repeats_the_run(call: Callable, tmp_path: Path):
    """Of one job of a multirun that job alone: it finds its own run, and makes no other."""
    options = ("metrics.reference=none", "method.rate=0.2", *FAST)
    assert call("unlearn", "-m", "forget=3,[3,4]", *options).code == 0
    folders = [path.parent for path in tmp_path.rglob("env.json") if "forget-" in str(path)]
    assert len(folders) == 2
    for folder in folders:
        command = json.loads((folder / "env.json").read_text())["command"]
        program, *words = shlex.split(command)
        assert (program, words[0]) == ("orthounlearn", "unlearn")
        again = call(*words)
        assert again.code == 0, again.err
        assert str(folder) in again.out
        assert json.loads((folder / "audit.json").read_text())["command"] == command
    assert len(list(tmp_path.rglob("metrics.json"))) == 2 + 1  # and the original's


def test_train_then_report_and_evaluate(call: Callable, tmp_path: Path):
    trained = call("train", "forget=3", "method=soft_prune", "metrics.reference=none", *FAST)
    assert trained.code == 0, trained.err
    checkpoint = next(tmp_path.rglob("unlearned.ckpt"))
    evaluated = call("evaluate", "forget=3", f"checkpoint={checkpoint}", *FAST)
    assert evaluated.code == 0, evaluated.err
    report = call("report")
    assert report.code == 0, report.err
    assert "soft_prune" in report.out
    assert "evaluate" in report.out
    assert (tmp_path / "runs/tables/all/table.json").exists()


def test_multirun_runs_the_grid(call: Callable, tmp_path: Path):
    grid = ("forget=3,[4,5]", "method=original,mask_logit")
    result = call("unlearn", "-m", *grid, "metrics.reference=none", *FAST)
    assert result.code == 0, result.err
    runs = [json.loads(p.read_text()) for p in tmp_path.rglob("run.json")]
    assert {(run["method"], tuple(run["forget"])) for run in runs} == {
        (m, f) for m in ("original", "mask_logit") for f in (("3",), ("4", "5"))
    }
    assert len(list((tmp_path / "runs/models").glob("*/model.ckpt"))) == 1


def test_prepare_says_what_it_keeps_and_a_request_reads_it(call: Callable, tmp_path: Path):
    result = call("prepare", "method=soft_prune", *FAST)
    assert result.code == 0, result.err
    first, *files = result.out.splitlines()
    assert first.startswith("Prepared in ")
    assert [Path(line.strip()).exists() for line in files] == [True]
    assert Path(files[0].strip()).is_relative_to(tmp_path / "runs/models")


@pytest.mark.parametrize("job", cli.JOBS)
def test_help_is_about_the_job(job: str, call: Callable):
    result = call(job, "--help")
    assert result.code == 0
    assert f"orthounlearn {job}" in result.out


def test_module_and_console_script_are_one_program(tmp_path: Path):
    for command in (
        [sys.executable, "-m", "orthounlearn"],
        [str(Path(sys.executable).with_name("orthounlearn"))],
    ):
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout.strip() == __version__


def test_help_does_not_wait_for_torch():
    code = "import sys; from orthounlearn import cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
