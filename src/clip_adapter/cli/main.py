"""``clip-adapter``: the command line. Heavy imports happen inside the commands."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clip_adapter._version import __version__
from clip_adapter.cli.bench import bench
from clip_adapter.cli.data import data
from clip_adapter.cli.demo import demo
from clip_adapter.cli.doctor import doctor
from clip_adapter.cli.embed import embed
from clip_adapter.cli.evaluate import evaluate
from clip_adapter.cli.fit import fit
from clip_adapter.cli.ls import ls
from clip_adapter.cli.output import Output, standard_output
from clip_adapter.cli.predict import predict
from clip_adapter.cli.scale import scale
from clip_adapter.errors import DataError, UsageError
from clip_adapter.paths import QUOTES, needs_quotes

# Names of old that still work, by today's.
OLD_NAMES = {"style": "preprocess"}
# A share or an option of a method, with spaces that do not belong there.
_APART = re.compile(r"\S+ (?:%|= \S+)(?!\S)|\S+= \S+")

# Typer has no name of its own for it.
WrongUsage: Any = typer.BadParameter.__base__


def _name_of_today(token: str) -> str:
    return OLD_NAMES.get(token, token)


class Commands(TyperGroup):
    """All commands. What is wrong with their words is JSON too, where that is asked for."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run the command that ``args`` name, or else the words of this process."""
        self._words = sys.argv[1:] if args is None else args
        self._output = Output("--json" in self._words)
        return super().main(args, *rest, **options)

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the words before the command."""
        with self._told():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Read the others, and run the command."""
        with self._told():
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except WrongUsage as error:
            hint = self._hint(error)
            usual = "The same command with --help says what it takes."
            self._output.failed(error.format_message(), UsageError.__name__, hint=hint or usual)
            error.message = "\n".join(filter(None, [error.message, hint]))
            raise

    def _hint(self, error: Any) -> str:
        """What to do about wrong words, where more can be said than what a command takes."""
        if error.message.startswith("Got unexpected extra argument"):
            if apart := _APART.search(" ".join(self._words)):
                return f"Write {apart[0].replace(' ', '')} without a space."
            return needs_quotes(self._words) or QUOTES
        option = getattr(error, "option_name", None)
        having = {
            name: command
            for name, command in self.commands.items()
            if any(option in one.opts for one in command.params)
        }
        if not having or error.cmd.name in having:
            return ""
        hint = f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} {option}."
        fitting = "fit" in having and not any(map(_reads_classifier, having.values()))
        if fitting and _reads_classifier(error.cmd):
            hint += f" {error.cmd.name} takes what the classifier was made with."
        return hint


def _reads_classifier(command: Any) -> bool:
    return any(one.name == "classifier" for one in command.params)


app = typer.Typer(
    name="clip-adapter",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _name_of_today,
    },
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"clip-adapter {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Teach a computer to sort pictures into your own classes, from a handful of examples of each.

    CLIP, a network that was trained on pictures and their captions, looks at every picture once.
    A small part (an adapter) is then trained on your examples, in seconds, and the result is
    always compared with CLIP without any training (*zero-shot*).

    Begin with **clip-adapter demo**: everything at once, without download, in a few minutes.
    Then, with your own pictures in one folder per class:

        clip-adapter fit photos/
        clip-adapter predict classifier new-photos/
    """


for _command in (fit, evaluate, predict, embed, ls):
    app.command(no_args_is_help=True)(_command)
app.command()(demo)
app.command()(doctor)
app.add_typer(data, name="data")
app.add_typer(scale, name="scale")
app.add_typer(bench, name="bench")


def main() -> None:
    """The entry point."""
    # Read when torch loads. By default its threads wait for each other in a busy loop, which on a
    # machine with other work costs several times the work itself; a short loop, then sleep, is as
    # fast on an idle one. (No loop at all, OMP_WAIT_POLICY=PASSIVE, is not.)
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end the work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _end_as_by_the_keyboard(os.getpid())
    try:
        with standard_output():  # help and versions are printed as well
            app()
    except KeyboardInterrupt:
        sys.exit(Output.interrupt_code)
    except (BrokenPipeError, DataError) as error:
        sys.exit(f"Error: {error}" if isinstance(error, DataError) else 1)


def _end_as_by_the_keyboard(starter: int) -> None:
    """Take being told to end (SIGTERM) for Ctrl-C, in the process ``starter`` alone."""

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != starter:  # a copy of it, which is ended by whoever began it
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        Output.interrupt_code = 128 + number
        interrupt = signal.getsignal(signal.SIGINT)
        # It may be left aside, as it is of what a script starts in the background.
        (interrupt if callable(interrupt) else signal.default_int_handler)(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, end)
