"""Figures: what they show is what the run files say."""

import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from orthounlearn.metrics.roc import CURVE_FPR
from orthounlearn.report.cases import MOST, Case, make_cases
from orthounlearn.report.collect import Run
from orthounlearn.report.export import plates
from orthounlearn.report.figures import details, options, overviews, timings
from orthounlearn.report.figures.confusion import confusion
from orthounlearn.report.figures.density_confidence import draw as draw_confidence
from orthounlearn.report.figures.front import draw_front, front
from orthounlearn.report.rows import Cell, Row, make_rows
from orthounlearn.report.style import Look, looks
from tests.report.toy_runs import CLASSES, METHODS, write_runs

CORE = ("original", "retrain", "mask_logit", "soft_prune", "soft_prune_literal", "class_transport",
        "fine_tune", "gradient_ascent")  # fmt: skip


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return make_cases(write_runs(tmp_path_factory.mktemp("runs")), looks(METHODS))


@pytest.fixture(scope="module")
def case(cases: list[Case]) -> Case:
    return cases[0]


def detail(name: str):
    return next(figure for figure in details() if figure.name == name)


def test_runs_are_grouped_by_request_with_references_first(cases: list[Case]):
    titles = [case.title for case in cases]
    expected = product("AB", ("cat", "dog"))
    assert titles == [f"toy, net{n}, orthogonal loss: so: forget {name}" for n, name in expected]
    for case in cases:
        assert case.methods == list(METHODS)
        assert [run.seed for run in case.runs["soft_prune"]] == [0, 1]
        assert case.values("acc/retain_test")["soft_prune"] == pytest.approx(0.885)


def test_references_without_a_run_are_what_others_say_of_them(tmp_path: Path):
    (case,) = make_cases(
        write_runs(tmp_path, models=["n"], methods=["soft_prune"], forgets=["cat"]),
        looks(["soft_prune"]),
    )
    assert list(case.values("acc/retain_test")) == ["original", "retrain", "soft_prune"]
    assert case.values("acc/retain_test")["retrain"] == pytest.approx(0.915)


def test_every_figure_draws_what_runs_have_and_nothing_without(cases: list[Case], tmp_path: Path):
    runs = [run for case in cases for group in case.runs.values() for run in group]
    rows = [*make_rows(runs), *settings_of_one()]
    for figure in overviews():
        assert figure.draw(rows, looks(row.method for row in rows)).data, figure.name
        assert figure.draw([], {}) is None, figure.name
    bare = make_cases(
        write_runs(tmp_path, models=["n"], methods=["original"], outputs=False), looks(METHODS)
    )[0]
    for run in bare.runs["original"]:
        run.metrics.clear(), run.original.clear(), run.retrained.clear()
    for figure in details():
        assert figure.draw(cases[0]).data, figure.name
        assert figure.draw(bare) is None, figure.name
    everything = [*overviews(), *details()]
    assert len({figure.name for figure in everything}) == len(everything)
    assert len({figure.place for figure in everything}) == len(everything)


def test_per_class_is_the_difference_to_the_original(case: Case):
    (heat,) = detail("per-class").draw(case).data
    assert list(heat.x) == ["forgotten", "ant", "bee", "dog"]
    methods = list(heat.y)
    np.testing.assert_allclose(heat.z[methods.index("original")], 0)
    np.testing.assert_allclose(heat.z[methods.index("soft_prune")], [-100, -2, -2, -2])
    np.testing.assert_allclose(heat.text[methods.index("soft_prune")], [0, 88, 88, 88])


def test_confusion_counts_names_and_shares(case: Case):
    table = confusion(case, "original")
    np.testing.assert_allclose(table.sum(1), 100, atol=0.05)
    assert (np.diag(table) > 90).all()
    masked = confusion(case, "mask_logit")
    forgotten = CLASSES.index("cat")
    assert masked[forgotten, forgotten] == 0
    figure = detail("confusion").draw(case)
    assert [note.text for note in figure.layout.annotations] == [
        "original",
        "after soft_prune",
        "retrain",
    ]
    assert list(figure.data[1].x) == list(CLASSES)
    chosen = {b.label: b.args[0]["z"][0] for b in figure.layout.updatemenus[0].buttons}
    np.testing.assert_array_equal(chosen["mask_logit"], masked)


