"""The specification of a W&B workspace and report, built and looked at without a network."""

import json
import sys
import warnings

import pytest

from orthounlearn.errors import UsageError
from orthounlearn.report import wandb_workspace
from orthounlearn.report.columns import columns
from orthounlearn.report.rows import make_rows
from tests.report.toy_runs import METHODS, write_runs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the package, about its own use of another
    reports = pytest.importorskip("wandb_workspaces.reports.v2")
    pytest.importorskip("wandb_workspaces.workspaces")


ABOUT = {
    "command": None,
    "environment": {"git": "abc", "device": "cpu", "versions": {"torch": "9.9"}},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory):
    rows = make_rows(write_runs(tmp_path_factory.mktemp("runs"), outputs=False))
    return rows, columns(rows)


def test_the_workspace_asks_the_questions_of_the_table(table):
    _, keys = table
    model = wandb_workspace.workspace("lab", "unlearning", keys, name="toy")._to_model()
    spec = json.loads(model.model_dump_json(by_alias=True))
    assert (spec["entity"], spec["project"], spec["displayName"]) == (
        "lab", "unlearning", "Unlearning: toy"
    )  # fmt: skip
    sections = spec["spec"]["section"]["panelBankConfig"]["sections"]
    names = [section["name"] for section in sections]
    assert names[:3] == ["Is it still useful?", "Has it forgotten?", "Can members be told?"]
    assert names[-2:] == ["Run by run", "Training"]
    panels = [panel for section in sections for panel in section["panels"]]
    bars = [p["config"] for p in panels if p["viewType"] == "Bar Chart"]
    shown = [metric for config in bars for metric in config["metrics"]]
    assert sorted(shown) == sorted(f"unlearned/{key}" for key in keys if key != "verdict")
    assert {config["groupBy"] for config in bars} == {"method.value.name"}
    (trade,) = (p["config"] for p in panels if p["viewType"] == "Scatter Plot")
    assert trade["xAxis"] == "summary:unlearned/probe/k50"
    assert trade["yAxis"] == "summary:unlearned/acc/retain_test"
    assert "figures/gallery" in json.dumps(spec)
    assert "tables/per_class" in json.dumps(spec)


def test_the_report_has_the_table_and_says_what_made_it(table):
    rows, keys = table
    written = wandb_workspace.report(
        "lab", "unlearning", rows, keys, name="toy", **ABOUT | {"command": "make x"}
    )
    (text,) = (b.text for b in written.blocks if isinstance(b, reports.MarkdownBlock))
    assert all(method in text for method in METHODS)
    assert text.startswith("Code abc, torch 9.9, cpu.")
    grids = [block for block in written.blocks if isinstance(block, reports.PanelGrid)]
    assert len(grids) == 4  # nothing of likeness to retraining is in the table
    assert {runset.project for grid in grids for runset in grid.runsets} == {"unlearning"}
    (code,) = (block for block in written.blocks if isinstance(block, reports.CodeBlock))
    assert code.code == "make x"


def test_what_cannot_be_published_is_said(table, monkeypatch: pytest.MonkeyPatch):
    rows, keys = table
    for target in ("project", "/project", "lab/", "lab/a/b"):
        with pytest.raises(UsageError, match="ENTITY/PROJECT"):
            wandb_workspace.publish(target, rows, keys, name="toy", **ABOUT)

    def refused(_: object) -> None:
        raise ValueError("not logged in")

    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.save", refused)
    with pytest.raises(UsageError, match=r"not logged in.*wandb login"):
        wandb_workspace.publish("lab/unlearning", rows, keys, name="toy", **ABOUT)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(UsageError, match=r"pip install 'orthounlearn\[workspaces\]'"):
        wandb_workspace.publish("lab/unlearning", rows, keys, name="toy", **ABOUT)


def test_addresses_are_those_of_both(table, monkeypatch: pytest.MonkeyPatch):
    saved: list[object] = []
    for kind in ("wandb_workspaces.workspaces.Workspace", "wandb_workspaces.reports.v2.Report"):
        monkeypatch.setattr(f"{kind}.save", lambda one: saved.append(one) or one)
        monkeypatch.setattr(f"{kind}.url", property(lambda one: type(one).__name__), raising=False)
    rows, keys = table
    found = wandb_workspace.publish("lab/unlearning", rows, keys, name="toy", **ABOUT)
    assert found == ["Workspace", "Report"]
    assert len(saved) == 2
