"""Write docs/methods.md from the methods themselves: docstrings, declarations and YAML files.

python tools/methods_page.py > docs/methods.md      write the page
python tools/methods_page.py --check                fail if the page in docs/ is another
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from omegaconf import DictConfig, OmegaConf

from orthounlearn.config import CONF_DIR
from orthounlearn.config.build import locate
from orthounlearn.methods.base import LossMethod, UnlearningMethod
from orthounlearn.methods.original import Original
from orthounlearn.methods.retrain import Retrain

METHODS = Path(CONF_DIR, "method")
PAGE = Path(__file__).parents[1] / "docs" / "methods.md"

_INTRODUCTION = """\
# Methods

Every unlearning method, as the code has it: `orthounlearn/methods/NAME.py` and
`conf/method/NAME.yaml`. This page is written by `tools/methods_page.py`; do not edit it.

D_f is the forget set, D_r the retain set, F the forgotten classes, θ₀ the original model, K the
number of classes, CE the cross-entropy. What a method reads is enforced: the engine refuses any
set that it does not declare, and test images cannot be read at all. Defaults are the authors'
values where they give any; tuned values are chosen on validation images by the command beside
them. The gate is what a test holds the method to, at the values tuned for digits, on a small
network trained on them.

- **reference**: a network to compare with.
- **edit (no data at request)**: changes weights, without an image at the time of the request.
- **edit (reads data)**: changes weights, computed from images at the time of the request.
- **training**: minimises a loss at the time of the request.
"""

_NOT_OPTIONS = ("name", "_target_", "_partial_", "defaults", "search", "gate", "tuned")


@dataclass(frozen=True)
class Method:
    """What there is to say about one method.

    Attributes:
        name: Of its YAML file.
        kind: Its class.
        config: The YAML with what it inherits.
        notes: The comment at the head of the YAML, "" if there is none.
    """

    name: str
    kind: type[UnlearningMethod]
    config: Mapping[str, Any]
    notes: str

    @property
    def summary(self) -> str:
        """The first line of its module, or of a variant the comment that says what it varies."""
        if self.notes and "defaults" in OmegaConf.load(METHODS / f"{self.name}.yaml"):
            return self.notes
        module = inspect.getmodule(self.kind)
        return (inspect.getdoc(module) or "").partition("\n")[0]

    @property
    def family(self) -> str:
        """How it works, as far as its class tells."""
        if issubclass(self.kind, (Original, Retrain)):
            return "reference"
        if issubclass(self.kind, LossMethod):
            return "training"
        return "edit (reads data)" if self.kind.uses else "edit (no data at request)"


def find_methods() -> list[Method]:
    """Return every method of `conf/method`, references first, then by family and name."""
    found = []
    for path in METHODS.glob("*.yaml"):
        config: Any = OmegaConf.to_container(read_config(path))
        if "_target_" in config:
            kind: Any = locate(config["_target_"])
            found.append(Method(path.stem, kind, config, _head_comment(path)))
    order = ("reference", "edit (no data at request)", "edit (reads data)", "training")
    return sorted(found, key=lambda method: (order.index(method.family), method.name))


def read_config(path: Path) -> DictConfig:
    """Return a YAML of a method or of its tuned values, merged over those its `defaults` name."""
    node: Any = OmegaConf.load(path)
    parents = [parent for parent in node.pop("defaults", []) if parent != "_self_"]
    # As Hydra has it, a name is relative to the group: conf/method, or conf/method/tuned.
    group = METHODS if path.parent == METHODS else METHODS / "tuned"
    merged = OmegaConf.merge(*(read_config(group / f"{parent}.yaml") for parent in parents), node)
    return merged if isinstance(merged, DictConfig) else OmegaConf.create()


def _head_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    return " ".join(head)


# ---- docstrings -------------------------------------------------------------------------------

_SECTION = re.compile(
    r"(?:^|(?<=\s))(Source|Deviations?(?:\s+by\s+default)?|Args|Attributes):(?=\s|$)"
)


def sections(docstring: str) -> dict[str, str]:
    r"""Split a docstring at "Source:", "Deviations:" and so on; what is left is "Formula".

    A section ends with its paragraph, and goes on in indented paragraphs and lists that follow. A
    block of deviations below its heading becomes a list: an item ends where a line ends with a
    full stop.

    >>> sections("Minimise f.\n\nSource: A. Deviation: none.\n\nMore.")
    {'Formula': 'Minimise f.\n\nMore.', 'Source': 'A.', 'Deviations': 'none.'}
    >>> sections("Deviations:\n    One,\n    that is long.\n    Two.")["Deviations"]
    '- One,\n  that is long.\n- Two.'
    """
    found: dict[str, list[str]] = {"Formula": []}
    current = "Formula"
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        if not paragraph.startswith((" ", "- ")):
            current = "Formula"
        pieces = _SECTION.split(paragraph)
        if pieces[0].strip():
            text = pieces[0].rstrip()  # of a formula, indented text stays as it is set
            found.setdefault(current, []).append(text if current == "Formula" else dedent(text))
        for heading, text in zip(pieces[1::2], pieces[2::2], strict=True):
            current = "Deviations" if heading.startswith("Deviation") else heading
            block = inspect.cleandoc(text).rstrip()
            if current == "Deviations" and text.startswith("\n") and not block.startswith("- "):
                block = _as_list(block)
            found.setdefault(current, []).append(block)
    return {name: "\n\n".join(paragraphs) for name, paragraphs in found.items()}


def _as_list(block: str) -> str:
    items = re.split(r"(?<=\.)\n", block)
    return "\n".join("- " + item.replace("\n", "\n  ") for item in items)


def option_texts(kind: type) -> dict[str, str]:
    """Return what the "Args" of a class and of those that it inherits from say of each option."""
    texts: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        args = sections(parent.__doc__ or "").get("Args", "")
        for match in re.finditer(r"^(\w+): (.*(?:\n[ ].*)*)", args, re.MULTILINE):
            text = " ".join(match[2].split())
            if (
                parent is LossMethod
            ):  # in every second table of the page: its first sentence will do
                text = text.partition(". ")[0].rstrip(".") + "."
            if text != "See `LossMethod`.":
                texts[match[1]] = text
    return texts


# ---- Markdown ---------------------------------------------------------------------------------


def page() -> str:
    """Return the whole page."""
    methods = find_methods()
    parts = [_INTRODUCTION, _budgets(), _summary(methods)]
    parts += [_section(method) for method in methods]
    return "\n".join(parts)


def _summary(methods: Sequence[Method]) -> str:
    rows = [
        (
            f"[{method.name}](#{method.name})",
            method.family,
            _sets(method.kind.prepare_uses),
            _sets(method.kind.uses),
            _prose(method.summary),
        )
        for method in methods
    ]
    head = ("method", "family", "reads before the request", "reads at the request", "in one line")
    return _table(head, rows)


def _section(method: Method) -> str:
    docstring = sections(inspect.getdoc(method.kind) or "")
    lines = [f"## {method.name}", "", _prose(method.summary), ""]
    if method.notes != method.summary and method.notes:
        lines += [f"*{_prose(method.notes)}*", ""]
    reads = (
        f"Before the request it reads {_sets(method.kind.prepare_uses)}, at the request "
        f"{_sets(method.kind.uses)}."
    )
    lines += [f"Family: {method.family}. {reads}", "", _gate(method.config["gate"]), ""]
    for title, key in (("Rule", "Formula"), ("Source", "Source"), ("Deviations", "Deviations")):
        lines += [_titled(title, docstring.get(key, "not stated.")), ""]
    rows = list(_option_rows(method))
    if rows:
        lines += [_table(("option", "default", "searched", "meaning"), rows)]
    else:
        lines += ["No options.", ""]
    tuned = list(_tuned_rows(method.name))
    if tuned:
        lines += [_table(("experiment", "tuned values", "objective", "chosen by"), tuned)]
    return "\n".join(lines)


def _gate(gate: Mapping[str, Any]) -> str:
    kept, left = (f"{_text(100.0 * gate[key])} %" for key in ("retain", "forget"))
    why = f" ({_prose(gate['why'])})" if gate.get("why") else ""
    return (
        f"**Gate:** keeps at least {kept} of the retained accuracy, recognises at most {left} of "
        f"the class{why}."
    )


def _titled(title: str, text: str) -> str:
    return f"**{title}:**{chr(10) * 2 if text.startswith('- ') else ' '}{_prose(text)}"


def _option_rows(method: Method) -> Iterator[tuple[str, ...]]:
    texts = option_texts(method.kind)
    search = method.config.get("search") or {}
    options = {k: v for k, v in method.config.items() if k not in _NOT_OPTIONS}
    for key, value in _flat(options):
        space = _space(search[key]) if key in search else ""
        yield f"`{key}`", f"`{_text(value)}`", space, _prose(texts.get(key, ""))


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; of an object first its class, then its options."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            if "_target_" in value:
                yield f"{prefix}{key}", str(value["_target_"]).rpartition(".")[2]
            inner = {k: v for k, v in value.items() if k not in _NOT_OPTIONS}
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _space(space: Mapping[str, Any]) -> str:
    if "choices" in space:
        return ", ".join(f"`{_text(choice)}`" for choice in space["choices"])
    text = f"{_text(space['low'])} to {_text(space['high'])}"
    if space.get("log"):
        text += ", log scale"
    if "step" in space:
        text += f", steps of {_text(space['step'])}"
    return text


def _tuned_rows(name: str) -> Iterator[tuple[str, ...]]:
    for path in sorted(METHODS.glob(f"tuned/*/{name}.yaml")):
        node: Any = OmegaConf.to_container(read_config(path))
        about = node.pop("tuned")
        values = ", ".join(f"`{key}={_text(value)}`" for key, value in _flat(node))
        whose = about["method"]
        if whose == name:
            trials = "1 trial" if about["trials"] == 1 else f"{about['trials']} trials"
            found = f"{about['objective']} in {trials}", f"`{about['command']}`"
        else:
            found = "not its own", f"values of [{whose}](#{whose})"
        yield path.parent.name, values, *found


def _budgets() -> str:
    """Return how many trials chose the tuned values of each experiment, and who had others."""
    budgets: dict[str, dict[int, list[str]]] = {}
    for path in sorted(METHODS.glob("tuned/*/*.yaml")):
        about = read_config(path)["tuned"]
        if about["method"] == path.stem:
            of_experiment = budgets.setdefault(path.parent.name, {})
            of_experiment.setdefault(about["trials"], []).append(path.stem)
    lines = []
    for experiment, by_trials in budgets.items():
        usual = max(by_trials, key=lambda trials: len(by_trials[trials]))
        others = "; ".join(
            f"but {trials} for {', '.join(names)}, as its command says"
            for trials, names in sorted(by_trials.items())
            if trials != usual
        )
        lines.append(f"- {experiment}: {usual} trials for each method{others and '; ' + others}.")
    return "\n".join(["The budget of tuning:", "", *lines, ""])


def _text(value: Any) -> str:  # noqa: ANN401 - any value of a config
    """Return a value as YAML would have it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return re.sub(r"e-0+", "e-", f"{value:g}") if isinstance(value, float) else str(value)


def _sets(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"


_MARKUP = re.compile(r"\*(?! )|(?<!\w)_(?! )|<(?=[\w/!])|\\")
"""What Markdown would take for emphasis, a tag or an escape. A subscript as in b_f is none."""


def _prose(text: str) -> str:
    """Escape markup, outside of `code` and of indented blocks."""
    pieces = re.split(r"(`[^`]*`|^ {4,}.*$)", text, flags=re.MULTILINE)
    for index in range(0, len(pieces), 2):
        pieces[index] = _MARKUP.sub(r"\\\g<0>", pieces[index])
    return "".join(pieces)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page, or compare it with the one in docs/."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to compare with")
    options = parser.parse_args(arguments)
    text = page()
    if not options.check:
        sys.stdout.write(text)
        return 0
    if options.page.exists() and options.page.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(
        f"error: {options.page} is missing or out of date; write it with\n"
        "  .venv/bin/python tools/methods_page.py > docs/methods.md\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