def test_of_many_classes_the_forgotten_one_is_kept_and_no_image_is_lost(tmp_path: Path):
    classes = [f"c{i:02d}" for i in range(40)]
    (case,) = make_cases(
        write_runs(tmp_path, models=["n"], forgets=["c31"], seeds=[0], classes=classes),
        looks(METHODS),
    )
    figure = detail("confusion").draw(case)
    names = list(figure.data[0].x)
    assert len(names) == 14
    assert "c31" in names
    assert names[-1] == "other"
    np.testing.assert_allclose(np.sum(figure.data[1].z, axis=1), 100, atol=0.1)
    assert len(detail("per-class").draw(case).data[0].x) == 24


def test_roc_is_the_mean_over_seeds_of_every_attack_that_some_run_has(case: Case):
    figure = detail("roc").draw(case)
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["confidence, or margin", "shadows: RMIA"]
    lines = [line for line in figure.data if line.name == "soft_prune"]
    assert [line.showlegend for line in lines] == [True, False]
    exponent = 1 - 0.5 * 0.9
    expected = (CURVE_FPR**exponent + CURVE_FPR ** (exponent - 0.01)) / 2
    expected[CURVE_FPR < 1 / 40] = np.nan
    np.testing.assert_allclose(lines[0].y, expected, rtol=1e-5)
    assert figure.layout.xaxis.range[0] == pytest.approx(np.log10(0.02512), abs=1e-4)


def test_curves_of_references_stand_in_where_these_have_no_run(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], methods=["soft_prune"], forgets=["cat"])
    (case,) = make_cases(runs, looks(METHODS))
    own, told = (case.curves(method, "relearn") for method in ("soft_prune", "original"))
    assert [sorted(run) for run in own] == [["lr0.01/forget", "lr0.01/retain", "lr0.01/steps"]] * 2
    for ours, theirs in zip(own, told, strict=True):
        np.testing.assert_array_equal(theirs["lr0.01/forget"], ours["lr0.01/forget"] + 1)
    assert case.curves("retrain", "relearn") == case.curves("mask_logit", "roc") == []
    lines = {line.name for line in detail("relearn").draw(case).data}
    assert lines == {"original", "soft_prune"}


def test_a_density_has_area_one_and_the_threshold_says_what_it_splits(case: Case):
    figure = draw_confidence(case)
    rows = len(case.methods)
    x, y = np.asarray(figure.data[0].x), np.asarray(figure.data[0].y)
    assert y.sum() * (x[1] - x[0]) == pytest.approx(1, abs=0.02)
    slider = figure.layout.sliders[0]
    label = CLASSES.index("cat")
    for step in (slider.steps[0], slider.steps[25], slider.steps[-1]):
        moved = step.args[0]
        cut, text = moved["shapes[0].x0"], moved[f"annotations[{rows}].text"]
        odds = []
        for split in ("forget_train", "forget_test"):
            told = np.concatenate([a for a, _ in case.answers("original", split)]).astype(float)
            odds.append(told[:, label] - np.log(np.exp(np.delete(told, label, 1)).sum(1)))
        hit, wrong = (float(np.mean(values >= cut)) for values in odds)
        share, trained, unseen = map(int, re.findall(r"(\d+)%", text))
        assert trained == pytest.approx(100 * hit, abs=0.51)
        assert unseen == pytest.approx(100 * wrong, abs=0.51)
        assert share == pytest.approx(50 * (1 + hit - wrong), abs=0.51)


def test_likeness_is_drawn_over_the_blocks_in_their_order(case: Case):
    figure = detail("similarity").draw(case)
    titles = [note.text for note in figure.layout.annotations]
    assert titles == [
        "to the original, forgotten images", "to retrain, forgotten images",
        "to the original, retained images", "to retrain, retained images",
    ]  # fmt: skip
    assert len(figure.data) == 4 * len(METHODS)
    for line in figure.data:
        assert list(line.x) == [1, 2, 10]
        np.testing.assert_allclose(line.y, [0.98, 0.96, 0.8])


