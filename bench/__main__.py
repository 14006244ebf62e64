"""Run the benchmarks: `python -m bench [NAME ...] [--quick]`.

Every figure is a ratio of two things that were measured in turns in the same run, on the CPU. The
table is also written to `bench.json` in the folder of the runs.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench import (
    audit,
    compat,
    ensemble,
    orthogonality,
    preparation,
    request,
    shadow,
    statistics,
    training,
)
from bench import input as input_pipeline
from bench.results import Row, as_json, show
from bench.setting import RANDOM, Setting, compose, open_images
from bench.state import deterministic, threads
from orthounlearn.engine.experiment import environment
from orthounlearn.files import write_json
from orthounlearn.lit.process import prepare_process

BENCHMARKS: dict[str, Callable[[Setting], list[Row]]] = {
    "input": input_pipeline.measure,
    "lightning": training.lightning,
    "time_to_88": training.time_to_88,
    "orthogonality": orthogonality.measure,
    "statistics": statistics.measure,
    "preparation": preparation.measure,
    "request": request.measure,
    "audit": audit.measure,
    "shadow": shadow.measure,
    "compat": compat.measure,
    "ensemble": ensemble.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write it to a file."""
    names, quick = _parse(arguments)
    prepare_process()
    console = Console(width=None if sys.stdout.isatty() else 120)
    data = open_images(quick=quick)
    if data.name == RANDOM:
        console.print("No CIFAR-10 (no folder, no internet): random images of its shape instead.")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        setting = Setting(data, quick=quick, folder=Path(folder))
        for name in names:
            start = time.perf_counter()
            with threads(1), deterministic(False):
                rows += BENCHMARKS[name](setting)
            console.print(f"{name}: measured in {time.perf_counter() - start:.0f} s")
        about = environment(setting.experiment())
    show(rows, console)
    path = Path(compose()["paths"]["runs"]) / "bench.json"
    about |= {
        "command": " ".join(["python -m bench", *names, *["--quick"] * quick]),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "images": data.name,
    }
    write_json(path, {"environment": about, "quick": quick, "rows": as_json(rows)})
    console.print(f"Written: {path}")


def _parse(arguments: Sequence[str] | None) -> tuple[list[str], bool]:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="show that all of it runs")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"expected names out of {', '.join(BENCHMARKS)}, but got {unknown[0]}")
    return options.names or list(BENCHMARKS), options.quick


if __name__ == "__main__":
    main()
