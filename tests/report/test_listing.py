"""The table of a sweep: its runs alone, and no other table over it."""

import json
from pathlib import Path

import pytest

from orthounlearn.errors import UsageError
from orthounlearn.report.collect import Run
from orthounlearn.report.job import report
from tests.report.toy_runs import write_runs


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return write_runs(tmp_path, models=["n"], forgets=["cat"], seeds=[0], outputs=False)


def shown(folder: Path) -> set[str]:
    return {row["method"] for row in json.loads((folder / "table.json").read_text())["rows"]}


def test_a_page_of_a_sweep_has_exactly_its_runs_and_says_its_command(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ours = [run.folder for run in runs if run.method in ("original", "soft_prune")]
    keys = ["acc/retain_test", "verdict"]
    folder = report(
        runs=str(tmp_path), name="mine", folders=ours, columns=keys, command="orthounlearn sweep x"
    )
    assert f"orthounlearn report table=mine runs={tmp_path}\n" in capsys.readouterr().out
    stored = json.loads((folder / "runs.json").read_text())["folders"]
    assert stored == [path.relative_to(tmp_path).as_posix() for path in ours]
    before = (folder / "table.md").read_text()
    assert report(runs=str(tmp_path), table="mine", page=True) == folder
    assert shown(folder) == {"original", "soft_prune"}
    assert (folder / "table.md").read_text() == before
    page = (folder / "report.html").read_text()
    assert "orthounlearn sweep x" in page
    assert "fine_tune" not in page
    assert "report table=" not in capsys.readouterr().out


def test_results_that_moved_are_found(runs: list[Run], tmp_path: Path):
    root = tmp_path / "old"
    root.mkdir()
    (tmp_path / "toy").rename(root / "toy")
    folders = [root / run.folder.relative_to(tmp_path) for run in runs[:2]]
    report(runs=str(root), name="mine", folders=folders)
    root.rename(tmp_path / "new")
    assert len(shown(report(runs=str(tmp_path / "new"), table="mine"))) == 2


def test_no_other_table_is_written_over_that_of_a_sweep(runs: list[Run], tmp_path: Path):
    report(runs=str(tmp_path), name="mine", folders=[runs[0].folder])
    with pytest.raises(UsageError, match="`orthounlearn report table=mine`"):
        report(runs=str(tmp_path), name="mine")
    assert shown(tmp_path / "tables/mine") == {"original"}
    report(runs=str(tmp_path), name="mine", folders=[run.folder for run in runs])  # swept again
    assert len(shown(tmp_path / "tables/mine")) == len(runs)
    assert len(shown(report(runs=str(tmp_path)))) == len(runs)


def test_a_table_that_is_not_there_is_named_with_those_that_are(runs: list[Run], tmp_path: Path):
    report(runs=str(tmp_path), name="mine", folders=[runs[0].folder])
    with pytest.raises(UsageError, match="Valid: mine"):
        report(runs=str(tmp_path), table="other")
    (tmp_path / "tables/mine/runs.json").write_text('{"folders": []}')
    with pytest.raises(UsageError, match="damaged"):
        report(runs=str(tmp_path), table="mine")
