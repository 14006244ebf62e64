"""What stands in one row: one kind of network, one choice of settings, each cell once."""

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from orthounlearn.errors import UsageError
from orthounlearn.report import job, writers
from orthounlearn.report.cases import make_cases
from orthounlearn.report.claims import claim_lines
from orthounlearn.report.collect import Run, find_runs
from orthounlearn.report.columns import COLUMNS
from orthounlearn.report.page import render_page
from orthounlearn.report.rows import Row, make_rows
from orthounlearn.report.style import looks
from tests.report.test_table import write_run

NEW = {"data_fingerprint": "d1", "network": "aaaa1111", "settings": "eeee1111", "audit": 5}


def write(root: Path, method: str = "soft_prune", **options) -> Path:
    """Write a run of today: it says what it is of."""
    about = NEW | {"origin": f"of seed {options.get('seed', 0)}"} | options.pop("about", {})
    count = len(list(root.rglob("run.json")))
    values = {"acc__retain_test": 0.5} | options
    return write_run(root, method, again=f"_{count}", about=about, **values)


def read(root: Path) -> list[Run]:
    found, problems = find_runs(root)
    assert problems == []
    return found


def counted(rows: list[Row]) -> dict[tuple[str, str, str], int]:
    return {(row.data, row.model, row.method): row.n for row in rows}


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("data_fingerprint", ("d1" * 32, "d2" * 32), ("toy #d1d1d1d1", "toy #d2d2d2d2")),
        ("network", ("aaaa1111", "bbbb2222"), ("net #aaaa1111", "net #bbbb2222")),
        ("settings", ("eeee1111", "ffff2222"), ("soft_prune #eeee1111", "soft_prune #ffff2222")),
    ],
)
def test_what_differs_behind_one_name_is_never_in_one_row(
    tmp_path: Path, kind: str, values: tuple[str, ...], names: tuple[str, ...]
):
    for value in values:
        for seed in (0, 1):
            write(tmp_path, seed=seed, about={kind: value, "origin": f"{value} {seed}"})
    rows = make_rows(read(tmp_path))
    place = ("data_fingerprint", "network", "settings").index(kind)
    plain = ("toy", "net", "soft_prune")
    expected = [(*plain[:place], name, *plain[place + 1 :]) for name in names]
    assert counted(rows) == dict.fromkeys(expected, 2)


def test_settings_are_called_by_the_options_in_which_they_differ(tmp_path: Path):
    for settings, rate in (("eeee1111", 0.1), ("ffff2222", 0.3)):
        options = {"sites": "last", "rate": rate}
        write(tmp_path, about={"settings": settings, "options": options})
        # A name of its own where the options are the same: what differs is not among them.
        write(tmp_path, "other", about={"settings": settings, "options": {"to": 1}})
    rows = make_rows(read(tmp_path))
    assert [row.method for row in rows] == [
        "soft_prune #rate=0.1", "soft_prune #rate=0.3", "other #eeee1111", "other #ffff2222",
    ]  # fmt: skip
    assert [row.options for row in rows[:2]] == [
        {"sites": "last", "rate": 0.1}, {"sites": "last", "rate": 0.3},
    ]  # fmt: skip


@pytest.mark.parametrize("other", [{"rate": 0.1}, {}], ids=["said twice", "not said"])
def test_options_that_do_not_tell_settings_apart_leave_their_hashes(tmp_path: Path, other: dict):
    said = {"eeee1111": {"rate": 0.1}, "ffff2222": {"rate": 0.3}, "abcd3333": other}
    for settings, options in said.items():
        write(tmp_path, about={"settings": settings, "options": options})
    rows = make_rows(read(tmp_path))
    assert {row.method for row in rows} == {f"soft_prune #{settings}" for settings in said}


def test_names_are_marked_only_where_they_are_ambiguous(tmp_path: Path):
    write(tmp_path)
    write(tmp_path, seed=1)
    write(tmp_path, "other", about={"settings": "ffff2222"})
    write(tmp_path, regularizer="none", about={"network": "bbbb2222", "settings": "ffff2222"})
    rows = make_rows(read(tmp_path))
    assert [(row.regularizer, row.model, row.method, row.n) for row in rows] == [
        ("none", "net", "soft_prune", 1),
        ("so", "net", "soft_prune", 2),
        ("so", "net", "other", 1),
    ]


