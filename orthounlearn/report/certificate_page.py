"""The page of a certificate: what of the record is shown, and how it is escaped."""

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from orthounlearn.metrics.catalog import figure
from orthounlearn.metrics.check import Check
from orthounlearn.metrics.sample import ENDS
from orthounlearn.metrics.verdict import FLAGS, TITLES, Verdict
from orthounlearn.report.columns import COLUMNS, heading, number, scaled
from orthounlearn.report.rows import Cell

_LONGEST = 240  # characters of a command or a list on the page; audit.json has the whole of it
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#&$])")


def pages(record: dict[str, Any], verdict: Verdict) -> dict[str, str]:
    """Return file name -> text: the same page as Markdown and as HTML.

    Args:
        record: What audit.json holds.
        verdict: The one in it.
    """
    page = {"record": record, "rows": _rows(record, verdict), **_findings(verdict)}
    return {
        "certificate.md": _MARKDOWN_PAGES.get_template("certificate.md").render(page),
        "certificate.html": _HTML_PAGES.get_template("certificate.html").render(page),
    }


def _rows(record: dict[str, Any], verdict: Verdict) -> list[dict[str, str]]:
    """Return the lines of the table of figures: what is judged first, then a table's columns."""
    checks = {check.key: check for check in verdict.checks}
    judged = [key for check in checks for key in (check, f"{check}_index")]
    figures = record["figures"]
    return [
        {
            "heading": heading(key),
            "unlearned": _shown(key, figures[key]["unlearned"]) + _between(key, figures),
            "retrained": _shown(key, figures[key]["retrained"], figures[key]["retrained_sd"]),
            "original": _shown(key, figures[key]["original"]),
            "outcome": _outcome(checks.get(key)),
            "kind": checks[key].outcome if key in checks else "",
        }
        for key in dict.fromkeys([*judged, *COLUMNS])
        if key in figures
    ]


def _findings(verdict: Verdict) -> dict[str, list[tuple[str, str]]]:
    """Return what was found and what could not be excluded: (flags in words, sentences)."""

    def words(flags: Sequence[str]) -> str:
        return "; ".join(f"{TITLES[flag]} ({flag})" for flag in flags)

    raised = [
        (words([flag]), " ".join(verdict.reasons[flag]))
        for flag in FLAGS
        if flag in verdict.reasons
    ]
    why: dict[str, list[str]] = {}
    for flag in FLAGS:
        for sentence in verdict.not_given.get(flag, ()):
            why.setdefault(sentence, []).append(flag)
    return {
        "raised": raised,
        "not_excluded": [(words(flags), sentence) for sentence, flags in why.items()],
    }


def _shown(key: str, value: float | None, sd: float | None = None) -> str:
    if value is None:
        return "–"
    low, high = (None, None) if sd is None else (value - sd, value + sd)
    return number(key, Cell(value, low, high, n=1, target=None))


def _between(key: str, figures: dict[str, Any]) -> str:
    """Return the interval of a figure that has one of its own; "" of others."""
    ends = [figures.get(f"{key}_{end}", {}).get("unlearned") for end in ENDS]
    if None in ends:
        return ""
    low, high = (scaled(key, end) for end in ends)
    return f" ({low} to {high})"


def _outcome(check: Check | None) -> str:
    if check is None:
        return ""
    margin = check.interval + check.tolerance
    allowed = f"{100 * margin:.1f} points" if figure(check.key).unit == "%" else f"{margin:.3f}"
    return f"{check.outcome} (± {allowed})"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _printable(value: object) -> object:
    """Make what could break a line or turn its direction visible, in any text of the page."""
    if not isinstance(value, str):
        return value
    return "".join(character if character.isprintable() else "\ufffd" for character in value)


def _escaped(value: object) -> object:
    """Escape for Markdown whatever a template prints."""
    text = _printable(value)
    return _MARKDOWN.sub(r"\\\1", text) if isinstance(text, str) else text


def _listed(values: Sequence[object]) -> str:
    return _short(", ".join(map(str, values)))


def _settings(values: dict[str, object]) -> str:
    return _listed([f"{key} {value}" for key, value in values.items()])


def _environment(*, autoescape: bool) -> Environment:
    pages = Environment(
        loader=PackageLoader("orthounlearn.report"),
        autoescape=autoescape,  # noqa: S701 - Markdown has its own escape, for every expression
        finalize=_printable if autoescape else _escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"listed": _listed, "settings": _settings, "short": _short}
    return pages


_HTML_PAGES = _environment(autoescape=True)
_MARKDOWN_PAGES = _environment(autoescape=False)
