"""``clip-adapter evaluate``: how good is a classifier, and how much better than zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import SCHEMA, Output, table
from clip_adapter.errors import unknown_name
from clip_adapter.files import check_folder
from clip_adapter.options import SourceOptions, changed
from clip_adapter.wording import shortened

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.evaluation import Report

SHOWN = 20
OFFERED = ("class_names", "root", "device", "batch_size", "cache", "strict", "feature_norm")


@o.with_options
def evaluate(
    classifier: o.SavedClassifier,
    data: o.Data,
    *,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which part to score: test, val or train. A source without such parts is taken "
            "whole, without the pictures that were learned from.",
            rich_help_panel=o.READING,
        ),
    ] = "test",
    reading: Annotated[SourceOptions, o.Only(OFFERED)],
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Draw which classes are taken for which (confusion.png) and how the ratio was "
            "chosen (ratio-curve.png).",
            show_default="no pictures",
            rich_help_panel=o.RESULT,
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """Count how often a classifier is right, on pictures that it did not learn from.

    The answer stands beside that of zero-shot CLIP (CLIP with the class names alone) on the same
    pictures, so that you see what your examples brought. Pictures are recognised by their content:
    one that was learned from is not counted, or you are warned.

    **Examples**

        clip-adapter evaluate classifier photos/
        clip-adapter evaluate classifier more-photos/ --plots plots/
        clip-adapter evaluate classifier features.safetensors#test --json
    """
    with Output(json) as out:
        from clip_adapter.datasets.dataset import SPLITS

        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        if plots is not None:
            check_folder(plots)
        from clip_adapter.hub import classifier_folder

        folder = classifier_folder(classifier)
        o.check_paths(data, reading)
        from clip_adapter import evaluation
        from clip_adapter.classifier import Classifier

        report = evaluation.evaluate(Classifier.load(folder), data, split=split, **changed(reading))
        drawn: list[str] = []
        if plots is not None:
            from clip_adapter.evaluation.plots import report_plots

            drawn = [str(path) for path in report_plots(report, plots)]
        out.show(*report.lines(), worst(report), *(f"Drawn: {path}" for path in drawn))
        about = {"schema": SCHEMA, "classifier": classifier, "split": split}
        out.result({**about, **report.to_dict(), "plots": drawn})


def worst(report: Report) -> Table:
    """The classes that are recognised worst, with zero-shot beside."""
    untrained = report.zero_shot_per_class or {}
    scored = [(a, name) for name, a in report.per_class.items() if a is not None]
    scored.sort(key=lambda pair: pair[0])
    numbers = ("pictures", "right %", *(["zero-shot %"] if untrained else []))
    rows = [
        (
            shortened(name),
            str(report.class_counts[name]),
            f"{accuracy:.1f}",
            *([f"{untrained[name]:.1f}"] if untrained.get(name) is not None else []),
        )
        for accuracy, name in scored[:SHOWN]
    ]
    left = len(scored) - SHOWN
    return table(
        ("class", *numbers),
        rows,
        right=numbers,
        title="Right answers by class, worst first" if left <= 0 else f"The {SHOWN} worst classes",
        caption=f"{left} better ones are not shown; --json gives all." if left > 0 else None,
    )
