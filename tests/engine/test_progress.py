"""What the view of a sweep says, on a terminal and without one."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from orthounlearn.engine.progress import SweepProgress
from orthounlearn.files import read_json, write_json
from orthounlearn.lit.callbacks.status import report_stage, reporting, write_status


def progress(*folders: Path, **options: object) -> SweepProgress:
    return SweepProgress("models", [(f, (f / "metrics.json").exists) for f in folders], **options)


def test_line_counts_cells_and_names_what_runs(tmp_path: Path):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    view = progress(one, two, three)
    assert view.line().startswith("models: 0/3 done, 3 left, 0:00 so far")
    write_status(one / "status.json", "done", "training a")
    write_json(one / "metrics.json", {})
    write_status(two / "status.json", "running", "training b", epoch=2, epochs=8)
    view._started = time.time() - 60
    line = view.line()
    # 1.25 cells took a minute, 1.75 are to come
    assert line.startswith("models: 1/3 done, 1 running, 1 left, 1:00 so far, about 1:24 to go")
    assert line.endswith("| training b, epoch 3/8")


def test_cells_that_were_there_do_not_count_as_speed(tmp_path: Path):
    write_json(tmp_path / "one/metrics.json", {})
    view = progress(tmp_path / "one", tmp_path / "two")
    view._started = time.time() - 60
    assert "to go" not in view.line()


def test_dead_and_damaged_statuses_are_not_shown(tmp_path: Path):
    dead, damaged = tmp_path / "dead", tmp_path / "damaged"
    write_json(
        dead / "status.json", {"state": "running", "what": "x", "updated": time.time() - 3600}
    )
    damaged.mkdir()
    (damaged / "status.json").write_text("{")
    assert "|" not in progress(dead, damaged).line()


def test_without_a_terminal_lines_are_few(tmp_path: Path):
    out = io.StringIO()
    folders = [tmp_path / str(number) for number in range(5)]
    with progress(*folders, console=Console(file=out, width=200)) as view:
        for folder in folders:
            write_json(folder / "metrics.json", {})
            view.show()
    lines = out.getvalue().splitlines()
    assert len(lines) == 2  # the first that was done, and the end
    assert lines[0].startswith("models: 1/5 done, 4 left")
    assert lines[1].startswith("models: 5/5 done, 0 left")
    assert "\x1b" not in out.getvalue()


def test_without_a_terminal_a_long_cell_gives_a_sign_of_life(tmp_path: Path):
    out = io.StringIO()
    write_status(tmp_path / "one/status.json", "running", "training a", epoch=2, epochs=8)
    view = progress(tmp_path / "one", console=Console(file=out, width=200))
    for minutes, lines in ((4, 0), (6, 1), (6, 1)):
        view._started = time.time() - 60 * minutes
        view.show()
        assert out.getvalue().count("training a, epoch 3/8") == lines


def test_a_terminal_shows_bars_epochs_and_last_results(tmp_path: Path):
    out = io.StringIO()
    console = Console(force_terminal=True, file=out, width=120)
    folders = [tmp_path / str(number) for number in range(9)]
    with progress(*folders, console=console) as view:
        for number, folder in enumerate(folders[:7]):
            write_status(folder / "status.json", "done", f"method{number}, cat")
            figures = {"unlearned/acc/forget_test": 0.0, "unlearned/acc/retain_test": number / 100,
                       "unlearned/verdict/ok": 0.0, "unlearned/verdict/head_only": 1.0}  # fmt: skip
            write_json(folder / "metrics.json", figures)
            view.show()
        write_status(folders[7] / "status.json", "running", "fine_tune, cat", epoch=1, epochs=4)
        write_status(folders[8] / "status.json", "running", "scrub, cat, audit")
        view.show()
        before = out.getvalue()
    assert "\x1b[" in before
    shown = before[before.rindex("models") :]  # the last frame
    assert "7/9 done, 2 running, 0 left" in shown
    assert "epoch 2/4" in shown
    assert "scrub, cat, audit" in shown
    assert "✓ method6, cat: forgotten 0.0 %, retained 6.0 %, head_only" in shown
    assert "method2," in shown
    assert "method1," not in shown  # five results at most
    assert out.getvalue().rstrip().endswith("| fine_tune, cat, epoch 2/4; scrub, cat, audit")


def test_a_job_tells_its_stages_and_how_it_ended(tmp_path: Path):
    path = tmp_path / "status.json"
    report_stage("nobody listens")
    with reporting(path, "soft_prune"):
        assert read_json(path)["state"] == "running"
        report_stage("audit")
        assert read_json(path)["what"] == "soft_prune, audit"
    assert read_json(path) | {"updated": 0} == {
        "state": "done", "what": "soft_prune", "epoch": None, "epochs": None, "updated": 0
    }  # fmt: skip
    with pytest.raises(KeyError), reporting(path, "scrub"):
        raise KeyError
    assert read_json(path)["state"] == "failed"
    report_stage("nobody listens")
    assert read_json(path)["what"] == "scrub"
