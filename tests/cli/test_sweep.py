"""The table from one command: all cells, once; interrupted or failed, it can go on."""

import json
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from orthounlearn.engine import plan, sweep

SMALL = (
    "model.width=4", "recipe.epochs=1", "table.models=[resnet20]", "table.regularizers=[so]",
    "table.seeds=[0]", "table.forget=[[3]]",
)  # fmt: skip


def test_sweep_makes_the_table_and_trains_nothing_twice(
    call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    axes = (*SMALL, "table.methods=[original,retrain,soft_prune]")
    result = call("sweep", *axes)
    assert result.code == 0, result.err
    assert "original models: 1/1 done" in result.err
    assert "unlearning methods: 3/3 done" in result.err
    table = json.loads((tmp_path / "runs/tables/digits/table.json").read_text())
    assert {row["method"] for row in table["rows"]} == {"original", "retrain", "soft_prune"}
    assert table["command"].startswith("orthounlearn sweep experiment=digits_cpu model.width=4")
    ours = next(row for row in table["rows"] if row["method"] == "soft_prune")["metrics"]
    assert ours["acc/retain_test"]["target"] is not None
    assert len(list((tmp_path / "runs/models").glob("*/model.ckpt"))) == 2
    assert "A page with all figures: orthounlearn report table=digits\n" in result.out

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(subprocess, "run", never)
    again = call("sweep", *axes)
    assert again.code == 0, again.err
    assert "0 to run" in again.err
    assert "soft_prune" in again.out


def test_failed_cell_is_told_and_nothing_half_done_is_left(call: Callable, tmp_path: Path):
    result = call("sweep", *SMALL, "table.methods=[original]", "optimizer.lr=1e12")
    assert result.code == 2
    assert "1 of 1 cells (original models) did not finish" in result.err
    assert "Training diverged" in result.err
    assert not (tmp_path / "runs/tables").exists()
    assert not list((tmp_path / "runs").rglob("model.ckpt"))


def test_a_method_that_diverges_is_told_and_stops_nothing(call: Callable, tmp_path: Path):
    explode = tmp_path / "conf/method/explode.yaml"
    explode.parent.mkdir(parents=True)
    explode.write_text("defaults: [fine_tune]\nname: explode\noptimizer: {lr: 1.0e+30}\n")
    methods = ("table.methods=[explode,mask_logit]", "table.references=false")
    axes = (f"--config-dir={tmp_path / 'conf'}", *SMALL, *methods)
    result = call("sweep", *axes)
    assert result.code == 0, result.err
    table = json.loads((tmp_path / "runs/tables/digits/table.json").read_text())
    assert "explode" not in {row["method"] for row in table["rows"]}
    told = "Diverged, hence without figures: explode (resnet20, so, seed 0, 3)."
    assert told in result.out
    assert told in (tmp_path / "runs/tables/digits/table.md").read_text()
    again = call("sweep", *axes)
    assert again.code == 0
    assert "0 to run" in again.err


def test_options_of_one_method_are_refused(call: Callable):
    result = call("sweep", *SMALL, "method.rate=0.2")
    assert result.code == 2
    assert "method.rate=0.2" in result.err
    assert "a method of its own" in result.err


@pytest.mark.parametrize("prepared", ["[1]", "[0,1,2,3,4,5,6,7,8,9,10]"])
def test_classes_that_cannot_be_prepared_are_refused_before_anything_runs(
    call: Callable, prepared: str, tmp_path: Path
):
    result = call("sweep", *SMALL, f"table.prepared={prepared}")
    assert result.code == 2
    assert "table.prepared" in result.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("prepared", "classes"), [("null", None), ("[3,8]", [3, 8])])
def test_classes_to_prepare_reach_the_method(
    open_job: Callable, prepared: str, classes: list[int] | None
):
    job = open_job("experiment=digits_cpu", "method=class_transport", f"table.prepared={prepared}")
    assert job.config["method"]["classes"] == classes


Until = Callable[[str], dict[str, plan.Phase]]


@pytest.fixture
def planned_until(monkeypatch: pytest.MonkeyPatch) -> Until:
    """Return a function to call before a sweep: its phases go into the dict that it returns.

    None runs, and the sweep is interrupted at the phase of the given title.
    """

    def until(title: str) -> dict[str, plan.Phase]:
        found: dict[str, plan.Phase] = {}

        def record(phase: plan.Phase, _: object) -> None:
            found[phase.title] = phase
            if phase.title == title:
                raise KeyboardInterrupt

        monkeypatch.setattr(sweep, "_run", record)
        return found

    return until


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[plan.Phase]:
    """Phases that would have run; the sweep is interrupted before the first."""
    phases: list[plan.Phase] = []

    def stop(phase: plan.Phase, _: object) -> None:
        phases.append(phase)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "_run", stop)
    return phases


