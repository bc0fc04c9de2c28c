"""Output of commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import typer

from clip_adapter.errors import ClipAdapterError, DataError, PluginError
from clip_adapter.files import is_stream, remedy, write_file
from clip_adapter.reporting import NotesWarning, log
from clip_adapter.wording import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DEBUG_VARIABLE = "CLIP_ADAPTER_DEBUG"
FEATURES_KEPT = "Features made so far are kept: the same command goes on."
# Of the JSON that fit, evaluate and predict print, and of errors: raised when a field goes or means
# another thing.
SCHEMA = 1
# Wider than a terminal: what is piped into a file or a program must not be cut or wrapped early.
PIPED_WIDTH = 160


class _Line(logging.Formatter):
    """A line of the logger, which may name what others have named."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), kept="\n")


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Inside, results are printed; at the end they are written.

    Raises:
        DataError: standard output cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of a file
            raise
        # What is left would make Python complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            raise
        raise DataError(
            f"Standard output cannot be written: {error.strerror or error}.",
            hint=remedy(error, "send it elsewhere"),
        ) from error


class Output:
    """A command's voice, and a context that turns errors into messages and exit codes.

    Inside, lines and warnings of the library go to standard error, each once; afterwards logging
    and warnings are as they were.

    Args:
        as_json: the command was asked for JSON: one value on standard output, nothing else.
        kept: what is kept of the work where it is interrupted, in a sentence.
    """

    interrupt_code: ClassVar[int] = 130
    """The exit code of an interrupted command; 143 or 129 once it was told to end."""

    def __init__(self, as_json: bool, kept: str = "") -> None:
        self.as_json, self.kept = as_json, kept

    def say(self, line: str) -> None:
        """Print a line that is no result to standard error, if that can be written."""
        with contextlib.suppress(OSError):
            print(printable(line, kept="\n"), file=sys.stderr, flush=True)

    def show(self, *things: Any) -> None:
        """Print results for people, text as it is or a table; nothing with JSON."""
        screen = console()
        with standard_output():
            for thing in () if self.as_json else things:
                line = isinstance(thing, str)
                text = printable(thing, kept="\n") if line else thing
                screen.print(text, markup=False, highlight=False, soft_wrap=line)

    def result(self, value: Any) -> None:
        """Print the result for programs; nothing without JSON."""
        if self.as_json:
            self.write(to_json(value) + "\n")

    def write(self, text: str) -> None:
        """Print a result as it is."""
        with standard_output():
            print(text, end="")

    def failed(self, error: str, kind: str, allowed: str = "", hint: str = "") -> None:
        """Print what went wrong for programs; nothing without JSON."""
        told = {"error": error, "allowed": allowed or None, "next": hint or None, "kind": kind}
        with contextlib.suppress(DataError, BrokenPipeError):
            self.result({"schema": SCHEMA, **told})

    def __enter__(self) -> Output:
        self._restored = contextlib.ExitStack()
        self._restored.callback(setattr, log, "handlers", log.handlers)
        self._restored.callback(log.setLevel, log.level)
        self._restored.enter_context(warnings.catch_warnings())
        log.handlers = [logging.StreamHandler(sys.stderr)]
        log.handlers[0].setFormatter(_Line())
        log.setLevel(logging.INFO)
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("ignore", NotesWarning)  # they were logged, one by one
        warnings.showwarning = lambda message, *_, **__: log.warning("%s", message)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._restored.close()
        if code := self._failed(error):
            raise typer.Exit(code) from None

    def _failed(self, error: BaseException | None) -> int:
        """Say what went wrong and return the exit code; 0 where no command failed."""
        if isinstance(error, KeyboardInterrupt):
            kept = str(error) or self.kept
            self.say(f"Interrupted. {kept}".rstrip())
            self.failed("Interrupted.", "Interrupted", hint=kept)
            return self.interrupt_code
        if isinstance(error, BrokenPipeError):
            return 1  # whoever read our output has stopped
        ends = not isinstance(error, Exception) or isinstance(error, typer.Exit)
        if ends or os.environ.get(DEBUG_VARIABLE):
            return 0
        kind = type(error).__name__
        if isinstance(error, SyntaxError) and error.filename:
            ours = Path(__file__).parents[1] in Path(error.filename).parents
            error = PluginError(
                f"{error.filename}, line {error.lineno}: {error.msg}.",
                hint="Mend that line, if it is yours; else install clip-adapter again."
                if ours
                else "It is no part of clip-adapter: mend that line, or report it to its authors.",
            )
        if not isinstance(error, ClipAdapterError):
            kind, reason = "bug", " ".join([f"{kind}:", *str(error).split()]).removesuffix(":")
            error = ClipAdapterError(
                reason,
                hint="This is a bug in clip-adapter. Run the same command with "
                f"{DEBUG_VARIABLE}=1 set to see where it happens, and report it.",
            )
        self.say(f"Error: {error}")
        self.failed(error.found, kind, error.allowed, error.hint)
        return error.exit_code


def console(file: TextIO | None = None) -> Console:
    """The console of standard output, or of ``file``."""
    from rich.console import Console

    target = file or sys.stdout
    return Console(file=target, width=None if target.isatty() else PIPED_WIDTH)


def replaced(path: Path) -> str:
    """What is said, beside its name, of a file that is to be written."""
    older = os.path.isfile(path) and not is_stream(path)
    return ", in the place of an older file" if older else ""


def written(path: Path, data: bytes, form: str) -> str:
    """Write ``data`` to ``path``, and say so, and whether a file was there.

    Raises:
        DataError: it cannot be written.
    """
    words = f"Written: {path} ({form}){replaced(path)}"
    write_file(path, data)
    return words


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: Collection[str] = (),
    **look: Any,
) -> Table:
    """A table to print, whose cells are text as it is.

    Args:
        headings: of the columns.
        rows: their cells, str or rich's ``Text``.
        right: headings of the columns that are set to the right, as numbers are.
        **look: title, caption and so on, as rich's ``Table`` takes them.
    """
    from rich.table import Table
    from rich.text import Text

    printed = Table(title_justify="left", **look)
    for heading in headings:
        printed.add_column(
            heading, justify="right" if heading in right else "left", overflow="fold"
        )
    for row in rows:
        cells = (printable(cell, kept="\n") if isinstance(cell, str) else cell for cell in row)
        printed.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells))
    return printed


def to_json(value: Any, indent: int | None = 1) -> str:
    """Valid JSON in any encoding of standard output; what is not finite becomes null.

    Without ``indent`` it is one line.
    """
    # JSON lacks NaN and the infinities; an empty dict has None for each of them.
    finite = json.loads(json.dumps(value, default=str), parse_constant={}.get)
    text = json.dumps(finite, indent=indent, ensure_ascii=False)
    text = printable(text, kept="\n")  # JSON has no need to, for the letters of a terminal
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # A path whose bytes are no UTF-8, or a name that this encoding has no letters for.
        return json.dumps(finite, indent=indent)
    return text


def command(*words: object) -> str:
    """A command to copy into a shell."""
    return shlex.join(["clip-adapter", *map(str, words)])
