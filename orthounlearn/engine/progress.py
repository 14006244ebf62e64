"""The view of a running sweep, from the status files of its runs."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from orthounlearn.errors import UsageError
from orthounlearn.files import read_json

_POLL_S = 1.0
_PLAIN_EVERY_S = 15.0  # between lines when nobody watches a terminal
_STALE_S = 600.0  # a status older than this belongs to a process that is gone


class SweepProgress:
    """Shows done, running and left cells, the running epochs, and the time that is left.

    One live line on a terminal, else a plain line at each change, at most every 15 seconds.

    Args:
        title: Of the phase.
        cells: Folder of each cell, and whether it is finished.
    """

    def __init__(self, title: str, cells: Sequence[tuple[Path, Callable[[], bool]]]) -> None:
        self._title = title
        self._cells = cells
        self._console = Console(file=sys.stderr)
        self._stop = threading.Event()
        self._started = time.time()
        self._done_before = sum(done() for _, done in cells)
        self._last_line = ("", 0.0)
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
            self._show()

    def _show(self) -> None:
        line = self.line()
        if self._live is not None:
            self._live.update(Text(line), refresh=True)
            return
        shown, when = self._last_line
        if line.split(", ")[0] != shown.split(", ")[0] and time.time() - when >= _PLAIN_EVERY_S:
            self._console.print(line, highlight=False, soft_wrap=True)
            self._last_line = (line, time.time())

    def line(self) -> str:
        """Return the state of the sweep in one line."""
        done = sum(finished() for _, finished in self._cells)
        elapsed = time.time() - self._started
        line = f"{self._title}: {done}/{len(self._cells)} done, {_duration(elapsed)} so far"
        new = done - self._done_before
        left = len(self._cells) - done
        if new and left:
            line += f", about {_duration(elapsed / new * left)} left"
        running = [_describe(status) for status in self._running()]
        return line + (" | " + "; ".join(running[:4]) if running else "")

    def _running(self) -> list[dict[str, Any]]:
        found = []
        for folder, finished in self._cells:
            if finished():
                continue
            with suppress(UsageError, OSError):  # no status yet, or one that is being replaced
                status = read_json(folder / "status.json")
                if status["state"] == "running" and time.time() - status["updated"] < _STALE_S:
                    found.append(status)
        return found


def _describe(status: dict[str, Any]) -> str:
    if status.get("epochs"):
        return f"{status['what']} epoch {status['epoch'] + 1}/{status['epochs']}"
    return str(status["what"])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d}"
