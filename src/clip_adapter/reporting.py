"""Talk once: lines by one logger, progress by one tracker, and a way to stop long work.

Code says ``log.info`` or ``log.warning`` and counts with :func:`track` or :func:`tracking`. Who
listens is decided once, by the caller, with :func:`listening`; nothing is passed on in between.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from clip_adapter.errors import CancelledError, UsageError

log = logging.getLogger("clip_adapter")
"""Lines for the user: ``warning`` is for what they should know, ``info`` for all else."""

SHOW_AFTER = 2.0  # seconds; shorter work needs no bar
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """How far a long piece of work is.

    Attributes:
        title: what is done, such as "Embedding".
        done: steps done.
        total: all steps.
        note: how it goes, in a few words, such as the loss; else "".
        unit: what is counted, such as "pictures".
    """

    title: str
    done: int
    total: int
    note: str = ""
    unit: str = "steps"


Listener = Callable[[Stage], None]
Progress = Listener | bool | None
"""Who hears of progress: a function; False, nobody; None or True, a bar where there is a screen."""


@dataclass(frozen=True)
class _Audience:
    progress: Progress = None
    cancel: threading.Event | None = None


_audience: ContextVar[_Audience] = ContextVar("audience", default=_Audience())  # noqa: B039 - frozen


@contextlib.contextmanager
def listening(progress: Progress = None, cancel: threading.Event | None = None) -> Iterator[None]:
    """Inside, ``progress`` hears of all long work of this thread, and ``cancel`` stops it.

    Args:
        progress: see :data:`Progress`; None keeps the listener there is.
        cancel: once it is set, the work ends with ``CancelledError`` at its
            next step; None keeps the one there is.

    Raises:
        UsageError: one of them is of another kind.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise UsageError(f"progress = {progress!r}.", allowed="a function of a Stage, True, False")
    if cancel is not None and not hasattr(cancel, "is_set"):
        raise UsageError(f"cancel = {cancel!r}.", allowed="a threading.Event")
    outer = _audience.get()
    token = _audience.set(
        _Audience(outer.progress if progress is None else progress, cancel or outer.cancel)
    )
    try:
        yield
    finally:
        _audience.reset(token)


class Tracker:
    """Counts the steps of one piece of work; made by :func:`tracking`."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._stage = Stage(title, 0, total, unit=unit)
        self._audience = _audience.get()
        self._start = time.monotonic()
        self._bar: Any = None

    def advance(self, count: int = 1, note: str = "") -> None:
        """``count`` more steps are done.

        Raises:
            CancelledError: the caller wants it to end.
        """
        self.at(self._stage.done + count, note=note)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        """``done`` steps are done, of ``total`` where that has changed.

        Raises:
            CancelledError: the caller wants it to end.
        """
        last = self._stage
        self._stage = Stage(last.title, done, total or last.total, note, last.unit)
        if self._audience.cancel is not None and self._audience.cancel.is_set():
            raise CancelledError(last.title, done, self._stage.total)
        if callable(self._audience.progress):
            self._audience.progress(self._stage)
        elif self._audience.progress is not False:
            self._draw()

    def _draw(self) -> None:
        seconds = time.monotonic() - self._start
        if self._bar is None and seconds > SHOW_AFTER:
            self._bar = _bar(self._stage)
        if self._bar:
            stage, rate = self._stage, self._stage.done / seconds
            words = f"{rate:.0f} {stage.unit}/s {stage.note}"
            self._bar.update(0, completed=stage.done, total=stage.total, words=words)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()


def _bar(stage: Stage) -> Any:
    """A bar on standard error; False where that is neither a terminal nor a notebook."""
    if not sys.stderr.isatty() and "ipykernel" not in sys.modules:
        return False
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    words = TextColumn("{task.description}"), TextColumn("{task.fields[words]}")
    columns = words[0], BarColumn(), MofNCompleteColumn(), words[1], TimeRemainingColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task(stage.title, total=stage.total, words="")
    bar.start()
    return bar


def tracking(title: str, total: int, unit: str = "steps") -> contextlib.closing[Tracker]:
    """A tracker of ``total`` steps; its bar shows once the work has taken two seconds."""
    return contextlib.closing(Tracker(title, total, unit))


def track(
    items: Iterable[T], title: str, total: int | None = None, unit: str = "steps"
) -> Iterator[T]:
    """``items``, one after the other, counted."""
    count = len(items) if total is None and isinstance(items, Sized) else total or 0
    with tracking(title, count, unit) as tracker:
        for item in items:
            yield item
            tracker.advance()
