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
from clip_adapter.datasets.splits import sample_few_shot
from clip_adapter.demo.task import DEMO_TEMPLATES, demo_task
from clip_adapter.errors import UsageError
from clip_adapter.evaluation import evaluate, held_out_features
from clip_adapter.evaluation.plots import confusion_figure, save, shots_figure
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.pictures import embed_pictures
from clip_adapter.files import write_file
from clip_adapter.fitting import fit_task
from clip_adapter.methods import FewShotTask, make_method
from clip_adapter.options import DEFAULT_METHOD, SourceOptions
from clip_adapter.reporting import Progress, listening, tracking
from clip_adapter.sources import PictureSource
from clip_adapter.training.loop import one_thread

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
        UsageError: no seeds or shots.
        ClipAdapterError: something cannot be written.
        CancelledError: ``cancel`` was set.
    """
    if seeds < 1 or not shots or min(shots) < 1:
        raise UsageError(f"{seeds} seeds, shots {list(shots)}.", allowed="1 or more of each")
    start, out, shots = time.perf_counter(), Path(out), sorted(set(shots))
    with listening(progress, cancel), one_thread():
        task_folder = demo_task(out)
        source = PictureSource(str(task_folder), SourceOptions(prompts=DEMO_TEMPLATES, cache=cache))
        source.use(load_backbone(BACKBONE))
        train, _ = source.features("train")
        test = held_out_features(source)
        rows, kept = _table(source, train, test, range(1, seeds + 1), shots)
    files = {"pictures": str(task_folder), "classifier": str(kept.save(out / "classifier"))}
    files |= _write_table(out, rows)
    files |= _draw(out, rows, shots, seeds, evaluate(kept, test))
    return Demo(
        rows,
        len(train.class_names),
        len(test),
        files,
        _predict(source, Path(files["classifier"]), task_folder / "unseen"),
        round(time.perf_counter() - start, 1),
    )


def _table(
    source: PictureSource,
    train: FeatureSet,
    test: FeatureSet,
    seeds: Sequence[int],
    shots: Sequence[int],
) -> tuple[list[Row], Classifier]:
    """All rows, and the classifier to keep: the most shots, the first seed."""
    text, labels = source.text_weights(), train.labels.tolist()
    kept: Classifier | None = None
    rows: list[Row] = []
    cells = list(product(METHODS.items(), shots))
    with tracking("Training", len(cells) * len(seeds), "classifiers") as tracker:
        for (name, (method, options)), count in cells:
            runs, chosen = [], []
            for seed in seeds:
                draw = sample_few_shot(labels, count, seed)
                task = FewShotTask(train.subset(draw), text, source.logit_scale, seed)
                classifier = fit_task(make_method(method, options), task, source.facts())
                runs.append(evaluate(classifier, test).top1)
                selections = classifier.info.get("selection", [])
                chosen.append({s["parameter"]: s["chosen"] for s in selections})
                if (name, count, seed) == (KEPT, max(shots), seeds[0]):
                    kept = classifier
                tracker.advance(note=f"{name}, {count} shots")
            spread = stdev(runs) if len(runs) > 1 else 0.0
            rows.append(Row(name, count, mean(runs), spread, runs, chosen))
    assert kept is not None  # noqa: S101 - KEPT is in METHODS
    return rows, kept


def _write_table(out: Path, rows: Sequence[Row]) -> dict[str, str]:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "shots", "mean", "sd"])
    writer.writerows([r.method, r.shots, f"{r.mean:.2f}", f"{r.sd:.2f}"] for r in rows)
    table = json.dumps([asdict(row) for row in rows], indent=1)
    return {
        "table": str(write_file(out / "table.json", table.encode())),
        "csv": str(write_file(out / "table.csv", text.getvalue().encode())),
    }


def _draw(
    out: Path, rows: Sequence[Row], shots: Sequence[int], seeds: int, report: Any
) -> dict[str, str]:
    lines = {name: [(r.mean, r.sd) for r in rows if r.method == name] for name in METHODS}
    title = f"Demo task: {report.n} test pictures, mean and standard deviation of {seeds} draws"
    accuracy = save(shots_figure(shots, lines, title), out / "accuracy-by-shots.png")
    confusion = confusion_figure(report.confusion, report.class_names)
    return {
        "accuracy_by_shots": str(accuracy),
        "confusion": str(save(confusion, out / "confusion.png")),
    }


def _predict(source: PictureSource, saved: Path, unseen: Path) -> list[dict[str, Any]]:
    """Answers of the saved classifier for pictures that no training or test has seen."""
    classifier = Classifier.load(saved)
    paths = sorted(unseen.iterdir())
    logits = classifier.logits(embed_pictures(source.backbone, paths))
    best = logits.softmax(-1).max(-1)
    return [
        {"path": str(path), "label": classifier.class_names[i], "probability": p}
        for path, i, p in zip(paths, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
