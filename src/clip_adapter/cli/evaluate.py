"""``clip-adapter evaluate``: how good is a classifier, and how much better than zero-shot."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clip_adapter.cli import options as o
from clip_adapter.cli.formats import form_of
from clip_adapter.cli.output import FEATURES_KEPT, SCHEMA, Output, replaced, table, written
from clip_adapter.errors import UsageError, unknown_name
from clip_adapter.files import check_file, check_folder
from clip_adapter.options import HELD_OUT, SourceOptions, changed
from clip_adapter.wording import class_rows

if TYPE_CHECKING:
    from rich.table import Table

    from clip_adapter.evaluation import Report

OFFERED = (
    *("class_names", "root", "decode", "device", "batch_size", "cache", "strict", "feature_norm"),
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
            help="Which part to score: test, val or train; held-out is what 'fit' did not learn "
            "from of its own part. A source without such parts is taken whole, without the "
            "pictures that were learned from.",
            rich_help_panel=o.READING,
        ),
    ] = "test",
    reading: Annotated[SourceOptions, o.Only(OFFERED)],
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Draw which classes are taken for which (confusion.png) and, where the method "
            "chose a ratio or the like, how (ratio-curve.png).",
            show_default="no pictures",
            rich_help_panel=o.RESULT,
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write what was answered on each scored picture into this file (.csv, .json, "
            ".jsonl, .parquet or .txt): path, label, answer, probability; wrong ones first.",
            show_default="no file",
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
        clip-adapter evaluate classifier more-photos/ --plots plots/ --answers answers.csv
        clip-adapter evaluate classifier features.safetensors#test --json
    """
    with Output(json, FEATURES_KEPT) as out:
        from clip_adapter.datasets.dataset import SPLITS
        from clip_adapter.datasets.open import parse_spec

        if split not in (*SPLITS, HELD_OUT):
            raise unknown_name("split", split, (*SPLITS, HELD_OUT))
        if plots is not None:
            check_folder(plots)
        form = form_of(answers, flag="--answers")
        if json and answers is not None and _is_output(answers):
            raise UsageError(
                f"--json and --answers {answers} would both write to standard output.",
                hint="Name a file with --answers.",
            )
        folder = o.read_classifier("evaluate", classifier, [data])
        spec = parse_spec(data, reading.root)
        o.check_reading(reading)
        if answers is not None:
            names = [reading.class_names] if isinstance(reading.class_names, str | Path) else []
            check_file(answers, [spec.path, *names, *folder.iterdir()])
        from clip_adapter import evaluation
        from clip_adapter.classifier import Classifier

        report = evaluation.evaluate(Classifier.load(folder), spec, split=split, **changed(reading))
        drawn, older = list[str](), dict[str, str]()
        if plots is not None:
            older = {str(path): replaced(path) for path in plots.glob("*.png")}
            from clip_adapter.evaluation.plots import report_plots

            drawn = [str(path) for path in report_plots(report, plots)]
        out.show(*report.lines(), worst(report))
        for path in drawn:
            out.say(f"Drawn: {path}{older.get(path, '')}")
        if answers is not None:
            from clip_adapter.cli import predictions as p

            out.say(written(answers, p.as_bytes(p.of_report(report), form, p.ANSWERED), form))
        about = {"schema": SCHEMA, "classifier": classifier, "split": split}
        out.result({**about, **report.to_dict(), "plots": drawn})


def _is_output(path: Path) -> bool:
    with contextlib.suppress(OSError):  # it may be closed, and the path not be there
        return os.path.samestat(path.stat(), os.fstat(1))
    return False


def worst(report: Report) -> Table:
    """The classes that are recognised worst, with zero-shot beside."""
    return class_table(report.per_class, report.class_counts, report.zero_shot_per_class)


def class_table(
    per_class: Mapping[str, float | None],
    counts: Mapping[str, int],
    zero_shot: Mapping[str, float | None] | None,
    title: str = "Right answers by class, worst first",
) -> Table:
    """Classes by the share of right answers (%), worst first; those without pictures are left out.

    Args:
        per_class: percent by class name.
        counts: pictures by class name.
        zero_shot: as ``per_class``, by zero-shot CLIP; None where it is not known.
        title: above the table.
    """
    headings, rows, left = class_rows(per_class, counts, zero_shot)
    caption = f"{left} --json gives all." if left else None
    return table(headings, rows, right=headings[1:], title=title, caption=caption)
