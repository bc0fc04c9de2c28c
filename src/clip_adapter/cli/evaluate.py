"""``clip-adapter evaluate``: how good is a classifier, and how much better than zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.output import SCHEMA, Output
from clip_adapter.errors import unknown_name
from clip_adapter.options import SourceOptions, changed
from clip_adapter.wording import shortened

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.evaluation import Report

SHOWN = 20
OFFERED = (
    "class_names",
    "root",
    "decode",
    "device",
    "batch_size",
    "cache",
    "strict",
    "feature_norm",
)


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
        from clip_adapter import evaluation
        from clip_adapter.classifier import Classifier

        loaded = Classifier.from_pretrained(classifier)
        report = evaluation.evaluate(loaded, data, split=split, **changed(reading))
        drawn: list[str] = []
        if plots is not None:
            from clip_adapter.evaluation.plots import report_plots

            drawn = [str(path) for path in report_plots(report, plots)]
        out.show(*report.lines(), worst(report), *(f"Drawn: {path}" for path in drawn))
        about = {"schema": SCHEMA, "classifier": classifier, "split": split}
        out.result({**about, **report.to_dict(), "plots": drawn})


def worst(report: Report) -> Table:
    """The classes that are recognised worst, with zero-shot beside."""
    from rich.table import Table

    scored = [(a, name) for name, a in report.per_class.items() if a is not None]
    scored.sort(key=lambda pair: pair[0])
    left = len(scored) - SHOWN
    table = Table(
        title="Right answers by class, worst first" if left <= 0 else f"The {SHOWN} worst classes",
        caption=f"{left} better ones are not shown; --json gives all." if left > 0 else None,
        title_justify="left",
    )
    table.add_column("class", overflow="fold")
    for heading in ("pictures", "right %", *(["zero-shot %"] * bool(report.zero_shot_per_class))):
        table.add_column(heading, justify="right")
    for accuracy, name in scored[:SHOWN]:
        untrained = (report.zero_shot_per_class or {}).get(name)
        beside = [] if untrained is None else [f"{untrained:.1f}"]
        table.add_row(shortened(name), str(report.class_counts[name]), f"{accuracy:.1f}", *beside)
    return table
