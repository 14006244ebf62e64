"""The documents of the repository: blocks of code, links and headings in them."""

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/**/*.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
_WHY = re.compile(r"<!-- not run: (.+) -->")
_TITLE = re.compile(r'title="([^"]+)"')


def name(document: Path) -> str:
    """Return a document's path in the repository."""
    return document.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        document: Where it is.
        line: Of its fence, from 1.
        language: After the fence; "" if there is none.
        text: Its content.
        title: The file whose content it is; None: it is to be run.
        why_not: Why it is not run, from the comment before it; None: it is.
    """

    document: Path
    line: int
    language: str
    text: str
    title: str | None
    why_not: str | None

    @property
    def where(self) -> str:
        return f"{name(self.document)}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def tokens(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(document.read_text(encoding="utf-8"))


def blocks(document: Path) -> list[Block]:
    """Return all fenced blocks of a document, in order."""
    found, before = [], None
    for token in tokens(document):
        if token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            title, why = _TITLE.search(rest), before and _WHY.search(before.content)
            found.append(
                Block(
                    document,
                    token.map[0] + 1,
                    language,
                    token.content,
                    title and title[1],
                    why and why[1],
                )
            )
        before = token if token.type == "html_block" else None
    return found


def links(document: Path) -> list[str]:
    """Return the targets of all links and pictures of a document."""
    inline = [child for token in tokens(document) for child in token.children or []]
    return [
        str(token.attrs[key])
        for token in inline
        for key in ("href", "src")
        if key in (token.attrs or {})
    ]


@cache
def anchors(document: Path) -> set[str]:
    """Return what a code host makes of a document's headings: #their-words."""
    found = tokens(document)
    headings = [b.content for a, b in pairwise(found) if a.type == "heading_open"]
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}
