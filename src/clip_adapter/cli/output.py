"""What commands say, and where: results on standard output, everything else on standard error."""

from __future__ import annotations

import errno
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import typer

from clip_adapter.errors import ClipAdapterError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

DEBUG_VARIABLE = "CLIP_ADAPTER_DEBUG"
INTERRUPTED = 130
# Wider than a terminal: what is piped into a file or a program must not be cut or wrapped early.
PIPED_WIDTH = 160
_SHOW_AFTER = 2.0  # seconds; shorter work needs no bar


class Output:
    """A command's voice, and a context that turns errors into messages and exit codes.

    Args:
        as_json: the command was asked for JSON: one value on standard output, nothing else.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, line: str) -> None:
        """A line that is no result."""
        print(line, file=sys.stderr, flush=True)

    def show(self, *things: Any) -> None:
        """Results for people: text as it is, or a table. Nothing with JSON."""
        if self.as_json:
            return
        screen = console()
        for thing in things:
            screen.print(thing, markup=False, highlight=False, soft_wrap=isinstance(thing, str))

    def result(self, value: Any) -> None:
        """The result for programs. Nothing without JSON."""
        if self.as_json:
            print(to_json(value), flush=True)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, typer.Exit | SystemExit):
            return
        if isinstance(error, KeyboardInterrupt):
            kept = str(error) or "Features made so far are kept: the same command goes on."
            self.say(f"Interrupted. {kept}")
            raise typer.Exit(INTERRUPTED) from None
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            # Whoever read our output has stopped; Python would complain once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        if os.environ.get(DEBUG_VARIABLE):
            return
        if isinstance(error, ClipAdapterError):
            self.say(f"Error: {error}")
            self.result(
                {
                    "error": error.found,
                    "allowed": error.allowed or None,
                    "next": error.hint or None,
                    "kind": type(error).__name__,
                }
            )
            raise typer.Exit(error.exit_code) from None
        if isinstance(error, Exception):
            line = " ".join(str(error).split())
            found = f"{type(error).__name__}: {line}" if line else type(error).__name__
            self.say(
                f"Error: {found}\nThis is a bug in clip-adapter. Next: run the same command with "
                f"{DEBUG_VARIABLE}=1 set to see where it happens, and report it."
            )
            self.result({"error": found, "allowed": None, "next": None, "kind": "bug"})
            raise typer.Exit(1) from None


def console(file: TextIO | None = None) -> Console:
    """The console of standard output, or of ``file``."""
    from rich.console import Console

    target = sys.stdout if file is None else file
    return Console(file=target, width=None if target.isatty() else PIPED_WIDTH)


def to_json(value: Any) -> str:
    """Valid JSON in any encoding of standard output; what is not finite becomes null."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    text = json.dumps(finite(value), indent=1, ensure_ascii=plain, allow_nan=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path whose bytes are no UTF-8
        return json.dumps(finite(value), indent=1, allow_nan=False, default=str)
    return text


def finite(value: Any) -> Any:
    """``value`` with None in the place of NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def command(*words: object) -> str:
    """A command to copy into a shell."""
    return shlex.join(["clip-adapter", *map(str, words)])


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short(name) for name in names[:most]) + more


def short(name: str, most: int = 60) -> str:
    """A name that leaves room for others."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


class TrainingBar:
    """A bar on standard error, on a terminal, once training has taken two seconds.

    Call it with (steps done, all steps); a new count from the start is a new round. What was given
    to :meth:`note` before, such as the loss, stands beside the title.
    """

    def __init__(self, title: str = "Training") -> None:
        self._title, self._round, self._last = title, 1, 0
        self._start = time.monotonic()
        self._bar: Progress | None = None
        self._note = ""

    def note(self, words: str) -> None:
        """How the training goes, in a few words; shown at the next step."""
        self._note = f" ({words})"

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps are done."""
        self._round += done < self._last
        self._last = done
        if self._bar is None:
            if not sys.stderr.isatty() or time.monotonic() - self._start < _SHOW_AFTER:
                return
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._title, total=total)
            self._bar.start()
        title = self._title if self._round == 1 else f"{self._title}, round {self._round}"
        title += self._note
        self._bar.update(self._task, description=title, completed=done, total=total)

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
