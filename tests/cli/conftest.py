"""The program, called as from a shell but in this process."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from orthounlearn import cli


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def call(
    cache_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Result]:
    """Return a function that runs one command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORTHOUNLEARN_CACHE", str(cache_dir))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.delenv("ORTHOUNLEARN_DATA", raising=False)

    def call_(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["orthounlearn", *arguments])
        os.environ["HYDRA_FULL_ERROR"] = "0"
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        GlobalHydra.instance().clear()
        captured = capsys.readouterr()
        return Result(int(end.value.code or 0), captured.out, captured.err)

    return call_
