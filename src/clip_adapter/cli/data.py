"""``clip-adapter data``: the data sets of the paper, listed, fetched and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output, command, table
from clip_adapter.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.datasets.download.check import Check

# Lines of one kind that people are shown; --json has all of them.
MOST_LINES = 20

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A data set, as 'clip-adapter data ls' names it.")
]
Root = Annotated[
    Path,
    typer.Option(
        "--root", metavar="DIR", help="The folder that holds all the data sets, or will hold them."
    ),
]

data = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@data.callback()
def about() -> None:
    """List, fetch and check the paper's data sets.

    They are kept in the folders that CoOp and most later papers use, so sets that you have already
    are read as they are: **clip-adapter fit eurosat --root DIR**.
    """


@data.command("ls")
def ls(json: o.Json = False) -> None:
    """List the data sets: classes, pictures, size of the download, licence.

    **Examples**

        clip-adapter data ls
        clip-adapter data ls --json
    """
    with Output(json) as out:
        from clip_adapter.datasets.catalog import benchmark_names, get_benchmark

        rows = [get_benchmark(name).to_dict() for name in benchmark_names()]
        out.result(rows)
        if not json:
            out.show(_table(rows))


@data.command("get", no_args_is_help=True)
def get(
    name: Name,
    root: Root,
    hub: Annotated[
        bool,
        typer.Option("--hub", help="Take the copy on the Hugging Face hub, with its own splits."),
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what was downloaded once it is unpacked.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Download a data set, check it against the published checksums, and unpack it.

    What breaks off goes on when the same command is run again. What only a person can fetch is
    said in words. An archive that you have already is used when it lies in DIR/downloads/, and
    stays there.

    **Examples**

        clip-adapter data get eurosat --root data/
        clip-adapter data get stanford_cars --root data/ --hub
    """
    from clip_adapter.datasets.download.get import fetch_benchmark

    with Output(json, "What has come is kept: the same command goes on.") as out:
        done = fetch_benchmark(name, root, hub=hub, keep=keep)
        out.result({**vars(done), "complete": not done.to_do})
        lines = [f"{done.name} is in {done.folder}."]
        if done.to_do:
            lines = ["Left to do by hand:", *(f"  * {line}" for line in done.to_do)]
        out.show(*lines, f"Next: {command('data', 'check', done.name, '--root', root)}")


@data.command("check", no_args_is_help=True)
def check(
    name: Name,
    root: Root,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Do not decode the pictures; damaged ones are not found."),
    ] = False,
    json: o.Json = False,
) -> None:
    """Compare a data set with its lists, file by file, and decode every picture.

    Names what is missing, too much, renamed or damaged. The exit code is 1 if anything is.

    **Examples**

        clip-adapter data check eurosat --root data/
        clip-adapter data check imagenet --root data/ --fast --json
    """
    from clip_adapter.datasets.download.check import check_benchmark

    with Output(json) as out:
        report = check_benchmark(name, root, fast)
        out.result(report.to_dict())
        out.show(*_lines(report))
        if not report.ok:
            raise typer.Exit(1)


def _table(rows: list[dict[str, Any]]) -> Table:
    from clip_adapter.hub import size_of

    numbers = ("classes", "train", "val", "test")
    cells = []
    for row in rows:
        sizes = [f"{row[n]:,}" if row[n] else "-" for n in numbers]
        download = "unknown" if row["addresses"] else "by hand"
        if row["download_bytes"] is not None:
            download = size_of(row["download_bytes"])
        cells.append((row["name"], row["title"], *sizes, download, row["licence"]))
    headings = ("name", "title", *numbers, "download", "licence")
    caption = "clip-adapter data get NAME --root DIR. Sizes as CoOp splits the sets."
    printed = table(headings, cells, right=headings[2:-1], caption=caption)
    printed.columns[0].no_wrap = True  # names are there to be copied
    return printed


def _lines(check: Check) -> list[str]:
    """A check in words."""
    sizes = ", ".join(
        f"{check.sizes.get(split, 0):,} of {wanted:,} in {split}"
        for split, wanted in check.expected.items()
    )
    decoded = f", {check.decoded:,} of them decoded whole" if check.decoded else ""
    return [
        f"{check.name} in {check.folder}: {counted(check.files, 'picture')} ({sizes}), "
        f"{counted(check.classes, 'class', 'classes')}{decoded}.",
        *_cut("missing", check.missing),
        *_cut("unexpected", check.unexpected),
        *_cut("renamed?", [" -> ".join(pair) for pair in check.renamed]),
        *_cut("unreadable", [": ".join(pair) for pair in check.unreadable]),
        *_cut("wrong", check.wrong),
        *(f"note: {line}" for line in check.notes),
        "All is as it should be." if check.ok else "Something is wrong.",
    ]


def _cut(kind: str, items: Sequence[str]) -> list[str]:
    lines = [f"{len(items):,} {kind}:"] if items else []
    lines += [f"  {item}" for item in items[:MOST_LINES]]
    if len(items) > MOST_LINES:
        lines.append(f"  and {len(items) - MOST_LINES:,} more; --json has all of them.")
    return lines
