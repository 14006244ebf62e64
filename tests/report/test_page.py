"""The page: whole, self-contained, safe, and small enough."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from orthounlearn.report import page
from orthounlearn.report.collect import Run
from orthounlearn.report.columns import columns
from orthounlearn.report.page import render_page
from orthounlearn.report.rows import make_rows
from tests.report.toy_runs import METHODS, write_runs

NASTY = 'x</script><img src=y onerror="z()">&<b>'


def render(runs: list[Run], root: Path, **options: object) -> str:
    rows = make_rows(runs)
    options = {"name": "toy", "command": None, "root": root} | options
    return render_page(runs, rows, columns(rows), **options)


class Elements(HTMLParser):
    """Tags, attributes, and the texts of scripts by id."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "script":
            key = attributes.get("id", "")
            self.scripts[key] = self.scripts.get(key, "") + data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_needs_nothing_else_and_names_every_run(tmp_path: Path):
    runs = write_runs(tmp_path, forgets=["cat"], seeds=[0])
    text = render(runs, tmp_path, command="make reproduce-table", problems=["bad: folder"])
    elements = Elements(text)
    for tag, attributes in elements.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, name, value)
    styles = "".join(re.findall(r"<style>.*?</style>", text, re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    assert text.count(get_plotlyjs()[:2000]) == 1
    assert "make reproduce-table" in text
    assert "bad: folder" in text
    for run in runs:
        assert str(run.folder.relative_to(tmp_path)) in text
    assert len(text) - len(get_plotlyjs()) < 2_000_000


def test_cells_carry_number_bar_hover_and_what_they_are_sorted_by(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], forgets=["cat"], outputs=False)
    text = render(runs, tmp_path)
    table = text[text.index('<table id="table">') :]
    elements = Elements(table[: table.index("</table>")])
    headings = elements.of("th")
    hovers = [heading.get("title") for heading in headings]
    formula = "accuracy on unseen images of the other classes (TA)"
    assert f"{formula}; best at the retrained model's own value" in hovers
    cells = [c for c in elements.of("td") if c.get("title", "").startswith("Retain test")]
    assert [round(float(c["data-sort"]), 3) for c in cells] == [
        0.905,
        0.915,
        0.925,
        0.885,
        0.805,
    ]
    assert cells[0]["title"] == (
        "Retain test % →R: 90.5 ± 6.4 over 2 runs; 95 % interval 84.1 to 96.9; retrained: 91.5"
    )
    marks = [float(c["cx"]) for c in elements.of("circle")][: len(cells)]
    assert marks
    badges = [a["class"] for a in elements.of("span")]
    assert "badge head_only" in badges


def test_names_of_users_are_text_and_never_code(tmp_path: Path):
    classes = ("ant", NASTY, "cat")
    runs = write_runs(tmp_path, models=["n"], forgets=["cat"], classes=classes, outputs=False)
    elements = Elements(render(runs, tmp_path, name=NASTY, command=NASTY, problems=[NASTY]))
    assert elements.of("img") == []
    specs = json.loads(elements.scripts["case-0"])
    assert NASTY in specs["routing"]["data"][0]["x"]


def test_a_page_shows_some_requests_of_very_many_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(page, "MOST_CASES", 2)
    runs = write_runs(tmp_path, models=["a", "b", "c"], methods=METHODS[:3], outputs=False)
    text = render(runs, tmp_path)
    assert len(Elements(text).of("option")) == 2 + sum(n + 1 for n in (3, 3))  # with "all"
    assert "4 more requests are in the table" in text


def test_one_run_alone_gives_a_page(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], methods=["fine_tune"], forgets=["cat"], seeds=[0])
    elements = Elements(text := render(runs, tmp_path))
    assert "1 run, 1 row." in text
    assert {"depth", "confidence", "gallery"} <= json.loads(elements.scripts["case-0"]).keys()


def test_a_figure_of_files_that_older_runs_lack_says_how_to_get_it(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], forgets=["cat"], seeds=[0], outputs=False)
    for run in runs:
        for key in [key for key in run.metrics if key.startswith("cka/")]:
            del run.metrics[key]
    elements = Elements(render(runs, tmp_path))
    figures = {a["id"] for a in elements.of("figure")}
    assert {"gallery", "channels", "similarity", "relearn", "roc"} <= figures
    assert "confusion" not in figures
    specs = json.loads(elements.scripts["case-0"])
    assert specs.keys() == {"per-class", "routing", "depth"}
    notes = [a for a in elements.of("p") if "missing" in a.get("class", "")]
    assert len(notes) == 5
