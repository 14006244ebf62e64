"""`make tune`: which methods it tunes."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("tunable")


def test_names_are_taken_as_they_are(tool: ModuleType):
    assert tool.tunable("soft_prune,salun") == ["soft_prune", "salun"]


def test_a_list_stands_for_its_methods_that_have_a_search(tool: ModuleType):
    names = set(tool.tunable("all"))
    assert {"soft_prune", "lfssd", "ortho_tf_idf", "class_transport"} <= names
    assert not names & {"original", "leace", "hard_mask", "class_transport_alone", "scrub_rewind"}
    core = ["soft_prune", "class_transport", "fine_tune", "gradient_ascent"]
    assert tool.tunable("core") == core


def test_make_tunes_them_one_after_another_and_nothing_without_names(tmp_path: Path):
    """With `echo` in the place of the program, and this Python in that of the environment's."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".installed").touch()

    def made(*given: str) -> subprocess.CompletedProcess[str]:
        # Under `make test` the outer make would have this one tell of its folder.
        command = ["make", "--no-print-directory", "tune", f"VENV={tmp_path}", "RUN=echo", *given]
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            command, cwd=ROOT, env=env, check=False, capture_output=True, text=True
        )

    done = made("METHODS=ssd,salun")
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["method=ssd", "method=salun"]
    nothing = made()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "METHODS=NAME,NAME or METHODS=all" in nothing.stderr