def test_runs_of_older_versions_are_grouped_by_name(tmp_path: Path):
    for seed in (0, 1):
        write_run(tmp_path, "soft_prune", seed=seed, acc__retain_test=0.5)
    write_run(tmp_path, "soft_prune", again="_again", acc__retain_test=0.5)
    assert counted(make_rows(read(tmp_path))) == {("toy", "net", "soft_prune"): 3}
    write(tmp_path, seed=2)
    assert counted(make_rows(read(tmp_path))) == {("toy", "net", "soft_prune"): 4}
    write(tmp_path, seed=3, about={"settings": "ffff2222"})
    assert counted(make_rows(read(tmp_path))) == {
        ("toy", "net", "soft_prune"): 3,
        ("toy", "net", "soft_prune #eeee1111"): 1,
        ("toy", "net", "soft_prune #ffff2222"): 1,
    }


def test_variants_stand_together(tmp_path: Path):
    for settings in ("eeee1111", "ffff2222"):
        for method in ("abc", "soft_prune", "retrain"):
            for seed in (0, 1):
                write(tmp_path, method, seed=seed, about={"settings": settings})
    rows = make_rows(read(tmp_path))
    methods = ("retrain", "soft_prune", "abc")
    assert [(row.method, row.n) for row in rows] == [
        (f"{method} #{settings}", 2) for method in methods for settings in ("eeee1111", "ffff2222")
    ]


def test_one_cell_audited_several_times_counts_once(tmp_path: Path):
    """The newest version of the audit; of these that which measured most; of these the last."""
    for value, (audit, more) in enumerate([(5, {"probe__k50": 0.1}), (6, {}), (6, {})]):
        folder = write(tmp_path, about={"audit": audit}, acc__retain_test=float(value), **more)
        os.utime(folder / "metrics.json", (1e9 + value, 1e9 + value))
    found, _ = find_runs(tmp_path)
    assert [run.metrics["acc/retain_test"] for run in found] == [2.0]
    whole = write(tmp_path, about={"audit": 6}, acc__retain_test=9.0, probe__k50=0.1)
    os.utime(whole / "metrics.json", (1e9 - 1, 1e9 - 1))
    write(tmp_path, seed=1)
    write(tmp_path, seed=2, about={"origin": "of seed 0"})  # one file, another seed of the method
    write(tmp_path, forget="dog")
    write(tmp_path, forget="dog", after=("cat",))
    write(tmp_path, about={"settings": "ffff2222"})
    found, problems = find_runs(tmp_path)
    assert [run.metrics["acc/retain_test"] for run in found].count(9.0) == 1
    assert len(found) == 6
    (problem,) = problems
    assert problem.startswith("3 older audits of what was audited again")


def test_a_run_of_an_older_version_gives_way_to_the_same_cell_of_today(tmp_path: Path):
    old = {"data_fingerprint": "d1", "origin": "of seed 0"}
    write_run(tmp_path, "soft_prune", about=old, acc__retain_test=0.1)
    write_run(
        tmp_path, "soft_prune", again="_longer", about=old | {"origin": "x"}, acc__retain_test=0.2
    )
    write(tmp_path, acc__retain_test=0.3)
    found, problems = find_runs(tmp_path)
    assert sorted(run.metrics["acc/retain_test"] for run in found) == [0.2, 0.3]
    assert problems == ["1 older audit of what was audited again: same network, request and "
                        "settings"]  # fmt: skip


def test_a_data_set_is_asked_for_by_its_name(tmp_path: Path):
    for fingerprint in ("d1", "d2"):
        write(tmp_path, about={"data_fingerprint": fingerprint})
    job.report(runs=str(tmp_path), name="mine", dataset="toy")
    rows = json.loads((tmp_path / "tables/mine/table.json").read_text())["rows"]
    assert {row["data"] for row in rows} == {"toy #d1", "toy #d2"}
    with pytest.raises(UsageError, match="only some on toy"):
        job.report(runs=str(tmp_path), name="mine", dataset="other")