def test_channels_are_those_of_the_file(case: Case):
    layers, scores, shared = detail("channels").draw(case).data
    assert [name.partition(" ")[0] for name in layers.y] == ["early", "late"]
    forgotten = CLASSES.index("cat")
    expected = np.zeros((2, 9))
    expected[:, forgotten], expected[:, forgotten + 1] = 100, 50
    expected[0, 5:] = -1  # beyond the channels of the first layer
    np.testing.assert_array_equal(layers.z, expected)
    assert "40%" in layers.y[0]
    assert sorted(np.round(scores.x, 2)) == sorted([1, 0.25, *[-0.5] * 5] * 2)
    assert dict(zip(np.round(scores.x, 2), scores.y, strict=True)) == {1.0: 100, 0.25: 50, -0.5: 0}
    # Neighbours share one of three channels, others none.
    index = np.arange(len(CLASSES))
    distance = np.abs(index[:, None] - index)
    np.testing.assert_allclose(
        shared.z, np.select([distance == 0, distance == 1], [100, 33.3]), atol=0.01
    )
    assert list(shared.x) == list(CLASSES)


def test_pictures_stand_over_what_each_network_calls_them(case: Case):
    figure = detail("gallery").draw(case)
    assert len(figure.layout.images) == 10
    picture = Image.open(BytesIO(b64decode(figure.layout.images[-1].source.partition(",")[2])))
    assert picture.size == (6, 6)
    assert picture.getpixel((0, 0)) == (100, 100, 100)
    truth, before, after, retrained = (list(line.text) for line in figure.data)
    assert truth[:5] == ["<b>cat</b>"] * 5
    assert truth[5:] == ["<b>ant</b>"] * 2 + ["<b>bee</b>"] + ["<b>dog</b>"] * 2
    assert figure.layout.yaxis.ticktext[:4] == (
        "<b>true class</b>", "original", "soft_prune", "retrain"
    )  # fmt: skip
    rows = [0, 7, 14, 21, 28]
    for texts, method in ((before, "original"), (after, "soft_prune"), (retrained, "retrain")):
        told = [case.answers_of_seed(method, s, 0)[0][rows] for s in ("forget_test", "retain_test")]
        logits = np.concatenate(told).astype(float)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        for text, share in zip(texts, odds / odds.sum(1, keepdims=True), strict=True):
            assert f"{CLASSES[share.argmax()]} {share.max():.0%}" in text
            assert ("<span" in text) == (share.argmax() == CLASSES.index("cat"))
    chosen = {button.label: button for button in figure.layout.updatemenus[0].buttons}
    assert list(chosen) == ["soft_prune", "mask_logit", "fine_tune"]
    changed, ticks, traces = chosen["mask_logit"].args
    assert (traces, ticks["yaxis.ticktext"][2]) == ((2,), "mask_logit")
    assert "cat" not in "".join(changed["text"][0])


def row(method: str, cost: float, utility: float, step: int = 1) -> Row:
    cells = {"cost": cost, "acc/retain_test": utility}
    return Row(
        "d",
        "m",
        "r",
        method,
        step,
        None,
        {k: Cell(v, None, None, 1, None) for k, v in cells.items()},
    )


def test_the_front_has_whom_nobody_beats_and_no_reference():
    rows = [row("original", 1.0, 0.9), row("retrain", 0.0, 0.95), row("best", -0.1, 0.8),
            row("useful", 0.5, 0.9), row("beaten", 0.6, 0.85), row("twin", 0.5, 0.9)]  # fmt: skip
    assert [r.method for r in front(rows, "cost")] == ["best", "useful", "twin"]


@pytest.mark.parametrize("log", [False, True])
def test_the_axes_of_a_front_show_every_mark_and_no_interval_widens_them(log: bool):
    def figure(half: float) -> go.Figure:
        rows = [row("original", 1.0, 0.9), row("retrain", 0.01, 0.95), row("ours", 0.1, 0.8)]
        for one in rows:
            one.metrics["cost"] = Cell(c := one.metrics["cost"].mean, c - half, c + half, 2, None)
        return draw_front(
            rows, looks([r.method for r in rows]), key="cost", scale=10, title="", log=log
        )

    narrow, wide = figure(0.001), figure(50.0)
    for axis in ("xaxis", "yaxis"):
        low, high = narrow.layout[axis].range
        assert wide.layout[axis].range == (low, high)
        marks = [x for one in narrow.data if one.name != "front" for x in one[axis[0]]]
        if log and axis == "xaxis":
            marks = np.log10(marks)
        assert low < min(marks) < max(marks) < high
        assert high - low < 1.2 * (max(marks) - min(marks))


