"""The page in a real browser: it draws, it moves, it sorts, it filters, it prints, offline."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from orthounlearn.metrics.verdict import TITLES
from tests.report.browser import browser
from tests.report.test_page import render
from tests.report.toy_runs import METHODS, write_runs

DRAWN = {"front-leakage", "front-membership", "front-time", "timings", "gallery", "per-class",
         "routing", "confusion", "confidence", "entropy", "roc", "depth", "similarity", "relearn",
         "channels"}  # fmt: skip

MARKS = "path.point, path.js-line, .heatmaplayer image, .imagelayer image, .imagelayer-above image"
"""What Plotly draws of data, in every kind of figure that there is."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    path = root / "report.html"
    path.write_text(render(write_runs(root, forgets=["cat"], seeds=[0]), root), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(file: Path) -> Iterator[Page]:
    """The page, without network; what it complains of fails the test that made it."""
    with browser() as opened:
        context = opened.new_context(offline=True, color_scheme="light")
        context.set_default_timeout(500_000)  # a busy machine is no reason to fail
        page = context.new_page()
        page.complaints = []  # type: ignore[attr-defined]
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(file.as_uri())
        yield page
        assert page.complaints == []
        context.close()


def methods(page: Page) -> list[str]:
    return page.locator("#table tbody tr:visible th").all_inner_texts()


def test_every_figure_is_drawn_when_it_is_looked_at(page: Page):
    figures = page.locator("figure")
    assert {figures.nth(i).get_attribute("id") for i in range(figures.count())} == DRAWN
    for name in DRAWN:
        page.locator(f"#{name}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{name} :is({MARKS})", state="attached")
    assert page.complaints == []  # type: ignore[attr-defined]


def test_the_slider_moves_the_threshold_and_what_it_says(page: Page):
    figure = page.locator("#confidence")
    figure.scroll_into_view_if_needed()
    page.wait_for_selector("#confidence .slider-rail-touch-rect", state="attached")

    def state() -> tuple[str, str]:
        line = figure.locator(".shapelayer path").first.get_attribute("d")
        return line or "", figure.locator(".annotation-text").all_text_contents()[len(METHODS)]

    before = state()
    rail = figure.locator(".slider-rail-touch-rect").bounding_box()
    assert rail is not None
    page.mouse.click(rail["x"] + 0.9 * rail["width"], rail["y"] + rail["height"] / 2)
    page.wait_for_function(
        "line => document.querySelector('#confidence .shapelayer path').getAttribute('d') !== line",
        arg=before[0],
    )
    after = state()
    assert after[1] != before[1]
    assert "right" in after[1]


def test_a_menu_is_not_covered_and_changes_the_figure(page: Page):
    for name, text in (("gallery", ".ytick"), ("confusion", ".annotation-text")):
        figure = page.locator(f"#{name}")
        figure.scroll_into_view_if_needed()
        page.wait_for_selector(f"#{name} :is({MARKS})", state="attached")
        figure.hover()  # Plotly's own buttons appear
        assert "mask_logit" not in "".join(figure.locator(text).all_text_contents())
        box = figure.locator(".updatemenu-header").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] < 420  # on a phone's screen too
        figure.locator(".updatemenu-header").click()
        figure.locator(".updatemenu-dropdown-button", has_text="mask_logit").click()
        page.wait_for_function(
            f"[...document.querySelectorAll('#{name} {text}')].some("
            "part => part.textContent.includes('mask_logit'))"
        )


def test_the_buttons_of_the_attacks_can_be_pressed(page: Page):
    figure = page.locator("#roc")
    figure.scroll_into_view_if_needed()
    page.wait_for_selector(f"#roc :is({MARKS})", state="attached")
    figure.locator(".updatemenu-button", has_text="whole curve").click()
    page.wait_for_function("document.querySelector('#roc .plot').layout.xaxis.type === 'linear'")


def test_another_request_is_shown(page: Page):
    page.locator("#roc").scroll_into_view_if_needed()
    page.wait_for_selector(f"#roc :is({MARKS})", state="attached")
    page.evaluate("document.querySelector('#roc .plot').data[0].name = 'of the first request'")
    page.select_option("#case", index=1)
    page.wait_for_function("document.querySelector('#roc .plot').data[0].name === 'coin'")
    assert page.locator("#case option:checked").inner_text().startswith("toy, netB")
    page.select_option("#case", index=0)


def test_a_request_without_the_files_of_a_figure_says_so(page: Page):
    note = page.locator("#channels .missing")
    assert not note.is_visible()
    page.evaluate(
        """() => {
            const holder = document.getElementById("case-1");
            const specs = JSON.parse(holder.textContent);
            delete specs.channels;
            holder.textContent = JSON.stringify(specs);
        }"""
    )
    page.select_option("#case", index=1)
    assert note.is_visible()
    assert not page.locator("#channels .plot").is_visible()
    page.select_option("#case", index=0)
    assert not note.is_visible()
    assert page.locator("#channels .plot").is_visible()


