"""The main job from end to end on the embedded CLIP and its demo task. Nothing is downloaded."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from clip_adapter.backbones import load_backbone
from clip_adapter.classifier import Classifier
from clip_adapter.classifier.folder import check_target
from clip_adapter.datasets.open import parse_spec
from clip_adapter.datasets.splits import sample_few_shot
from clip_adapter.demo.task import DEMO, DEMO_TEMPLATES, demo_task, unseen_of
from clip_adapter.errors import UsageError
from clip_adapter.evaluation import Report, evaluate, held_out_features
from clip_adapter.evaluation.plots import confusion_figure, save, shots_figure
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.pictures import embed_pictures
from clip_adapter.files import check_folder, write_file
from clip_adapter.fitting import fit_task
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.options import DEFAULT_METHOD, SourceOptions
from clip_adapter.reporting import Progress, listening, tracking
from clip_adapter.sources import PictureSource
from clip_adapter.threads import one_thread

BACKBONE = "demo"
# Name in the table: method and options. All else is default.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "zero-shot": ("zero-shot", {}),
    "linear-probe": ("linear-probe", {}),
    "clip-adapter, visual": ("clip-adapter", {"branch": "visual"}),
    "clip-adapter, text": ("clip-adapter", {"branch": "text"}),
    "clip-adapter, both": ("clip-adapter", {"branch": "both"}),
    "auto": (DEFAULT_METHOD, {}),
}
KEPT = "auto"
# What is written beside the pictures and the classifier.
FILES = {
    "table": "table.json",
    "csv": "table.csv",
    "accuracy_by_shots": "accuracy-by-shots.png",
    "confusion": "confusion.png",
}
SHOTS = (1, 4, 16)
SEEDS = 3


@dataclass(frozen=True)
class Row:
    """One method at one number of shots: percent right on the test pictures, over the seeds.

    ``sd`` is the sample standard deviation; ``chosen`` what each run chose for itself.
    """

    method: str
    shots: int
    mean: float
    sd: float
    runs: list[float]
    chosen: list[dict[str, Any]]


@dataclass(frozen=True)
class Demo:
    """Results of the demo: the table, files by what they are, and answers for unseen pictures."""

    rows: list[Row]
    classes: int
    test_pictures: int
    files: dict[str, str]
    predictions: list[dict[str, Any]]
    seconds: float


def run_demo(
    out: str | Path,
    *,
    seeds: int = SEEDS,
    shots: Sequence[int] = SHOTS,
    cache: str | Path | None = None,
    progress: Progress = None,
    cancel: threading.Event | None = None,
) -> Demo:
    """Draw the pictures, embed them once, train every method, and write ``out``.

    Args:
        out: folder for the pictures, the table, the figures and the classifier.
        seeds: runs per cell of the table; seed i draws the shots as CoOp's seed i.
        shots: pictures per class, one column each.
        cache: folder of the feature store; None is the user's cache folder.
        progress: hears how far the work is, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.

    Raises:
        UsageError: no seeds or shots, or ``out`` is no folder or one of other things.
        ClipAdapterError: something cannot be written.
        CancelledError: ``cancel`` was set.
    """
    if seeds < 1 or not shots or min(shots) < 1:
        raise UsageError(f"{seeds} seeds, shots {list(shots)}.", allowed="1 or more of each")
    start, out, shots = time.perf_counter(), Path(out), sorted(set(shots))
    check_folder(out)
    others = [name for name in FILES.values() if (out / name).exists()]
    if others and not (out / DEMO.folder).exists():
        raise UsageError(
            f"{out} holds no demo, and {', '.join(others)}, which would be replaced.",
            hint="Name another folder.",
        )
    check_target(out / "classifier")
    with listening(progress, cancel), one_thread():
        task_folder = demo_task(out)
        source = PictureSource(
            parse_spec(task_folder), SourceOptions(prompts=DEMO_TEMPLATES, cache=cache)
        )
        source.use(load_backbone(BACKBONE))
        test = held_out_features(source)
        rows, kept = _table(source, test, range(1, seeds + 1), shots)
    saved = kept.save(out / "classifier")
    return Demo(
        rows,
        len(source.class_names),
        len(test),
        {
            "pictures": str(task_folder),
            "classifier": str(saved),
            **_write(out, rows, evaluate(kept, test)),
        },
        _predict(source, Classifier.load(saved), sorted(unseen_of(task_folder).iterdir())),
        round(time.perf_counter() - start, 1),
    )


def _table(
    source: PictureSource, test: FeatureSet, seeds: Sequence[int], shots: Sequence[int]
) -> tuple[list[Row], Classifier]:
    """All rows, and the classifier to keep: the most shots, the first seed."""
    text, (train, _) = source.text_weights(), source.features("train")
    trained: dict[tuple[str, int, int], Classifier] = {}
    with tracking("Training", len(METHODS) * len(shots) * len(seeds), "classifiers") as tracker:
        for name, count, seed in product(METHODS, shots, seeds):
            draw = train.subset(sample_few_shot(train.labels.tolist(), count, seed))
            task = FewShotTask(draw, text, source.logit_scale, seed)
            trained[name, count, seed] = fit_task(make_method(*METHODS[name]), task, source.facts())
            tracker.advance(note=f"{name}, {count} shots")
    rows = []
    for name, count in product(METHODS, shots):
        runs = [trained[name, count, seed] for seed in seeds]
        right = [evaluate(classifier, test).top1 for classifier in runs]
        chosen = [{s["parameter"]: s["chosen"] for s in c.info["selection"]} for c in runs]
        spread = stdev(right) if len(right) > 1 else 0.0
        rows.append(Row(name, count, mean(right), spread, right, chosen))
    return rows, trained[KEPT, max(shots), seeds[0]]


def _write(out: Path, rows: Sequence[Row], report: Report) -> dict[str, str]:
    """The table and the figures, as files by what they are."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "shots", "mean", "sd"])
    writer.writerows([r.method, r.shots, f"{r.mean:.2f}", f"{r.sd:.2f}"] for r in rows)
    runs = len(rows[0].runs)
    accuracy = shots_figure(
        sorted({row.shots for row in rows}),
        {name: [(r.mean, r.sd) for r in rows if r.method == name] for name in METHODS},
        f"Demo task: {report.n} test pictures, "
        + (f"mean and standard deviation of {runs} draws" if runs > 1 else "one draw"),
    )
    paths = {what: out / name for what, name in FILES.items()}
    write_file(paths["table"], json.dumps([asdict(row) for row in rows], indent=1).encode())
    write_file(paths["csv"], text.getvalue().encode())
    save(accuracy, paths["accuracy_by_shots"])
    save(confusion_figure(report.confusion, report.class_names), paths["confusion"])
    return {what: str(path) for what, path in paths.items()}


def _predict(
    source: PictureSource, classifier: Classifier, paths: Sequence[Path]
) -> list[dict[str, Any]]:
    """Answers for pictures that no training or test has seen."""
    best = classifier.logits(embed_pictures(source.backbone, paths)).softmax(-1).max(-1)
    return [
        {"path": str(path), "label": classifier.class_names[i], "probability": p}
        for path, i, p in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
