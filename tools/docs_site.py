"""Hooks of the documentation site, for mkdocs.yml: pages that are not written in docs/.

README.md is the home page; CONTRIBUTING.md, CHANGELOG.md and the pages of results/ are pages too,
beside the numbers that these link to.
Every public module has one in the reference. Links between documents fit the repository, so that
they work on a code host; here they are made to fit the site.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from orthounlearn.metrics.catalog import CATALOG

ROOT = Path(__file__).parents[1]
PACKAGE = "orthounlearn"
REFERENCE = "reference"
FIGURES = "<!-- figures -->"
"""Where a page has it, the list of all figures of the audit is put."""

_HOMES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(?<=\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")


def documents() -> dict[str, str]:
    """Return the files from outside docs/: path in the repository -> path in the site."""
    results = sorted(
        path.relative_to(ROOT).as_posix()
        for path in ROOT.joinpath("results").rglob("*")
        if path.suffix in (".md", ".csv")
    )
    others = ["CITATION.cff", "examples/forget_a_cat.py", *results]
    return {**_HOMES, **{path: path for path in others}}


def modules() -> Iterator[Path]:
    """Yield the files of all public modules, relative to the repository, packages before theirs."""
    for path in sorted(ROOT.joinpath(PACKAGE).rglob("*.py"), key=lambda path: path.parts):
        if path.stem == "__init__" or not path.stem.startswith("_"):
            yield path.relative_to(ROOT)


def page_of(module: Path) -> str:
    """Return the path in the site of a module's page.

    >>> page_of(Path("orthounlearn/metrics/roc.py"))
    'reference/orthounlearn/metrics/roc.md'
    >>> page_of(Path("orthounlearn/metrics/__init__.py"))
    'reference/orthounlearn/metrics/index.md'
    """
    stem = "index" if module.stem == "__init__" else module.stem
    return f"{REFERENCE}/{module.parent.as_posix()}/{stem}.md"


def name_of(module: Path) -> str:
    """Return a module's dotted name.

    >>> name_of(Path("orthounlearn/metrics/__init__.py"))
    'orthounlearn.metrics'
    """
    parts = module.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reference to the navigation, package by package."""
    tree: dict[str, list[Any]] = {}
    for module in modules():
        package = name_of(module.parent / "__init__.py")
        if package not in tree:
            tree[package] = []
            if package != PACKAGE:
                tree[package.rpartition(".")[0]].append({package.rpartition(".")[2]: tree[package]})
        title = package if module.stem == "__init__" else module.stem
        tree[package].append({title: page_of(module)})
    config.nav.insert(-1, {"Reference": tree[PACKAGE]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for path, uri in documents().items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    for module in modules():
        content = f"::: {name_of(module)}\n"
        files.append(File.generated(config, page_of(module), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:  # noqa: ANN401 - mkdocs'
    """Make links fit the site, and put in the list of figures."""
    uri = page.file.src_uri
    source = next((path for path, home in documents().items() if home == uri), f"docs/{uri}")

    def fitted(match: re.Match[str]) -> str:
        target = in_site(posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1])))
        if target is None:
            return match[0]
        return posixpath.relpath(target, posixpath.dirname(uri) or ".") + (match[2] or "")

    return _LINK.sub(fitted, markdown).replace(FIGURES, figures())


def in_site(path: str) -> str | None:
    """Return the path in the site of a file of the repository; None if it is not in the site.

    >>> in_site("docs/methods.md"), in_site("README.md"), in_site("Makefile")
    ('methods.md', 'index.md', None)
    >>> in_site("orthounlearn/masking")
    'reference/orthounlearn/masking/index.md'
    """
    if not (ROOT / path).exists():
        return None
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    module = Path(path, "__init__.py") if (ROOT / path / "__init__.py").exists() else Path(path)
    if module.parts[0] == PACKAGE and module.suffix == ".py":
        return page_of(module)
    return documents().get(path)


class Doctests(griffe.Extension):
    """Makes the examples of docstrings, `>>> ...` up to an empty line, blocks of code."""

    _EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:  # noqa: ANN401 - griffe's
        """Fence the examples of one docstring."""
        if obj.docstring:
            obj.docstring.value = self._EXAMPLE.sub(
                lambda example: f"```pycon\n{example[0]}\n```", obj.docstring.value
            )


def figures() -> str:
    """Return the catalog of the audit's figures as a table."""
    lines = ["| key | heading | target | what it is |", "|---|---|---|---|"]
    for entry in CATALOG:
        unit = f" ({entry.unit})" if entry.unit else ""
        cells = (entry.heading + unit, entry.arrow, entry.formula)
        escaped = (re.sub(r"([\\*_<|])", r"\\\1", cell) for cell in cells)
        lines.append(f"| `{entry.pattern}` | {' | '.join(escaped)} |")
    return "\n".join(lines)
