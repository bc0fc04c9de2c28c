"""Talk once: lines by one logger, progress by one tracker, and a way to stop long work.

Code says ``log.info`` or ``log.warning`` and counts with :func:`track` or :func:`tracking`. Who
listens is decided once, by the caller, with :func:`listening`; nothing is passed on in between.
What is dropped, or else to be known of the data, is a :func:`note`: a line of the logger, and part
of the one warning with which a call from Python ends (:class:`Notes`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import operator
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from clip_adapter.errors import CancelledError, UsageError

log = logging.getLogger("clip_adapter")
"""Lines for the user: ``warning`` is for what they should know, ``info`` for all else."""

SHOW_AFTER = 2.0  # seconds; shorter work needs no bar
SAY_EVERY = 30.0  # seconds between two lines where there is no screen for a bar
T = TypeVar("T")


class NotesWarning(UserWarning):
    """All notes of one call, a line each; the command line has shown them as they came."""


class Notes(list[str]):
    """Inside, collects the notes of this thread; the outermost one warns of them at its end.

    Those in ``told`` have been said before, and are dropped; each of the others begins with
    ``part``, which says of what pictures it is. Both hold in blocks inside as well.
    """

    def __init__(self, told: Iterable[str] = (), part: str = "") -> None:
        super().__init__()
        self.told, self.part = frozenset(told), part

    def __enter__(self) -> Notes:
        self._outer = _notes.get()
        if self._outer is not None:
            self.told |= self._outer.told
            self.part = self.part or self._outer.part
        _notes.set(self)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        _notes.set(self._outer)
        if self._outer is not None:
            self._outer += self
        elif self and error is None:
            _warn("\n".join(self))
        elif not log.hasHandlers():
            for line in self:
                log.warning(line)


def note(line: str) -> None:
    """Say what the user should know of the data: to the logger, and to :class:`Notes`."""
    collected = _notes.get()
    if collected is not None:
        line = collected.part + line
        if line in collected.told:
            return
        collected.append(line)
    # Where nobody set logging up, Python would print it, and then the warning once more.
    if collected is None or log.hasHandlers():
        log.warning(line)


@functools.cache
def warn_once(line: str) -> None:
    """Log what holds for the whole process, once in it."""
    log.warning(line)


def warn(line: str) -> None:
    """:func:`note` a line, and warn of it also where nothing around collects the notes."""
    with Notes():
        note(line)


def _warn(message: str) -> None:
    """Warn at the line that called this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back and str(frame.f_globals.get("__name__")).split(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, NotesWarning, stacklevel=level)


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


Progress = Callable[[Stage], None] | bool | None
"""Who hears of progress: a function; False, nobody; None or True, a bar where there is a screen,
and where there is none now and then a line of the logger."""

_progress: ContextVar[Progress] = ContextVar("progress", default=None)
_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)
_cancel: ContextVar[threading.Event | None] = ContextVar("cancel", default=None)


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
    listener = _progress.set(_progress.get() if progress is None else progress)
    stopper = _cancel.set(cancel or _cancel.get())
    try:
        yield
    finally:
        _progress.reset(listener)
        _cancel.reset(stopper)


class Tracker:
    """Counts the steps of one piece of work; made by :func:`tracking`."""

    def __init__(self, title: str, total: int, unit: str) -> None:
        self._stage = Stage(title, 0, total, unit=unit)
        self._progress, self._cancel = _progress.get(), _cancel.get()
        self._start = self._said = time.monotonic()
        self._bar: Any = None
        self._screen = sys.stderr.isatty() or "ipykernel" in sys.modules

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
        total = total or self._stage.total
        self._stage = stage = dataclasses.replace(self._stage, done=done, total=total, note=note)
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError(stage.title, done, total)
        now = time.monotonic()
        if callable(self._progress):
            self._progress(stage)
        elif self._progress is False:
            return
        elif not self._screen:
            if now - self._said > SAY_EVERY:
                self._said = now
                words = f" ({note})" if note else ""
                log.info(f"{stage.title}: {done} of {total} {stage.unit}{words}.")
        elif now - self._start > SHOW_AFTER:
            if self._bar is None:
                from tqdm import tqdm

                # Of text: terminals and notebooks show it alike, and it needs no widgets.
                self._bar = tqdm(
                    desc=stage.title,
                    initial=done,
                    total=total,
                    unit=f" {stage.unit}",
                    leave=False,
                    dynamic_ncols=True,
                )
            self._bar.total = total
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def tracking(title: str, total: int, unit: str = "steps") -> contextlib.closing[Tracker]:
    """A tracker of ``total`` steps; its bar shows once the work has taken two seconds."""
    return contextlib.closing(Tracker(title, total, unit))


def track(
    items: Iterable[T], title: str, unit: str = "steps", *, total: int | None = None
) -> Iterator[T]:
    """``items``, one after the other, counted; ``total`` is how many, where they do not know it."""
    count = operator.length_hint(items) if total is None else total
    with tracking(title, count, unit) as tracker:
        for item in items:
            yield item
            tracker.advance()
