"""From run directories to the table: grouping, intervals, the noise floor, four formats."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from orthounlearn.errors import UsageError
from orthounlearn.files import write_json
from orthounlearn.report import job, writers
from orthounlearn.report.claims import CLAIMS, claim_lines
from orthounlearn.report.collect import find_runs, read_runs
from orthounlearn.report.columns import columns, heading, number, text
from orthounlearn.report.rows import Cell, interval, make_rows

IMAGES = {"forget_train": 4500, "forget_test": 500, "retain_test": 9000}
RETRAINED = {"acc/forget_train": 0.0, "acc/retain_test": 0.9, "acc/retain_train": 1.0,
             "compat/salun_confidence": 1.0}  # fmt: skip


def write_run(
    root: Path, method: str, *, seed: int = 0, forget: str = "cat", regularizer: str = "so",
    after: tuple[str, ...] = (), retrained: dict[str, float | None] | None = RETRAINED,
    trials: int | None = None, again: str = "", about: dict[str, object] | None = None,
    **values: float | None,
) -> Path:  # fmt: skip
    asked = "-then-".join([*after, forget])
    folder = (
        root / "toy" / f"net_{regularizer}" / f"seed{seed}" / f"forget-{asked}" / f"{method}{again}"
    )
    metrics = {f"unlearned/{k.replace('__', '/')}": v for k, v in values.items()}
    metrics |= {f"retrained/{k}": v for k, v in (retrained or {}).items()}
    identity = {"data": "toy", "model": "net", "regularizer": regularizer, "seed": seed,
                "method": method, "forget": [forget], "after": [[name] for name in after],
                "trials": trials, "images": IMAGES, "environment": {"device": "cpu"}}  # fmt: skip
    write_json(folder / "run.json", identity | (about or {}))
    write_json(folder / "metrics.json", metrics)
    return folder


def rows(root: Path) -> dict[tuple[str, str], dict[str, Cell]]:
    found, problems = find_runs(root)
    assert problems == []
    return {(row.regularizer, row.method): row.metrics for row in make_rows(found)}


def test_mean_and_interval_over_classes_and_seeds(tmp_path: Path):
    values = [0.1, 0.3, 0.2, 0.4]
    cells = [(seed, forget) for seed in (0, 1) for forget in ("cat", "dog")]
    for value, (seed, forget) in zip(values, cells, strict=True):
        write_run(tmp_path, "soft_prune", seed=seed, forget=forget, acc__forget_test=value)
    cell = rows(tmp_path)["so", "soft_prune"]["acc/forget_test"]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (cell.mean, cell.n) == (pytest.approx(0.25), 4)
    assert (cell.low, cell.high) == (pytest.approx(low), pytest.approx(high))
    assert interval([0.5]) == (None, None)


def test_one_pool_of_shadows_is_one_draw_however_many_seeds_it_serves(tmp_path: Path):
    for forget, value in (("cat", 0.6), ("dog", 0.5)):
        for seed in (0, 1, 2):
            values = {"lira__auc": value, "acc__retain_test": value + seed / 10}
            write_run(tmp_path, "soft_prune", seed=seed, forget=forget, **values)
    found = rows(tmp_path)["so", "soft_prune"]
    cell = found["lira/auc"]
    assert (cell.mean, cell.n) == (pytest.approx(0.55), 2)
    assert (cell.low, cell.high) == interval([0.6, 0.5])
    assert found["acc/retain_test"].n == 6


def test_target_is_the_mean_of_the_retrained_model_in_the_same_group(tmp_path: Path):
    for seed, value in ((0, 0.8), (1, 0.9)):
        write_run(
            tmp_path, "m", seed=seed, retrained={"acc/retain_test": value}, acc__retain_test=1.0
        )
    write_run(tmp_path, "m", regularizer="none", retrained=None, acc__retain_test=1.0)
    assert rows(tmp_path)["so", "m"]["acc/retain_test"].target == pytest.approx(0.85)
    assert rows(tmp_path)["none", "m"]["acc/retain_test"].target is None


def test_the_table_says_which_settings_were_chosen(tmp_path: Path):
    for method, trials in {"a": 8, "b": 0, "mask": None, "c": 8}.items():
        write_run(tmp_path, method, trials=trials, acc__forget_test=0.0)
    found = make_rows(find_runs(tmp_path)[0])
    told = "Settings chosen on validation images, best of 8: a, c. Default settings: b."
    assert told in writers.to_markdown(found, columns(found), command=None, environment={})
    console = Console(record=True, width=200)
    writers.show(found, columns(found), console)
    assert told in console.export_text()
    written = writers.to_json(found, command=None, environment={})["rows"]
    assert {row["method"]: row["trials"] for row in written} == {
        "a": 8, "b": 0, "c": 8, "mask": None
    }  # fmt: skip


def test_undefined_values_are_left_out_not_zero(tmp_path: Path):
    write_run(tmp_path, "m", seed=0, probe__k50=None, acc__retain_test=1.0)
    write_run(tmp_path, "m", seed=1, probe__k50=0.5, acc__retain_test=1.0)
    cell = rows(tmp_path)["so", "m"]["probe/k50"]
    assert (cell.mean, cell.n, cell.low) == (0.5, 1, None)


CLASSES = ("cat", "dog", "emu")


def write_sequence(root: Path) -> None:
    for method, steps in (("soft_prune", (-0.01, -0.2, -0.4)), ("retrain", (0.0, 0.01, 0.02))):
        for seed in (0, 1):
            for place, drift in enumerate(steps):
                after, forget = CLASSES[:place], CLASSES[place]
                values = {"drift__retain_test": drift + seed / 100, "acc__retain_test": 0.9 + drift}
                write_run(root, method, seed=seed, after=after, forget=forget, **values)


def test_each_step_of_a_sequence_is_a_row(tmp_path: Path):
    write_sequence(tmp_path)
    write_run(tmp_path, "soft_prune", forget="fox", drift__retain_test=-0.03)
    found = make_rows(find_runs(tmp_path)[0])
    ours = [row for row in found if row.method == "soft_prune"]
    assert [row.step for row in ours] == [1, 2, 3]
    cells = [row.metrics["drift/retain_test"] for row in ours]
    assert [cell.n for cell in cells] == [3, 2, 2]  # a request alone is a first step
    assert [cell.mean for cell in cells] == pytest.approx([-0.04 / 3, -0.195, -0.395])


def test_steps_are_shown_where_there_are_some(tmp_path: Path):
    write_sequence(tmp_path)
    text = (job.report(runs=str(tmp_path), name="mine") / "table.md").read_text()
    table = [line for line in text.splitlines() if line.startswith(("| Method", "| soft_prune"))]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0][:4] == ["Method", "Step", "Retain test % →R", "Retain drift % ↑"]
    assert [line[:2] for line in cells[1:]] == [["soft_prune", str(n)] for n in (1, 2, 3)]
    assert cells[2][3].startswith("-19.5 ±")
    latex = (tmp_path / "tables/mine/table.tex").read_text()
    assert r"soft\_prune & 2 & " in latex
    lines = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicol" not in line]
    (width,) = {line.count("&") + 1 for line in lines}
    assert rf"\multicolumn{{{width}}}" in latex
    read = csv.DictReader(io.StringIO((tmp_path / "tables/mine/table.csv").read_text()))
    drift = {r["step"]: float(r["mean"]) for r in read
             if (r["method"], r["metric"]) == ("soft_prune", "drift/retain_test")}  # fmt: skip
    assert drift == pytest.approx({"1": -0.005, "2": -0.195, "3": -0.395})


def test_tables_of_requests_alone_have_no_step(tmp_path: Path):
    write_run(tmp_path, "soft_prune", acc__retain_test=0.5, drift__retain_test=-0.1)
    found = make_rows(find_runs(tmp_path)[0])
    assert columns(found) == ["acc/retain_test"]
    text = writers.to_markdown(found, columns(found), command=None, environment={})
    assert "Step" not in text


def test_claims_are_about_requests_on_an_original(tmp_path: Path):
    keys = {claim.key.replace("/", "__"): 0.25 for claim in CLAIMS}
    write_run(tmp_path, "soft_prune", **keys)
    write_run(tmp_path, "soft_prune", after=("dog",), **dict.fromkeys(keys, 0.75))
    found = make_rows(find_runs(tmp_path)[0])
    text = writers.to_markdown(found, columns(found), command=None, environment={})
    assert "forget test accuracy 25.0 %" in text
    assert "forget test accuracy 50.0 %" not in text


def test_references_come_first(tmp_path: Path):
    for method in ("zebra", "soft_prune", "retrain", "original", "mask_logit", "abc"):
        write_run(tmp_path, method, acc__retain_test=0.9)
    order = [method for _, method in rows(tmp_path)]
    assert order == ["original", "retrain", "mask_logit", "soft_prune", "abc", "zebra"]
    folders = [
        tmp_path / "toy/net_so/seed0/forget-cat" / name for name in ("zebra", "abc", "retrain")
    ]
    of_a_sweep = make_rows(read_runs(folders)[0])
    assert [row.method for row in of_a_sweep] == ["retrain", "zebra", "abc"]


@pytest.mark.parametrize(
    ("key", "mean", "half", "shown"),
    [
        ("acc/retain_test", 0.87654, 0.0123, "87.7 ± 1.2"),
        ("acc/forget_test", 0.0, 0.0, "0.0 ± 0.0"),
        ("acc/forget_test", 0.5, None, "50.0"),
        ("mia/pop_margin/auc", 0.51234, 0.0306, "0.512 ± 0.031"),
        ("time/unlearn_s", 0.0000314, 0.0000021, "0.0314 ± 0.0021"),
        ("time/unlearn_s", 807.2234, 100.0, "807,223 ± 100,000"),
        ("time/prep_s", 22.5755, 0.03, "22.6 ± 0.030"),
    ],
)
def test_numbers_of_a_column_look_alike(key: str, mean: float, half: float | None, shown: str):
    ends = (None, None) if half is None else (mean - half, mean + half)
    assert number(key, Cell(mean, *ends, 4, None)) == shown


def test_a_figure_that_is_missing_is_a_dash():
    assert number("acc/forget_test", None) == "–"


def test_columns_without_a_value_are_hidden(tmp_path: Path):
    write_run(tmp_path, "m", probe__k10=0.5)
    found = make_rows(find_runs(tmp_path)[0])
    assert columns(found) == ["probe/k10"]
    assert heading("probe/k10") == "10-shot probe % →R"


def test_columns_may_be_chosen(tmp_path: Path):
    write_run(tmp_path, "m", acc__retain_test=0.5, acc__forget_train=0.25, drift__retain_test=0.1)
    found = make_rows(find_runs(tmp_path)[0])
    chosen = ["acc/forget_train", "drift/retain_test", "probe/k50"]
    assert columns(found, chosen) == chosen[:2]
    folder = job.report(runs=str(tmp_path), name="mine", columns=["acc/forget_train"])
    header = next(
        line for line in (folder / "table.md").read_text().splitlines() if "Method" in line
    )
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "Method",
        "Forget train % →R",
    ]
    with pytest.raises(UsageError, match="'acc/nonsense'"):
        columns(found, ["acc/nonsense"])


@pytest.mark.parametrize(
    ("headlines", "shown"),
    [
        (["ok", "ok", "ok"], "ok"),
        (["head_only", "ok", "head_only"], "head_only 2, ok 1"),
        ([], "–"),
    ],
)
def test_verdicts_are_counted(tmp_path: Path, headlines: list[str], shown: str):
    write_run(tmp_path, "m", seed=9, acc__retain_test=0.5)
    for seed, headline in enumerate(headlines):
        votes = {f"verdict__{name}": float(name == headline) for name in ("ok", "head_only")}
        write_run(tmp_path, "m", seed=seed, acc__retain_test=0.5, **votes)
    (row,) = make_rows(find_runs(tmp_path)[0])
    assert text(row, "verdict") == shown
    assert ("verdict" in columns([row])) == bool(headlines)


def test_four_formats_hold_the_same_numbers(tmp_path: Path):
    for seed in (0, 1):
        write_run(tmp_path, "soft_prune", seed=seed, acc__retain_test=0.5 + seed / 10)
    folder = job.report(runs=str(tmp_path), name="mine", command="orthounlearn sweep x=1")
    table = json.loads((folder / "table.json").read_text())
    assert table["command"] == "orthounlearn sweep x=1"
    assert table["environment"] == {"device": "cpu"}
    (row,) = table["rows"]
    assert {"data", "model", "regularizer", "method", "step", "trials", "metrics"} == row.keys()
    cell = row["metrics"]["acc/retain_test"]
    assert cell.keys() == {"mean", "low", "high", "n", "target"}
    assert (cell["mean"], cell["n"], cell["target"]) == (pytest.approx(0.55), 2, 0.9)
    line = next(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert (line["metric"], float(line["mean"])) == ("acc/retain_test", pytest.approx(0.55))
    markdown = (folder / "table.md").read_text()
    assert "orthounlearn sweep x=1" in markdown
    assert "| soft_prune" in markdown
    assert "orthogonal loss: so" in markdown
    latex = (folder / "table.tex").read_text()
    assert r"soft\_prune" in latex
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 1
    lines = [
        line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert len({line.count("&") for line in lines}) == 1
    caption = next(line for line in latex.splitlines() if line.startswith(r"\caption{"))
    assert r"95 \% t-interval over forget classes $\times$ seeds" in caption
    assert r"\label{tab:" in latex
    assert latex.isascii()
    opened, closed = (re.findall(rf"\\{word}{{([a-z*]+)}}", latex) for word in ("begin", "end"))
    assert opened == closed[::-1] == ["table*", "tabular"]
    bare = re.sub(r"\\[{}]", "", latex)
    assert bare.count("{") == bare.count("}")


def test_claims_stand_beside_what_was_measured(tmp_path: Path):
    keys = {claim.key.replace("/", "__"): 0.25 for claim in CLAIMS}
    write_run(tmp_path, "soft_prune", **keys)
    write_run(tmp_path, "soft_prune", regularizer="none", **dict.fromkeys(keys, 0.75))
    lines = claim_lines(make_rows(find_runs(tmp_path)[0]))
    assert len(lines) == len(CLAIMS)
    assert any("25.0 %" in measured for _, _, measured, _ in lines)
    assert not any("75" in measured for _, _, measured, _ in lines)
    assert claim_lines([]) == []


def test_terminal_shows_every_group(tmp_path: Path):
    for regularizer in ("none", "so"):
        write_run(tmp_path, "soft_prune", regularizer=regularizer, acc__retain_test=0.5)
    console = Console(width=160, record=True, file=io.StringIO())
    found = make_rows(find_runs(tmp_path)[0])
    writers.show(found, columns(found), console)
    text = console.export_text()
    assert "no orthogonal loss" in text
    assert "orthogonal loss: so" in text


def test_damaged_runs_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_run(tmp_path, "soft_prune", acc__retain_test=0.5)
    damaged = write_run(tmp_path, "broken", acc__retain_test=0.5)
    (damaged / "metrics.json").write_text("{")
    folder = job.report(runs=str(tmp_path), name="all")
    assert "left out" in capsys.readouterr().out
    assert [r["method"] for r in json.loads((folder / "table.json").read_text())["rows"]] == [
        "soft_prune"
    ]


def test_nothing_finished_is_an_error_and_writes_nothing(tmp_path: Path):
    with pytest.raises(UsageError, match="Expected finished runs"):
        job.report(runs=str(tmp_path), name="all")
    assert list(tmp_path.iterdir()) == []


def test_only_the_wanted_data_set(tmp_path: Path):
    write_run(tmp_path, "soft_prune", acc__retain_test=0.5)
    with pytest.raises(UsageError, match="on mnist"):
        job.report(runs=str(tmp_path), name="all", dataset="mnist")
