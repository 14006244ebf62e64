"""Options and fixtures shared by all tests."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from orthounlearn.config.standalone import configuration
from orthounlearn.engine.experiment import Experiment, open_experiment

# A busy machine is no reason to fail.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# What a user may have exported must not change what is tested.
for name in ("ORTHOUNLEARN_RUNS", "ORTHOUNLEARN_CACHE", "HYDRA_FULL_ERROR"):
    os.environ.pop(name, None)

torch.manual_seed(0)  # what modules draw when they are imported is the same in each run


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Let each test draw the same in each run, whatever ran before it."""
    torch.manual_seed(0)


SMALL = (
    "experiment=digits_cpu", "model.width=4", "recipe.epochs=2", "logger=none",
    "metrics.reference_seeds=[]",
)  # fmt: skip
"""A recipe of two seconds on real digits, good enough to have something to forget, and one
retrained network instead of the table's."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--runslow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --runslow"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image cache for all worker processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "data-cache"


@pytest.fixture
def open_job(cache_dir: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """Return a function that opens a job's experiment, as its command line would."""
    return _opener(cache_dir, tmp_path / "runs")


@pytest.fixture(scope="module")
def open_shared(
    cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Experiment]:
    """Return what `open_job` returns, for one runs folder that a whole file shares."""
    return _opener(cache_dir, tmp_path_factory.mktemp("shared") / "runs")


@pytest.fixture(scope="module")
def open_by_all(
    cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Experiment]:
    """Return what `open_job` returns, for a runs folder that all workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return _opener(cache_dir, (base.parent if in_parallel() else base) / "by_all" / "runs")


def in_parallel() -> bool:
    """Tell whether this process is one of several workers."""
    return "PYTEST_XDIST_WORKER" in os.environ


def _opener(cache_dir: Path, runs: Path) -> Callable[..., Experiment]:
    def open_(*overrides: str, job: str = "unlearn") -> Experiment:
        composed = _composed(job, overrides)
        for placeholder, folder in ((_CACHE, cache_dir), (_RUNS, runs)):
            composed = composed.replace(placeholder, str(folder))
        return open_experiment(json.loads(composed))

    return open_


_CACHE, _RUNS = "/the-cache-of-this-test", "/the-runs-of-this-test"


@functools.cache  # Hydra takes a quarter of a second; hundreds of tests ask for the same
def _composed(job: str, overrides: tuple[str, ...]) -> str:
    folders = (f"paths.cache={_CACHE}", f"paths.runs={_RUNS}")
    return json.dumps(configuration(job, *SMALL, *folders, *overrides))


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The folder with the real CIFAR-10; the test is skipped where there is none."""
    root = os.environ.get("ORTHOUNLEARN_DATA")
    if not root or not (Path(root) / "cifar10").is_dir():
        pytest.skip("ORTHOUNLEARN_DATA names no folder with cifar10 in it")
    return Path(root)