def test_every_class_alone(call: Callable, planned: list[plan.Phase]):
    axes = [a for a in SMALL if "forget" not in a]
    result = call("sweep", *axes, "table.forget=all", "table.methods=[original]")
    assert result.code == 130
    assert planned[0].missing == 1


def test_classes_whose_names_are_numbers_reach_the_cells_as_names(
    call: Callable, planned: list[plan.Phase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for part, name, index in product(("train", "test"), ("0", "1", "10", "2"), range(10)):
        file = tmp_path / "mine" / part / name / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(file)
    monkeypatch.setattr(plan, "_is_trained", lambda _: True)  # the first phase is left out
    axes = [a for a in SMALL if "forget" not in a]
    mine = ("data=image_folder", f"data.root={tmp_path / 'mine'}", "data.source.image_size=8")
    few = (
        *("recipe.batch_size=8", "data.crop_padding=1"),
        *("table.methods=[soft_prune]", "table.references=false"),
    )
    result = call("sweep", *axes, *mine, *few, "table.forget=all")
    assert result.code == 130, result.err
    cells = planned[0]
    assert cells.grid["forget"] == ["[0]", "[1]", '["10"]', '["2"]']
    assert [folder.parent.name for folder, _ in cells.cells] == [
        "forget-0", "forget-1", "forget-10", "forget-2",
    ]  # fmt: skip


def test_without_references_nothing_is_retrained(call: Callable, tmp_path: Path):
    axes = ("table.references=false", "table.methods=[original]")
    result = call("sweep", *SMALL, *axes)
    assert result.code == 0, result.err
    assert len(list((tmp_path / "runs").rglob("model.ckpt"))) == 1
    assert "retrained models" not in result.err


def test_shadows_are_trained_before_the_methods_that_want_them(
    call: Callable, planned_until: Until
):
    """Each once, as a cell of its own, so that jobs share them."""
    planned = planned_until("unlearning methods")
    axes = [a for a in SMALL if "forget" not in a]
    few = ("metrics.shadows=6", "table.forget=[[3],[5]]", "table.methods=[mask_logit]")
    result = call("sweep", *axes, *few, "table.seeds=[4,5]")
    assert result.code == 130, result.err
    assert {title: len(phase.cells) for title, phase in planned.items()} == {
        "original models": 2,
        "retrained models": 4,
        "shadow models": 6,
        "retrained shadow models": 12,
        "unlearning methods": 8,
    }
    pools = [planned["shadow models"], planned["retrained shadow models"]]
    trained = {folder.name.rpartition("_")[0] for phase in pools for folder, _ in phase.cells}
    assert trained == {
        f"digits_resnet20_so_seed{k}_shadow{k}{without}"
        for k in range(6)
        for without in ("", "_without-3", "_without-5")
    }


def test_what_lasts_is_prepared_once_before_the_requests_that_want_it(
    call: Callable, planned_until: Until
):
    """One cell for each network; two requests would else wait for each other's preparation."""
    planned = planned_until("retrained models")
    axes = [a for a in SMALL if "forget" not in a]
    few = ("table.forget=[[3],[5]]", "table.methods=[mask_logit,class_transport,soft_prune]")
    result = call("sweep", *axes, *few, "table.seeds=[4,5]")
    assert result.code == 130, result.err
    assert list(planned) == ["original models", "preparations", "retrained models"]
    preparations = planned["preparations"]
    assert preparations.grid["method"] == ["class_transport"]
    assert len({folder for folder, _ in preparations.cells}) == 2
    assert preparations.missing == 2


def test_each_method_is_compared_over_the_options_that_it_has(call: Callable, planned_until: Until):
    planned = planned_until("unlearning methods by rate, sites")
    few = ("table.methods=[mask_logit,soft_prune,fine_tune]", "table.references=false")
    options = "table.options={rate: [0.1, 0.25], sites: [last, convs], optimizer.lr: [1e-5]}"
    result = call("sweep", *SMALL, *few, options)
    assert result.code == 130, result.err
    assert {title: len(phase.cells) for title, phase in planned.items()} == {
        "original models": 1,
        "unlearning methods": 1,
        "unlearning methods by optimizer.lr": 1,
        "unlearning methods by rate, sites": 4,
    }
    assert planned["unlearning methods by rate, sites"].grid["method.rate"] == ["0.1", "0.25"]
    assert len({folder for phase in planned.values() for folder, _ in phase.cells}) == 7


def test_the_planned_cells_are_the_ones_that_run(call: Callable, tmp_path: Path):
    few = ("table.methods=[soft_prune]", "table.references=false")
    options = "table.options={rate: [0.1, 0.5], sites: [last]}"
    result = call("sweep", *SMALL, *few, options)
    assert result.code == 0, result.err
    table = json.loads((tmp_path / "runs/tables/digits/table.json").read_text())
    assert [row["method"] for row in table["rows"]] == [
        "soft_prune #rate=0.1", "soft_prune #rate=0.5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("{rats: [0.1]}", "none of them has rats"),
        ("{rate: []}", "a list of values"),
        ("{rate: 0.1}", "a list"),
        ("[0.1]", "a list"),
    ],
)
def test_options_that_compare_nothing_are_refused(
    call: Callable, options: str, why: str, tmp_path: Path
):
    few = "table.methods=[soft_prune,mask_logit]"
    result = call("sweep", *SMALL, few, f"table.options={options}")
    assert result.code == 2
    assert why in result.err
    assert not (tmp_path / "runs").exists()


def test_nothing_is_prepared_for_requests_that_are_done(
    call: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan, "_is_finished", lambda _: True)
    planned: list[str] = []
    monkeypatch.setattr(sweep, "_run", lambda phase, _: planned.append(phase.title))
    monkeypatch.setattr(plan, "_is_trained", lambda _: True)
    call("sweep", *SMALL, "table.methods=[class_transport]")
    assert planned == []


def test_steps_of_a_sequence_are_planned_one_after_the_other(
    call: Callable, monkeypatch: pytest.MonkeyPatch
):
    planned: list[plan.Phase] = []

    def record(phase: plan.Phase, _: object) -> None:
        planned.append(phase)
        if len(planned) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "_run", record)
    axes = ("table.sequence=true", "table.forget=[3,[8,6]]", "table.methods=[original]")
    assert call("sweep", *SMALL, *axes).code == 130
    assert [phase.title for phase in planned] == [
        "original models", "retrained models",
        "unlearning methods, step 1", "unlearning methods, step 2",
    ]  # fmt: skip
    assert planned[1].grid["without"] == ["[3]", "[3,6,8]"]
    steps = [(phase.grid["after"], phase.grid["forget"]) for phase in planned[2:]]
    assert steps == [(["[]"], ["[3]"]), (["[[3]]"], ["[6,8]"])]
    folders = [phase.cells[0][0].parent.name for phase in planned[2:]]
    assert folders == ["forget-3", "forget-3-then-6+8"]