def test_the_table_sorts_both_ways_with_empty_cells_last(page: Page):
    heading = page.locator("#table th", has_text="Retain test")
    cells = "#table tbody td[title^='Retain test']"
    retained = f"[...document.querySelectorAll(`{cells}`)].map(cell => +cell.dataset.sort)"
    heading.locator("button").click()
    values = page.evaluate(retained)
    assert values == sorted(values)
    assert len(set(values)) > 3
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert page.evaluate(retained) == values[::-1]
    heading = page.locator("#table th", has_text="Method")
    heading.locator("button").click()
    assert methods(page) == sorted(methods(page))


def test_the_table_filters_by_all_that_is_chosen(page: Page):
    assert len(methods(page)) == 2 * len(METHODS)
    page.select_option("[data-filter=method]", "soft_prune")
    assert methods(page) == ["soft_prune"] * 2
    page.select_option("[data-filter=model]", "netA")
    assert methods(page) == ["soft_prune"]
    page.select_option("[data-filter=method]", "")
    assert len(methods(page)) == len(METHODS)
    page.select_option("[data-filter=model]", "")


def test_names_and_headings_stay_in_sight(page: Page):
    page.set_viewport_size({"width": 800, "height": 400})
    table = page.locator(".wide:has(#table)")
    rows = page.locator("#table tbody tr:last-child .name, #table thead .name")
    page.evaluate("document.querySelector('#table').scrollIntoView()")
    table.evaluate("box => box.scrollTo(0, 90)")
    before = [part.bounding_box() for part in rows.all()]
    assert len(before) == 4  # model and method
    table.evaluate("box => box.scrollTo(300, 90)")
    assert [part.bounding_box() for part in rows.all()] == before
    model, method = before[:2]
    assert method["x"] == pytest.approx(model["x"] + model["width"], abs=1)
    table.evaluate("box => box.scrollTo(300, 0)")
    assert [part.bounding_box() for part in rows.all()][:2] == [model, method]
    page.set_viewport_size({"width": 1280, "height": 720})


def test_cells_and_headings_are_told_in_words_without_a_mouse_over_them(page: Page):
    told = page.locator("#told")
    page.locator("#table td[title^='Retain test']").first.click()
    assert told.inner_text().startswith("Retain test % →R: ")
    page.locator("#table .badge").first.click()
    assert told.inner_text() in TITLES.values()
    page.locator("#table th button", has_text="Verdict").focus()
    assert "compares accuracies" in told.inner_text()
    assert ".py" not in told.inner_text()


def test_the_chosen_request_stands_over_its_figures_alone(page: Page):
    page.evaluate("document.querySelector('#entropy').scrollIntoView()")
    bar, title = (page.locator(of).bounding_box() for of in (".case", "#entropy h3"))
    assert bar is not None
    assert title is not None
    assert 0 <= bar["y"] < bar["y"] + bar["height"] <= title["y"]
    page.evaluate("document.querySelector('#provenance').scrollIntoView()")
    bar, title = (page.locator(of).bounding_box() for of in (".case", "#provenance"))
    assert bar is not None
    assert title is not None
    assert bar["y"] + bar["height"] <= title["y"]


def test_dark_paper_has_light_ink(page: Page):
    page.locator("#front-leakage").scroll_into_view_if_needed()
    ink = "getComputedStyle(document.querySelector('#front-leakage .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ink} !== '{light}'")
    assert page.evaluate(ink) == "rgb(232, 232, 232)"
    page.emulate_media(color_scheme="light")


def test_a_narrow_screen_scrolls_table_and_figures_not_the_page(page: Page):
    size = page.viewport_size
    page.set_viewport_size({"width": 420, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 420")
    page.locator(".wide:has(#table)").evaluate("box => box.scrollTo(300, 0)")
    model, method = (part.bounding_box() for part in page.locator("#table thead .name").all())
    assert model["x"] < 0 <= method["x"] < 40
    page.locator(".wide:has(#table)").evaluate("box => box.scrollTo(0, 0)")
    assert size is not None
    page.set_viewport_size(size)


def test_printing_draws_everything(page: Page):
    page.reload()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    for name in DRAWN:
        assert page.locator(f"#{name} :is({MARKS})").count() > 0, name
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print")
    for part in (".updatemenu-header", ".slider-container", "#told"):
        assert page.locator(part).count() > 0
        assert not page.locator(part).first.is_visible()
    widths = page.evaluate("[...document.querySelectorAll('.main-svg')].map(s => s.clientWidth)")
    assert max(widths) <= 1000
    heights = page.evaluate(
        "[...document.querySelectorAll('figure')].map(f => [f.id, f.offsetHeight])"
    )
    sheet = 186 / 25.4 * 96  # pixels of A4 across, without margins
    assert {name for name, height in heights if height > sheet} == set()
    page.emulate_media(media="screen")
    assert page.pdf()[:4] == b"%PDF"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