def test_every_format_tells_them_apart_and_says_what_the_mark_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for network in ("aaaa1111", "bbbb2222"):
        for settings in ("eeee1111", "ffff2222"):
            about = {"network": network, "settings": settings, "origin": network}
            write(tmp_path, about=about)
            write(tmp_path, about=about | {"audit": 4})
    folder = job.report(runs=str(tmp_path), name="mine", page=True)
    printed = capsys.readouterr().out
    markdown = (folder / "table.md").read_text()
    page = (folder / "report.html").read_text()
    latex = (folder / "table.tex").read_text()
    left_out = "4 older audits of what was audited again"
    assert f"left out: {left_out}" in " ".join(printed.split())
    assert f"Left out: {left_out}" in page
    for text in (" ".join(printed.split()), markdown, page):
        assert "toy, net #aaaa1111, orthogonal loss: so" in text
        assert "toy, net #bbbb2222, orthogonal loss: so" in text
        assert "network or settings in run.json" in text
    assert markdown.count("\n| soft_prune #eeee1111 |") == 2
    assert latex.count(r"soft\_prune \#ffff2222 & ") == 2
    rows = json.loads((folder / "table.json").read_text())["rows"]
    assert [(row["model"], row["method"]) for row in rows] == [
        (f"net #{network}", f"soft_prune #{settings}")
        for network in ("aaaa1111", "bbbb2222")
        for settings in ("eeee1111", "ffff2222")
    ]


def test_nothing_is_said_of_marks_where_there_are_none(tmp_path: Path):
    write(tmp_path)
    rows = make_rows(read(tmp_path))
    assert "run.json" not in writers.to_markdown(rows, COLUMNS, command=None, environment={})


def test_figures_of_one_request_keep_networks_apart_and_their_names_fit_a_file(tmp_path: Path):
    for network in ("aaaa1111", "bbbb2222"):
        write(tmp_path, about={"network": network, "origin": network})
    for settings in ("eeee1111", "ffff2222"):
        about = {"network": "bbbb2222", "origin": "bbbb2222", "settings": settings}
        write(tmp_path, "abc", about=about)
    cases = make_cases(read(tmp_path), looks([]))
    assert [case.slug for case in cases] == [
        "toy_net-aaaa1111_so_forget-cat", "toy_net-bbbb2222_so_forget-cat"
    ]  # fmt: skip
    assert [list(case.runs) for case in cases] == [
        ["soft_prune"], ["soft_prune", "abc #eeee1111", "abc #ffff2222"]
    ]  # fmt: skip


def test_claims_are_answered_for_each_network(tmp_path: Path):
    for model, value in (("netA", 1.0), ("netB", 0.5)):
        write(tmp_path, about={"model": model, "origin": model}, retain_ratio=value)
    measured = {key: text for key, _, text, _ in claim_lines(make_rows(read(tmp_path)))}
    assert measured["> 97 % retention accuracy"] == (
        "100.0 (netA), 50.0 (netB) % of the original's retained accuracy"
    )


def test_claims_are_not_answered_by_several_settings(tmp_path: Path):
    for settings in ("eeee1111", "ffff2222"):
        write(tmp_path, about={"settings": settings}, retain_ratio=0.5)
    assert claim_lines(make_rows(read(tmp_path))) == []


def test_settings_from_the_command_line_are_not_called_default(tmp_path: Path):
    for settings, trials in (("eeee1111", 0), ("ffff2222", 0), ("abcd3333", 8)):
        write(tmp_path, about={"settings": settings}, trials=trials)
    write(tmp_path, "abc", trials=0)
    rows = make_rows(read(tmp_path))
    text = writers.to_markdown(rows, COLUMNS, command=None, environment={})
    told = "best of 8: soft_prune #abcd3333. Default settings: abc."
    assert f"Settings chosen on validation images, {told}" in text


def test_a_figure_that_some_runs_lack_says_of_how_many_it_is(tmp_path: Path):
    for seed, probe in enumerate((0.4, 0.5, None)):
        write(tmp_path, seed=seed, probe__k50=probe)
    found = read(tmp_path)
    rows = make_rows(found)
    keys = ["acc/retain_test", "probe/k50"]
    console = Console(record=True, width=200)
    writers.show(rows, keys, console)
    page = render_page(found, rows, keys, name="x", command=None, root=tmp_path)
    markdown = writers.to_markdown(rows, keys, command=None, environment={})
    latex = writers.to_latex(rows, keys, name="x", command=None)
    for text in (markdown, page, console.export_text(), latex.replace(r"$\pm$", "±")):
        assert "45.0 ± 63.5 (n=2)" in text
        assert "50.0 ± 0.0" in text
        assert "50.0 ± 0.0 (n=" not in text
