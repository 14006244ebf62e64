"""What README, docs/ and results/ show works as it stands there."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from orthounlearn.cli import JOBS
from orthounlearn.config import CONF_DIR
from tests.documents import DOCUMENTS, ROOT, Block, anchors, blocks, links, name

QUICK = ("recipe.epochs=1", "recipe.batch_size=32", "optimizer.lr=0.05")
"""What is added to the commands, beside a narrow network: digits in a second."""

SHELL = ("cp", "ls")
"""Other programs that a block may call without a comment on why it cannot be run."""

PAGES = [document for document in DOCUMENTS if blocks(document)]


@pytest.fixture
def shared_networks(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all pages, in all workers, find the networks that one of them has trained."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "documents"
    (shared / "models").mkdir(parents=True, exist_ok=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "models").symlink_to(shared / "models")


@pytest.fixture
def own_modules(tmp_path: Path) -> Iterator[None]:
    """Forget the modules of a page's folder, which another page may have too."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for key, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[key]


@pytest.mark.usefixtures("shared_networks", "own_modules")
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_of_a_page_run_in_order(page: Path, call: Callable, tmp_path: Path):
    for block in blocks(page):
        if block.title:
            path = tmp_path / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        if block.language == "bash":
            for line in block.lines:
                _command(block, line, call, tmp_path)
        elif block.language == "python":
            code = compile(block.text, block.where, "exec")
            if not (block.title or block.why_not):
                # As `python FILE` does: modules beside the page's files are found.
                sys.path.insert(0, str(tmp_path))
                exec(code, {"__name__": "__main__"})  # noqa: S102 - a page of ours
        elif block.language == "yaml":
            assert block.title, f"{block.where}: say whose content it is, title=FILE"
            assert yaml.safe_load(block.text)
        else:
            pytest.fail(f"{block.where}: a block of {block.language or 'nothing'}")


def _command(block: Block, line: str, call: Callable, folder: Path) -> None:
    words = shlex.split(line, comments=True)
    program, *arguments = words or ["#"]
    if program == "orthounlearn":
        arguments = _composed(arguments) if block.why_not else _quick(arguments)
        result = call(*arguments)
        assert result.code == 0, f"{block.where}: {line}\n{result.err}"
    elif program == "make":
        _make(block, line, arguments, call)
    elif program == "python" and not block.why_not:
        runpy.run_path(str(folder / arguments[0]), run_name="__main__")
    elif program != "#":
        assert block.why_not or program in SHELL, f"{block.where}: is {program} to be run?"
        how = "-n" if block.why_not else "-eu"
        done = subprocess.run(["bash", how, "-c", line], cwd=folder, check=False)
        assert done.returncode == 0, f"{block.where}: {line}"


def _quick(arguments: list[str]) -> list[str]:
    """Return a command with a network of a few channels and one epoch."""
    job, *rest = arguments
    if job not in ("train", "prepare", "unlearn", "evaluate") or "--help" in rest:
        return arguments
    own = any(argument.startswith("model=custom") for argument in rest)
    return [*arguments, *QUICK, *(() if own else ("model.width=4",))]


def _composed(arguments: list[str]) -> list[str]:
    """Return a command that shows its configuration; of a multirun that of its first cell."""
    job, *rest = arguments
    return [job, *(_first(word) for word in rest if word not in ("-m", "--help")), "--cfg", "job"]


def _first(word: str) -> str:
    key, equals, value = word.partition("=")
    return key + equals + (value if value.startswith(("[", "{")) else value.split(",")[0])


def _make(block: Block, line: str, arguments: list[str], call: Callable) -> None:
    """Check that there is such a target, and that the programs which it calls take its options."""
    assert block.why_not, f"{block.where}: `{line}` is not run; say why in a comment before it"
    done = subprocess.run(
        ["make", "--dry-run", "--directory", str(ROOT), *arguments],
        env={"PATH": os.environ["PATH"]},  # not ARGS of the `make test` that runs this
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.where}: {line}\n{done.stderr}"
    for command in re.findall(r"^\.venv/bin/orthounlearn (.*)$", done.stdout, re.MULTILINE):
        result = call(*_composed(shlex.split(command)))
        assert result.code == 0, f"{block.where}: {line}\n{result.err}"


@pytest.mark.parametrize("job", JOBS)
def test_examples_of_a_help_text_compose(job: str, call: Callable):
    text = Path(CONF_DIR, f"{job}.yaml").read_text(encoding="utf-8")
    shown = re.findall(r"^ +orthounlearn (\w+\b.*)$", text, re.MULTILINE)
    examples = [line for line in shown if not re.match(r"\w+:", line)]
    assert examples
    for example in examples:
        result = call(*_composed(shlex.split(example, comments=True)))
        assert result.code == 0, f"{example}\n{result.err}"


def test_make_targets_that_texts_name_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets >= {"docs", "report"}
    for document in DOCUMENTS:
        named = re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8"))
        assert set(named) <= targets, name(document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path):
    for link in links(document):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{name(document)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name(document)}: {link}"
