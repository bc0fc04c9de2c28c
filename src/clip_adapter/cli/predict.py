"""``clip-adapter predict``: what is on these pictures?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import Output
from clip_adapter.errors import ClipAdapterError, UsageError
from clip_adapter.files import write_file
from clip_adapter.options import SourceOptions

Format = Literal["table", "json", "csv", "parquet"]


@o.with_options
def predict(
    classifier: o.SavedClassifier,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS...",
            help="Pictures: files, folders, quoted patterns ('new/**/*.jpg'), or - for a list of "
            "paths on standard input. Features too: FILE.safetensors#SET.",
        ),
    ],
    *,
    top: Annotated[
        int,
        typer.Option(min=1, help="How many guesses to give per picture.", rich_help_panel=o.RESULT),
    ] = 1,
    form: Annotated[
        Format,
        typer.Option("--format", help="How to write the predictions.", rich_help_panel=o.RESULT),
    ] = "table",
    json: Annotated[
        bool, typer.Option("--json", help="The same as --format json.", rich_help_panel=o.RESULT)
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            metavar="FILE",
            help="Write the answers into this file.",
            show_default="the screen",
            rich_help_panel=o.RESULT,
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option(help="Also look into folders of a folder.", rich_help_panel=o.READING),
    ] = True,
    reading: Annotated[SourceOptions, o.Only(("decode", "device", "batch_size"))],
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep features here, so that the same pictures are quick next time.",
            show_default="nothing is kept",
            rich_help_panel=o.READING,
        ),
    ] = None,
) -> None:
    """Say what is on new pictures.

    Every picture gets one of the classes that the classifier learned, and how sure it is (the
    probability, 0 to 1). It knows no other classes: a picture of something else gets the nearest.
    A picture that cannot be read gets an error in its place, and the others go on.

    **Examples**

        clip-adapter predict classifier new.jpg
        clip-adapter predict classifier holiday/ --top 3
        find . -name '*.png' -print0 | clip-adapter predict classifier - --format csv --out all.csv
    """
    form = "json" if json and form == "table" else form
    with Output(form == "json") as output:
        if json and form != "json":
            raise UsageError(f"--json and --format {form}.", allowed="one of the two")
        if form == "parquet" and out is None:
            raise UsageError("Parquet is no text for a screen.", hint="Add --out FILE.parquet.")
        from clip_adapter.classifier import Classifier
        from clip_adapter.cli import predictions
        from clip_adapter.cli.inputs import collect
        from clip_adapter.datasets.open import is_feature_spec

        loaded = Classifier.from_pretrained(classifier)
        features = [path for path in paths if is_feature_spec(path)]
        if features and len(features) < len(paths):
            raise UsageError("Pictures and features together.", allowed="either of them")
        if features:
            records = [r for spec in features for r in predictions.of_features(loaded, spec, top)]
        else:
            records = predictions.of_pictures(
                loaded,
                collect(paths, recursive),
                top,
                reading,
                cache=cache,
            )
        if out is not None:
            write_file(out, predictions.as_bytes(records, form))
            output.say(f"Written: {out}")
        elif form == "table":
            output.show(predictions.as_table(records))
        elif form == "csv":
            print(predictions.as_csv(records), end="")
        else:
            output.result(predictions.as_json(records))
        failed = sum("error" in record for record in records)
        if failed:
            output.say(f"{failed} of {len(records)} pictures could not be read.")
        if failed == len(records):
            raise typer.Exit(ClipAdapterError.exit_code)
