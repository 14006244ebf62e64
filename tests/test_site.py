"""The documentation site: it builds without a warning, opens from disk, and no link is broken."""

import doctest
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

from tests.report.browser import browser

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_files_of_the_repository_have_their_place_in_the_site(hooks: ModuleType):
    found = doctest.testmod(hooks)
    assert found.attempted > 4
    assert not found.failed


def test_every_module_is_in_the_reference(hooks: ModuleType):
    files = {path.relative_to(ROOT) for path in ROOT.glob("orthounlearn/**/*.py")}
    assert files - set(hooks.modules()) == {Path("orthounlearn/__main__.py")}


@dataclass
class Page(HTMLParser):
    """Links and anchors of one page of the site."""

    text: str
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        target = found.get("href") or found.get("src")
        if target and tag == "a":
            self.links.append(target)
        elif target and found.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_no_link_is_broken_and_nothing_is_fetched(site: Path):
    files = [path for path in site.rglob("*.html") if path.name != "404.html"]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in files}
    assert len(pages) > 100
    problems = []
    for path, page in pages.items():
        problems += [
            f"{path.relative_to(site)} loads {target}"
            for target in page.loaded  # nothing is fetched from elsewhere
            if "://" in target or not (path.parent / target.partition("?")[0]).exists()
        ]
        for target in page.links:
            file, _, anchor = unquote(target).partition("#")
            other = (path.parent / file).resolve() if file else path
            if "://" in target or (other.exists() and other not in pages):
                continue
            if other not in pages or (anchor and anchor not in pages[other].anchors):
                problems.append(f"{path.relative_to(site)} links to {target}")
    assert not problems


@pytest.mark.slow
def test_search_works_from_disk(site: Path):
    with browser() as opened:
        page = opened.new_page()
        page.set_default_timeout(120_000)
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((site / "own" / "method.html").as_uri())
        page.locator(".md-search__input").click()
        page.keyboard.type("relearning")
        found = page.locator(".md-search-result__item a").first
        found.wait_for()
        assert "audits" in found.get_attribute("href")
        assert not problems
