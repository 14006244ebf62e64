"""What the view of a sweep says."""

import io
import time
from pathlib import Path

from rich.console import Console

from orthounlearn.engine.progress import SweepProgress
from orthounlearn.files import write_json
from orthounlearn.lit.callbacks.status import write_status


def progress(*folders: Path) -> SweepProgress:
    return SweepProgress("models", [(f, (f / "metrics.json").exists) for f in folders])


def test_line_counts_cells_and_names_what_runs(tmp_path: Path):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    view = progress(one, two, three)
    assert view.line().startswith("models: 0/3 done, 0:00 so far")
    write_status(one / "status.json", "done", "training a")
    write_json(one / "metrics.json", {})
    write_status(two / "status.json", "running", "training b", epoch=2, epochs=8)
    view._started = time.time() - 60
    line = view.line()
    assert "1/3 done, 1:00 so far, about 2:00 left" in line
    assert line.endswith("| training b epoch 3/8")


def test_cells_that_were_there_do_not_count_as_speed(tmp_path: Path):
    write_json(tmp_path / "one/metrics.json", {})
    view = progress(tmp_path / "one", tmp_path / "two")
    view._started = time.time() - 60
    assert "left" not in view.line()


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
    view = progress(tmp_path / "one")
    view._console = Console(file=out, width=200)
    with view:
        view._show()
        view._show()
    assert out.getvalue().count("\n") <= 2
    assert "models: 0/1 done" in out.getvalue()
