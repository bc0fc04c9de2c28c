"""``clip-adapter scale``: very many pictures, shard by shard, on one machine or on many."""

from __future__ import annotations

import glob
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import SCHEMA, Output
from clip_adapter.errors import ClipAdapterError, UsageError
from clip_adapter.options import DEFAULT_BACKBONE, SourceOptions, changed
from clip_adapter.paths import MANIFEST, check_exists, is_remote
from clip_adapter.scale.workers import EMBED_READS, PREDICT_READS, SHARD_SIZE, Engine, Workers
from clip_adapter.wording import counted

if TYPE_CHECKING:
    from clip_adapter.scale.run import Summary

scale = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
SHARDS_KEPT = "Shards that are done are kept: the same command goes on."

Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="Shards: .tar files of pictures (WebDataset), .parquet files with a column of paths "
        "or pictures, .txt lists of paths; one of them, a folder, a quoted pattern ('in/*.tar'), "
        "or an address such as s3://bucket/folder. Or a folder of pictures, which is cut into "
        "shards.",
    ),
]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        metavar="DIR",
        help="The folder for the results, or an address such as s3://bucket/folder.",
        rich_help_panel=o.RESULT,
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do only every N-th shard, from the I-th on, counted from 0: for job arrays, of "
        "which each job gets another I.",
        show_default="all of them",
        rich_help_panel="Who works",
    ),
]
By = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="This process, or the workers of a Ray cluster (extra 'ray').",
        rich_help_panel="Who works",
    ),
]
Size = Annotated[
    int,
    typer.Option(
        min=1,
        help="Pictures per shard, where a folder of pictures or one list is cut.",
        rich_help_panel=o.READING,
    ),
]


@scale.callback()
def about() -> None:
    """Embed or sort very many pictures: each shard of the input becomes one Parquet file.

    What is done stays: the same command goes on where another one ended, on this machine or on
    another. **docs/scale.md** shows job arrays and Ray.
    """


@scale.command("embed", no_args_is_help=True)
@o.with_options
def embed(
    source: Input,
    *,
    out: Out,
    shard: Part = None,
    engine: By = "local",
    workers: Annotated[Workers, None],
    shard_size: Size = SHARD_SIZE,
    labelled: Annotated[
        bool,
        typer.Option(
            "--labelled",
            help="INPUT is what 'fit' takes, such as a folder of classes: write its classes and "
            "parts (train, val, test) too.",
            rich_help_panel=o.READING,
        ),
    ] = False,
    reading: Annotated[SourceOptions, o.Only(EMBED_READS)],
    json: o.Json = False,
) -> None:
    """Turn the pictures of every shard into a file of features.

    'fit', 'evaluate' and 'predict' read the folder as they read a file of features. Pictures that
    cannot be read are named in DIR/manifest.

    **Examples**

        clip-adapter scale embed photos/ --out features --labelled
        clip-adapter scale embed 'shards/*.tar' --out features --shard 3/64
        clip-adapter scale embed s3://bucket/shards --out s3://bucket/features --engine ray
    """
    with Output(json, SHARDS_KEPT) as output:
        part = _part_of(shard, engine, workers)
        from clip_adapter.datasets.open import parse_spec

        given = parse_spec(source, reading.root) if labelled else source
        o.check_reading(reading)
        if not labelled and not is_remote(source) and not glob.has_magic(source):
            check_exists(source, "The input")
        from clip_adapter.backbones.names import AUTO, check_backbone

        name = reading.backbone or DEFAULT_BACKBONE
        check_backbone(name, fetched=name != AUTO)  # how many pictures there are is not known
        from clip_adapter.scale.run import embed_shards

        done = embed_shards(
            given,
            out,
            engine=engine,
            shard=part,
            shard_size=shard_size,
            labelled=labelled,
            workers=workers,
            **changed(reading),
        )
        _tell(output, done)


@scale.command("predict", no_args_is_help=True)
@o.with_options
def predict(
    classifier: o.SavedClassifier,
    source: Input,
    *,
    out: Out,
    top: Annotated[
        int,
        typer.Option(min=1, help="How many guesses to give per picture.", rich_help_panel=o.RESULT),
    ] = 1,
    shard: Part = None,
    engine: By = "local",
    workers: Annotated[Workers, None],
    shard_size: Size = SHARD_SIZE,
    reading: Annotated[SourceOptions, o.Only(PREDICT_READS)],
    json: o.Json = False,
) -> None:
    """Say what is on the pictures of every shard: a file of answers each.

    The columns are path, digest, label and probability; with --top also label_2, probability_2 and
    so on. Pictures that cannot be read are named in DIR/manifest.

    **Examples**

        clip-adapter scale predict classifier 'shards/*.tar' --out answers
        clip-adapter scale predict classifier photos/ --out answers --engine ray
    """
    with Output(json, SHARDS_KEPT) as output:
        part = _part_of(shard, engine, workers)
        from clip_adapter.hub import classifier_folder

        classifier_folder(classifier)
        from clip_adapter.scale.run import predict_shards

        done = predict_shards(
            classifier,
            source,
            out,
            top=top,
            engine=engine,
            shard=part,
            shard_size=shard_size,
            workers=workers,
            **changed(reading),
        )
        _tell(output, done)


def _part_of(shard: str | None, engine: Engine, workers: Workers) -> tuple[int, int] | None:
    """``3/64`` as numbers.

    Raises:
        UsageError: it is no such part, or options for Ray are given without it.
    """
    if given := [] if engine == "ray" else list(changed(workers)):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{flags} with --engine {engine}.", hint="They are for --engine ray.")
    if shard is None:
        return None
    first, slash, count = shard.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise UsageError(
            f"--shard {shard}", allowed="I/N, with I from 0 to N - 1, such as 0/4 or 3/4"
        )
    return int(first), int(count)


def _tell(output: Output, done: Summary) -> None:
    """Show what was done; the exit code is 1 where something is missing."""
    output.show(
        f"{done.out}: {counted(done.rows, 'picture')} in {counted(done.shards, 'shard')}, "
        f"{done.made} made now and {done.kept} there before, {done.seconds:.1f} s.",
        *([f"Not read: {done.unreadable}, named in {MANIFEST}/."] if done.unreadable else []),
        *(f"Failed: {name}: {fault}" for name, fault in done.failed.items()),
    )
    output.result({"schema": SCHEMA, **asdict(done)})
    if done.failed or (done.shards and not done.rows):
        raise typer.Exit(ClipAdapterError.exit_code)
