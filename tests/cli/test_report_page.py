"""From a sweep to a page that a person can use, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.browser import browser
from tests.report.test_page_in_chromium import MARKS

SMALL = (
    "model.width=4", "recipe.epochs=1", "metrics.reference_seeds=[]", "table.models=[resnet20]",
    "table.regularizers=[so]", "table.seeds=[0]", "table.forget=[[3]]",
    "table.methods=[original,soft_prune,mask_logit]",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_gives_a_page_on_which_everything_is_drawn(call: Callable, tmp_path: Path):
    with browser() as opened:  # skips first, if there is none
        swept = call("sweep", *SMALL)
        assert swept.code == 0, swept.err
        reported = call("report", "table=digits")
        assert reported.code == 0, reported.err
        context = opened.new_context(offline=True)
        context.set_default_timeout(500_000)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "runs/tables/digits/report.html").as_uri())
        names = [figure.get_attribute("id") for figure in page.locator("figure").all()]
        assert {"front-membership", "gallery", "confusion", "channels", "similarity"} <= set(names)
        without = []
        for name in names:
            page.locator(f"#{name}").scroll_into_view_if_needed()
            if page.locator(f"#{name} .missing").is_visible():
                without.append(name)
            else:
                page.wait_for_selector(f"#{name} :is({MARKS})", state="attached")
        assert set(without) <= {"relearn"}
        gallery = page.locator("#gallery")
        gallery.scroll_into_view_if_needed()
        shown = gallery.locator(".ytick").all_text_contents()
        assert shown[:4] == ["true class", "original", "soft_prune", "retrain"]
        gallery.locator(".updatemenu-header").click()
        gallery.locator(".updatemenu-dropdown-button", has_text="mask_logit").click()
        page.wait_for_function(
            "[...document.querySelectorAll('#gallery .ytick')].some("
            "tick => tick.textContent === 'mask_logit')"
        )
        assert complaints == []
