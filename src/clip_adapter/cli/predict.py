"""``clip-adapter predict``: what is on these pictures?"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.formats import Format, form_of
from clip_adapter.cli.output import FEATURES_KEPT, Output, written
from clip_adapter.errors import ClipAdapterError, UsageError
from clip_adapter.files import check_file
from clip_adapter.known_names import check_device
from clip_adapter.options import SourceOptions


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
        Format | None,
        typer.Option(
            "--format",
            help="How to write the predictions.",
            show_default="by the ending of --out; a table on the screen",
            rich_help_panel=o.RESULT,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="The same as --format json.", rich_help_panel=o.RESULT)
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output",
            metavar="FILE",
            help="Write the answers into this file: .csv, .json, .jsonl, .parquet or .txt.",
            show_default="the screen",
            rich_help_panel=o.RESULT,
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option(help="Also look into folders of a folder.", rich_help_panel=o.READING),
    ] = True,
    reading: Annotated[SourceOptions, o.Only(("decode", "device", "batch_size", "strict"))],
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
    A picture that cannot be read gets an error in its place, and the others go on; the exit code is
    0 as long as one can be read. With `--strict` one that cannot be read ends the command.

    **Examples**

        clip-adapter predict classifier new.jpg
        clip-adapter predict classifier holiday/ --top 3
        find . -name '*.png' -print0 | clip-adapter predict classifier - --out all.csv
    """
    kept = "Nothing is kept without --cache DIR." if cache is None else FEATURES_KEPT
    with Output(json or form == "json", kept) as output:
        if json and form not in (None, "json"):
            raise UsageError(f"--json and --format {form}.", allowed="one of the two")
        check_device(reading.device)
        if out is not None:
            check_file(out, inputs=[*paths, *(path.rpartition("#")[0] for path in paths)])
        form = form_of(out, "json" if json else form)
        from clip_adapter.cli import predictions
        from clip_adapter.datasets.open import feature_spec

        folder = o.read_classifier("predict", classifier, paths)
        features = list(filter(None, map(feature_spec, paths)))
        if features and len(features) < len(paths):
            raise UsageError("Pictures and features together.", allowed="either of them")
        for spec in features:
            spec.check_there()
        records = [] if features else predictions.collect(paths, recursive)
        if reading.strict:
            predictions.check_readable(records)
        if out is not None:
            # Standard input (0) is the list of pictures, where it is asked for.
            listed = [0] if "-" in paths else []
            named = (record["path"] for record in records)
            check_file(out, inputs=[*listed, *named, *folder.iterdir()])
        # Nothing heavy is needed to say that there is nothing.
        if features or any("error" not in record for record in records):
            from clip_adapter.classifier import Classifier

            loaded = Classifier.load(folder)
            if features:
                answers = (predictions.of_features(loaded, spec, top) for spec in features)
                records = [*chain.from_iterable(answers)]
            else:
                predictions.of_pictures(loaded, records, top, reading, cache=cache)
        if reading.strict:
            predictions.check_readable(records)
        if out is not None:
            output.say(written(out, predictions.as_bytes(records, form), form))
        elif form == "table":
            output.show(predictions.as_table(records))
        elif form != "parquet":
            output.write(predictions.as_text(records, form))
        if failed := sum("error" in record for record in records):
            output.say(f"{failed} of {len(records)} pictures could not be read.")
        if failed == len(records):
            raise typer.Exit(ClipAdapterError.exit_code)
