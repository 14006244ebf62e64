"""Figures for a paper: files with captions, drawn by a real browser."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from orthounlearn.errors import UsageError
from orthounlearn.report import export
from orthounlearn.report.export import plates, write_figures
from orthounlearn.report.rows import make_rows
from tests.report.browser import browser_path
from tests.report.toy_runs import write_runs


def test_every_figure_becomes_a_still_plate_with_its_caption(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], forgets=["dog"], seeds=[0])
    found = list(plates(runs, make_rows(runs)))
    names = [plate.name for plate in found]
    of_others = {
        f"toy_n_so_forget-dog/{figure}-{method}"
        for figure in ("confusion", "gallery")
        for method in ("mask_logit", "fine_tune")
    }
    assert len(set(names)) == len(names) == 4 + 11 + len(of_others)
    assert of_others < set(names)
    for plate in found:
        assert not plate.drawing.layout.sliders
        assert not plate.drawing.layout.updatemenus
        assert plate.drawing.layout.height
        assert "slider" not in plate.caption
        assert "menu" not in plate.caption
    assert "forget dog" in found[-1].caption
    captions = {plate.name.rpartition("/")[2]: plate.caption for plate in found}
    assert captions["gallery-soft_prune"].startswith(
        "Images before and after, toy, n, orthogonal loss: so: "
    )
    assert "forget dog, soft_prune. " in captions["gallery-soft_prune"]


def test_each_entry_of_a_menu_is_a_plate_of_its_own(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], forgets=["dog"], seeds=[0])
    drawn = {plate.name.rpartition("/")[2]: plate for plate in plates(runs, make_rows(runs))}
    masked, tuned = drawn["confusion-mask_logit"], drawn["confusion-fine_tune"]
    assert "fine_tune. " in tuned.caption
    titles = [{text.text for text in one.drawing.layout.annotations} for one in (masked, tuned)]
    assert titles[0] ^ titles[1] == {"after mask_logit", "after fine_tune"}
    same = [
        np.array_equal(one.z, other.z)
        for one, other in zip(masked.drawing.data, tuned.drawing.data, strict=True)
    ]
    assert same == [True, False, True]  # original, the method, retrained


def test_files_are_what_their_names_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BROWSER_PATH", browser_path())
    runs = write_runs(tmp_path, models=["n"], forgets=["cat"], outputs=False)
    monkeypatch.setattr(export, "plates", lambda *a: islice(plates(*a), 4, 6))
    assert write_figures(tmp_path / "figures", runs, make_rows(runs)) == 2
    folder = tmp_path / "figures" / "toy_n_so_forget-cat"
    for name in ("per-class", "routing"):
        assert (folder / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert (folder / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"
    captions = (tmp_path / "figures" / "captions.md").read_text()
    assert "**toy_n_so_forget-cat/routing**: Where forgotten images go, toy, n" in captions


def test_without_a_browser_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="BROWSER_PATH"):
        write_figures(tmp_path / "figures", [], [])