def test_references_of_all_seeds_are_trained_before_any_audit_wants_them(
    call: Callable, planned: list[plan.Phase], monkeypatch: pytest.MonkeyPatch
):
    """Two audits that want the same one would wait for each other's training of it."""
    ready = plan._is_trained
    monkeypatch.setattr(
        plan, "_is_trained", lambda stored: "without" not in stored.folder.name or ready(stored)
    )
    axes = ("table.methods=[mask_logit]", "metrics.reference_seeds=[0,1,2]")
    result = call("sweep", *SMALL, *axes)
    assert result.code == 130, result.err
    names = [folder.name.rpartition("_")[0] for folder, _ in planned[0].cells]
    assert names == [f"digits_resnet20_so_seed{seed}_without-3" for seed in (0, 1, 2)]


@pytest.mark.slow
def test_sweep_makes_a_table_of_a_sequence(call: Callable, tmp_path: Path):
    axes = ("table.sequence=true", "table.forget=[3,8]", "table.methods=[mask_logit]")
    result = call("sweep", *SMALL, *axes)
    assert result.code == 0, result.err
    assert "unlearning methods, step 2: 2/2 done" in result.err
    table = json.loads((tmp_path / "runs/tables/digits_sequence/table.json").read_text())
    drifts = {row["step"]: row["metrics"]["drift/retain_test"] for row in table["rows"]
              if row["method"] == "mask_logit"}  # fmt: skip
    assert sorted(drifts) == [1, 2]
    assert drifts[2]["mean"] >= 0  # fewer rivals for each image, and nothing else changed
    assert len(list((tmp_path / "runs").rglob("metrics.json"))) == 3 + 2 * 2
    again = call("sweep", *SMALL, *axes)
    assert "0 to run" in again.err


def test_launcher_threads_and_overrides_reach_the_cells(
    call: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    commands = []

    def record(command: list[str], **options: object) -> subprocess.CompletedProcess:
        commands.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 1, "", "stopped here")

    monkeypatch.setattr(subprocess, "run", record)
    (tmp_path / "mine").mkdir()
    own = ("--config-dir", "mine", "table.launcher=submitit_slurm", "table.jobs=2")
    result = call("sweep", *own, *SMALL, "table.methods=[original]")
    assert "stopped here" in result.err
    command, environment = commands[0]
    assert "hydra/launcher=submitit_slurm" in command
    assert command[command.index("--config-dir") + 1] == str(tmp_path / "mine")
    assert {"model=resnet20", "regularizer=so", "seed=0", "model.width=4"} <= set(command)
    assert int(environment["OMP_NUM_THREADS"]) >= 1
