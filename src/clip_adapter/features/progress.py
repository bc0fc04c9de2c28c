"""A progress bar on standard error: pictures per second and time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_SHOW_AFTER = 2.0  # seconds; shorter work needs no bar


class Meter:
    """Counts pictures; shows a bar on a terminal once the work has taken two seconds.

    Args:
        total: pictures to come.
        title: what is done to them.
        enabled: None shows the bar where standard error is a terminal.
    """

    def __init__(self, total: int, title: str, enabled: bool | None = None) -> None:
        self._total, self._title, self._done = total, title, 0
        self._enabled = sys.stderr.isatty() if enabled is None else enabled
        self._start = time.monotonic()
        self._bar = None

    def __enter__(self) -> Meter:
        return self

    def advance(self, count: int) -> None:
        """``count`` more pictures are done."""
        self._done += count
        if self._bar is None and self._enabled and time.monotonic() - self._start > _SHOW_AFTER:
            self._open()
        if self._bar is not None:
            rate = self._done / (time.monotonic() - self._start)
            self._bar.update(self._task, completed=self._done, rate=f"{rate:.0f}")

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} pictures/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._title, total=self._total, rate="0")
        self._bar.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