def drawn_front(rows: list[Row]) -> go.Figure:
    return draw_front(rows, looks(r.method for r in rows), key="cost", scale=1, title="")


def test_later_steps_of_a_sequence_are_no_single_requests():
    rows = [row("ours", 0.5, 0.9), row("ours", 0.0, 0.95, step=2)]
    figure = drawn_front(rows)
    assert [(line.name, list(line.x)) for line in figure.data] == [
        ("front", [0.5]),
        ("ours", [0.5]),
    ]


def test_a_method_that_collapsed_stands_at_the_edge_and_leaves_the_others_room():
    good = [row(f"m{i}", i / 10, 0.9 - i / 100) for i in range(5)]
    figure = drawn_front([*good, row("broken", -0.2, 0.1)])
    (broken,) = (line for line in figure.data if line.name == "broken")
    low, high = figure.layout.yaxis.range
    assert list(broken.y) == [low]
    assert low > 75
    assert high < 95
    assert list(broken.text) == ["▼ 10"]
    assert "10.0 %" in broken.hovertemplate
    assert drawn_front(good).layout.yaxis.range[0] > 85


def test_labels_at_the_edge_that_would_meet_stand_above_each_other():
    good = [row(f"m{i}", i / 10, 0.9 - i / 100) for i in range(11)]
    figure = drawn_front([*good, row("one", 0.40, 0.1), row("two", 0.41, 0.2), row("far", 0.9, 0)])
    texts = {line.name: line.text[0] for line in figure.data if line.text}
    assert texts == {"one": "▼ 10", "two": "▼ 20<br> ", "far": "▼ 0"}


def settings_of_one() -> list[Row]:
    """Rows of soft pruning with two options that differ, on two kinds of original."""
    return [
        Row(
            "toy", model, "so", f"soft_prune #rate={rate} sites={sites}", 1, None,
            {key: Cell(rate * share, None, None, 1, None) for key, share in
             (("acc/retain_test", 0.9), ("acc/forget_test", 0.5), ("probe/k50", 0.7))},
            {"rate": rate, "sites": sites, "floor": 1.0},
        )
        for model, rate, sites in product(("netA", "netB"), (0.3, 0.1, 0.2), ("last", "convs"))
    ]  # fmt: skip


def test_an_option_is_drawn_over_its_numbers_a_line_for_each_choice_of_the_others():
    references = [replace(row("original", 0, 0.95), data="toy", model="netA", regularizer="so")]
    rows = [*references, *settings_of_one()]
    figure = options.draw(rows, {})
    lines = [line for line in figure.data if line.mode == "lines+markers"]
    assert len(lines) == 2 * 3 * 2  # originals, measures, sites
    assert {line.name for line in lines} == {"sites=last", "sites=convs"}
    assert list(lines[0].x) == [0.1, 0.2, 0.3]
    assert list(lines[0].y) == pytest.approx([9.0, 18.0, 27.0])
    assert {title.text for title in figure.select_xaxes() for title in [title.title]} == {
        "rate of soft_prune"
    }
    (reference,) = figure.layout.shapes
    assert reference.y0 == pytest.approx(95)
    two_values = [one for one in settings_of_one() if one.options["rate"] != 0.3]
    assert options.draw(two_values, {}) is None


def renamed(runs: Sequence[Run], **names: str) -> list[Run]:
    """Return the runs of some methods under other names: new name -> method."""
    return [replace(r, method=name) for name, old in names.items() for r in runs if r.method == old]


