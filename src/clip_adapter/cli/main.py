"""``clip-adapter``: the command line. Heavy imports happen inside the commands."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from clip_adapter._version import __version__
from clip_adapter.cli.bench import bench
from clip_adapter.cli.data import data
from clip_adapter.cli.demo import demo
from clip_adapter.cli.doctor import doctor
from clip_adapter.cli.embed import embed
from clip_adapter.cli.evaluate import evaluate
from clip_adapter.cli.fit import fit
from clip_adapter.cli.ls import ls
from clip_adapter.cli.predict import predict
from clip_adapter.cli.scale import scale

# Names of old that still work, by today's.
OLD_NAMES = {"style": "preprocess"}


def _name_of_today(token: str) -> str:
    return OLD_NAMES.get(token, token)


app = typer.Typer(
    name="clip-adapter",
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
    try:
        app()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
