"""The view of a running sweep, from the status files of its runs."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orthounlearn.errors import UsageError
from orthounlearn.files import read_json
from orthounlearn.report.collect import DIVERGED

_POLL_S = 1.0
_PLAIN_EVERY_S = 15.0  # between lines when nobody watches a terminal
_SIGN_S = 300.0  # after which a line says how far the running cells are, though none is done
_STALE_S = 1800.0  # a status older than this belongs to a process that is gone
_MOST_RUNNING, _MOST_RESULTS = 8, 5  # lines of the live view
_BAR = 30  # characters

Cell = tuple[Path, Callable[[], bool]]
"""Folder of a cell, and whether it is finished."""

_RESULTS = {
    "val/acc": "validation",
    "unlearned/acc/forget_test": "forgotten",
    "unlearned/acc/retain_test": "retained",
}
"""Figures of a finished cell that its line shows, in %."""


@dataclass(frozen=True)
class _State:
    """A sweep at one moment.

    Attributes:
        done: Finished cells.
        total: All cells.
        running: Status of each running one.
        elapsed_s: Since the view was opened.
        left_s: Estimated; None before anything has moved.
    """

    done: int
    total: int
    running: list[dict[str, Any]]
    elapsed_s: float
    left_s: float | None

    @property
    def text(self) -> str:
        parts = [f"{self.done}/{self.total} done"]
        if self.running:
            parts.append(f"{len(self.running)} running")
        parts.append(f"{max(self.total - self.done - len(self.running), 0)} left")
        parts.append(f"{_duration(self.elapsed_s)} so far")
        if self.left_s is not None:
            parts.append(f"about {_duration(self.left_s)} to go")
        return ", ".join(parts)


class SweepProgress:
    """Shows done, running and left cells, the running epochs, the time to go, and last results.

    One live view on a terminal, else a plain line when another cell is done, at most every 15
    seconds, and every five minutes in any case. Cells run in processes of their own, on other
    machines too: what is known of them stands in the `status.json` of their folders.

    Args:
        title: Of the phase.
        cells: All of the phase.
        console: Where to show it; None: stderr.
    """

    def __init__(
        self, title: str, cells: Sequence[Cell], *, console: Console | None = None
    ) -> None:
        self._title = title
        self._cells = cells
        self._console = console or Console(file=sys.stderr)
        self._stop = threading.Event()
        self._started = time.time()
        self._finished = {folder for folder, finished in cells if finished()}
        self._done_before = len(self._finished)
        self._results: deque[str] = deque(maxlen=_MOST_RESULTS)
        self._last_line = (self._done_before, 0.0)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()
        self._console.print(self.line(), highlight=False, soft_wrap=True)

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            self.show()

    def show(self) -> None:
        """Bring what is shown up to date."""
        if self._live is not None:
            self._live.update(self.view(), refresh=True)
            return
        state = self._state()
        shown, when = self._last_line
        silent = time.time() - max(when, self._started)
        if (state.done != shown and time.time() - when >= _PLAIN_EVERY_S) or silent >= _SIGN_S:
            self._console.print(self._line(state), highlight=False, soft_wrap=True)
            self._last_line = (state.done, time.time())

    def line(self) -> str:
        """Return the state of the sweep in one line."""
        return self._line(self._state())

    def _line(self, state: _State) -> str:
        running = [_describe(status) for status in state.running[:4]]
        return f"{self._title}: {state.text}" + (" | " + "; ".join(running) if running else "")

    def view(self) -> RenderableType:
        """Return the state of the sweep as it is shown on a terminal."""
        state = self._state()
        bars = Table.grid(padding=(0, 1))
        bars.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=max(state.total, 1), completed=state.done, width=_BAR),
            Text(state.text),
        )
        for status in state.running[:_MOST_RUNNING]:
            bars.add_row(Text(f"  {status['what']}"), *_epochs(status))
        unseen = len(state.running) - _MOST_RUNNING
        more = [Text(f"  and {unseen} more", style="dim")] if unseen > 0 else []
        return Group(bars, *more, *(Text(f"  {told}", style="dim") for told in self._results))

    def _state(self) -> _State:
        done, running = 0, []
        for folder, finished in self._cells:
            if finished():
                done += 1
                if folder not in self._finished:
                    self._finished.add(folder)
                    self._results.append(_result(folder))
            elif (status := _running(folder)) is not None:
                running.append(status)
        elapsed = time.time() - self._started
        begun = sum(map(_share, running))
        moved = done - self._done_before + begun
        rest = len(self._cells) - done - begun
        left = elapsed / moved * rest if moved and rest > 0 else None
        return _State(done, len(self._cells), running, elapsed, left)


def _running(folder: Path) -> dict[str, Any] | None:
    """Return the status of a cell; None if nobody works on it."""
    with suppress(UsageError, OSError):  # no status yet, or one that is being replaced
        status: dict[str, Any] = read_json(folder / "status.json")
        if status["state"] == "running" and time.time() - status["updated"] < _STALE_S:
            return status
    return None


def _share(status: dict[str, Any]) -> float:
    """Return how much of a cell is behind it, as far as its epochs tell."""
    return float(status["epoch"] / status["epochs"]) if status.get("epochs") else 0.0


def _epochs(status: dict[str, Any]) -> tuple[RenderableType, ...]:
    if not status.get("epochs"):
        return ()
    bar = ProgressBar(total=status["epochs"], completed=status["epoch"], width=_BAR)
    return bar, Text(f"epoch {status['epoch'] + 1}/{status['epochs']}")


def _describe(status: dict[str, Any]) -> str:
    if status.get("epochs"):
        return f"{status['what']}, epoch {status['epoch'] + 1}/{status['epochs']}"
    return str(status["what"])


def _result(folder: Path) -> str:
    """Return what a finished cell has come to: accuracies and the verdict."""
    what, metrics = folder.name, {}
    with suppress(UsageError, OSError, KeyError):
        what = read_json(folder / "status.json")["what"]
    if (folder / DIVERGED).exists():
        return f"✗ {what}: diverged"
    with suppress(UsageError, OSError):
        metrics = read_json(folder / "metrics.json")
    told = [
        f"{name} {100 * metrics[key]:.1f} %"
        for key, name in _RESULTS.items()
        if metrics.get(key) is not None
    ]
    prefix = "unlearned/verdict/"
    told += [k.removeprefix(prefix) for k, v in metrics.items() if k.startswith(prefix) and v]
    return f"✓ {what}: {', '.join(told)}" if told else f"✓ {what}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d}"