def test_of_many_methods_figures_of_curves_show_some_and_keep_the_others_at_hand(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], forgets=["cat"], seeds=[0])
    good = renamed(runs, **{f"rival{i:02d}": "fine_tune" for i in range(20)})
    for run in good:
        run.metrics["verdict/ok"] = 0.0
    best = replace(good[13], metrics=good[13].metrics | {"verdict/ok": 1.0})
    many = [*runs, *good[:13], best, *good[14:], *renamed(runs, class_transport="soft_prune")]
    (case,) = make_cases(many, looks(run.method for run in many))
    assert case.rivals[:2] == ["class_transport", "soft_prune"]
    few = case.prominent
    assert len(few) == MOST
    assert {"original", "retrain", "soft_prune", "class_transport", "rival13"} <= set(few)
    assert few == [method for method in case.methods if method in few]
    for name in ("roc", "depth", "similarity", "relearn"):
        lines = [line for line in detail(name).draw(case).data if line.name != "coin"]
        assert {line.name for line in lines} == set(case.methods), name
        assert {line.name for line in lines if line.visible is True} == set(few), name
    density = draw_confidence(case)
    rows = [note.text for note in density.layout.annotations[:MOST]]
    assert rows == few
    assert density.layout.margin.l > 6 * max(map(len, rows))
    still = {p.name.rpartition("/")[2]: p.drawing for p in plates(many, make_rows(many))}
    assert {line.name for line in still["depth"].data} == set(few)


def test_a_reference_with_a_run_of_its_own_speaks_for_itself(tmp_path: Path):
    methods = ("retrain", "soft_prune")
    runs = write_runs(tmp_path, models=["n"], methods=methods, forgets=["cat"])
    for run in runs:
        told = np.full((40, 4), run.seed, np.float16)
        both = {f"{name}/logits/forget_test": told for name in ("original", "retrained")}
        np.savez(run.folder / "references.npz", **both)
    (case,) = make_cases(runs, looks(methods))
    assert [logits[0, 0] for logits, _ in case.answers("original", "forget_test")] == [0, 1]
    assert case.answers_of_seed("original", "forget_test", 1)[0].dtype == np.float32
    assert (case.answers_of_seed("original", "forget_test", 1)[0] == 1).all()
    with np.load(case.runs["retrain"][1].folder / "outputs.npz") as own:
        np.testing.assert_array_equal(
            case.answers_of_seed("retrain", "forget_test", 1)[0], own["logits/forget_test"]
        )
    assert case.answers("original", "forget_train") == []
    assert case.answers("mask_logit", "forget_test") == []


def test_classes_of_earlier_requests_are_marked_too(tmp_path: Path):
    runs = write_runs(tmp_path, models=["n"], forgets=["cat"], seeds=[0])
    (case,) = make_cases([replace(run, after=(("ant",),)) for run in runs], looks(METHODS))
    texts = [text for line in detail("gallery").draw(case).data[1:] for text in line.text]
    assert any("ant" in text for text in texts)
    for text in texts:
        assert ("<span" in text) == ("cat" in text or "ant" in text)


def test_numbers_stand_in_the_confusion_and_no_zeros(case: Case):
    figure = detail("confusion").draw(case)
    for panel in figure.data:
        for shares, texts in zip(panel.z, panel.text, strict=True):
            assert list(texts) == [f"{share:.0f}" if share > 0.5 else "" for share in shares]
    button = figure.layout.updatemenus[0].buttons[1]
    assert len(button.args[0]["text"][0]) == len(button.args[0]["z"][0])


def test_methods_without_channels_are_named(case: Case):
    notes = [note.text for note in detail("channels").draw(case).layout.annotations]
    assert notes[-1] == "no record of channels: mask_logit, fine_tune"


def test_what_prepares_nothing_has_no_mark_of_preparation():
    def timed(method: str, seconds: float) -> Row:
        times = {"time/prep_s": seconds, "time/unlearn_s": 1.0}
        cells = {key: Cell(value, None, None, 1, None) for key, value in times.items()}
        return Row("d", "m", "r", method, 1, None, cells)

    rows = [timed("ours", 0.004), timed("original", 5e-6)]
    figure = timings.draw(rows, looks(["ours"]))
    marks = {line.name: list(line.y) for line in figure.data if line.mode == "markers"}
    assert list(marks.values()) == [["ours"], ["ours", "original"]]


def test_thirty_six_methods_can_be_told_apart():
    methods = [*METHODS, *(f"rival{i}" for i in range(31))]
    found = looks(methods)
    assert len({found[method] for method in methods}) == len(methods)
    assert found == looks(list(methods))
    assert isinstance(found["rival0"], Look)
    lines = [(look.colour, look.dash) for look in looks(CORE).values()]
    assert len(set(lines)) == len(CORE)  # curves without marks too
