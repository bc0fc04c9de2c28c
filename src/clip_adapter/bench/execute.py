"""What a worker does: a unit of runs is fitted, scored, and told as records.

Here the test set is opened. Costs are those of Table 1 of the paper, on a true architecture with
random weights and features: neither changes what a step costs. A training that takes longer than
``seconds`` is timed for that long and multiplied by the steps that are left, which the record says.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import resource
import subprocess
import sys
import time
import timeit
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import torch

from clip_adapter._version import versions
from clip_adapter.backbones import load_backbone
from clip_adapter.bench.data import Environment, open_set
from clip_adapter.bench.recipe import CostSettings
from clip_adapter.bench.results import Record, Run
from clip_adapter.classifier import Classifier
from clip_adapter.errors import ClipAdapterError, UsageError
from clip_adapter.evaluation import evaluate
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.store import content_digest
from clip_adapter.fitting import fit_task, fit_tasks, make_classifier
from clip_adapter.heads import Head
from clip_adapter.methods import FewShotTask, Method, make_method
from clip_adapter.nn import normalize
from clip_adapter.reporting import Stage, listening, log
from clip_adapter.task import Sizes
from clip_adapter.threads import cores, one_thread, processor

# Of the report on a shifted test set.
SHIFT = ("n", "top1", "zero_shot_top1", "mean_per_class")
# More points in the plane hide each other.
MOST = 1000
PERPLEXITY = 30.0
# Spread of the pictures of a class around its mean: a probe then neither fits at once nor never.
SPREAD = 1.0
_CLEAR, _STATUS = map(Path, ("/proc/self/clear_refs", "/proc/self/status"))
# A set and its shifted ones stay open for the next unit.
_open = functools.lru_cache(6)(open_set)


@dataclass
class Done:
    """What came of a unit.

    Attributes:
        records: of its runs; none where it failed.
        lines: for the user.
        error: why it failed; "" where it did not.
        trace: where, of an error that is a bug.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    error: str = ""
    trace: str = ""


def do_unit(environment: Environment, unit: Sequence[Run]) -> Done:
    """Do ``unit`` in this process; an error goes into the result: it is not the other units'."""
    done, lines = Done(), BufferingHandler(capacity=sys.maxsize)
    log.addHandler(lines)
    try:
        done.records = records_of(environment, unit)
    except ClipAdapterError as error:
        done.error = str(error)
    except Exception as error:
        done.error, done.trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    finally:
        log.removeHandler(lines)
        done.lines = [record.getMessage() for record in lines.buffer]
    return done


def records_of(environment: Environment, unit: Sequence[Run]) -> list[Record]:
    """A record for each run of ``unit``, which are of one data set.

    Raises:
        ClipAdapterError: data, backbone or method cannot do it.
    """
    reset = reset_peak()
    if unit[0].measure == "cost":
        records = [measure_cost(run, environment.device) for run in unit]
    else:
        records = _fit_and_score(environment, unit)
    facts = {
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_memory_mib": round(peak_mib(), 1),
        # Without a new beginning it is that of all runs of this process so far.
        "peak_memory_is_its_own": reset,
    }
    return [record | facts for record in records]


def _fit_and_score(environment: Environment, unit: Sequence[Run]) -> list[Record]:
    data, methods = _open(unit[0].dataset, environment), [run.instance() for run in unit]
    # Runs of one seed share their task: its pictures are read, and lie in memory, once.
    by_seed = {run.seed: (run, method) for run, method in zip(unit, methods, strict=True)}
    drawn = {seed: data.task(*one) for seed, one in by_seed.items()}
    tasks, facts = zip(*(drawn[run.seed] for run in unit), strict=True)
    if len(unit) > 1 and len({len(task.train) for task in tasks}) == 1:
        classifiers = fit_tasks(methods, tasks, facts[0])
    else:  # alone, or a picture of one draw cannot be read: then they are of several sizes
        classifiers = list(map(fit_task, methods, tasks, facts))
    return [_score(environment, *pair) for pair in zip(unit, classifiers, strict=True)]


def _score(environment: Environment, run: Run, classifier: Classifier) -> Record:
    data = _open(run.dataset, environment)
    features, unread = data.test(run, classifier)
    start = time.perf_counter()
    classifier.logits(features)
    seconds = time.perf_counter() - start
    report, info, shifts = evaluate(classifier, features), classifier.info, dict[str, Record]()
    for name in run.shifts:
        pictures, gone = _open(name, environment).test(run, classifier)
        shifted = vars(evaluate(classifier, pictures, only_its_classes=True))
        shifts[name] = {key: shifted[key] for key in SHIFT} | {"test_skipped": gone}
    return {
        "n": report.n,
        "top1": report.top1,
        "mean_per_class": report.mean_per_class,
        "zero_shot_top1": report.zero_shot_top1,
        "seen_in_training": report.seen_in_training,
        "shifts": shifts,
        "chosen": {c["parameter"]: c["chosen"] for c in info.get("selection", [])},
        "hyperparameters": info["hyperparameters"],
        "options": info["options"],
        "classes": info["classes"],
        "train_pictures": info["train_pictures"],
        # Seeds with one digest learned from the same shots: given ones, or all that there are.
        "train_digest": content_digest("".join(sorted(classifier.train_digests)).encode()),
        "trained_parameters": classifier.parameters,
        "train_seconds": info["seconds"],
        "embed_seconds": info["embed_seconds"],
        "score_ms": 1000 * seconds / len(features),
        "copy_of": data.copy_of,
        "skipped": len(info["skipped"]),
        "test_skipped": unread,
        "templates": info["templates"],
        "backbone": {
            "name": info["backbone"],
            "fingerprint": info["backbone_fingerprint"],
            "preprocess": info["preprocess"],
        },
        **(in_the_plane(classifier, features, run.seed) if run.measure == "tsne" else {}),
    }


def in_the_plane(classifier: Classifier, features: FeatureSet, seed: int) -> dict[str, Any]:
    """Points of the features as ``classifier`` compares them with its class weights, by t-SNE.

    Figure 6 of the paper shows them. Where only the class weights were learnt (CoOp), they are the
    features of CLIP.

    Args:
        classifier: with one cosine head.
        features: of the test pictures; ``MOST`` of them are drawn at random.
        seed: of the draw and of t-SNE.

    Returns:
        ``points`` (n, 2), ``labels`` (n,), ``class_names``, and ``silhouette``: how far the
        classes lie apart among the features before t-SNE, -1 to 1.

    Raises:
        UsageError: the classifier does not compare features with class weights.
    """
    head = classifier.head
    if not isinstance(head, Head) or head.kind != "cosine":
        raise UsageError(
            f"{classifier.info.get('method')} has no features to show.",
            allowed="methods that compare one feature with class weights",
        )
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(features), generator=draw)[:MOST].sort().values
    shown, labels = features.plain_view[rows], features.labels[rows].numpy()
    with torch.no_grad():
        unit = normalize(shown if head.image_map is None else head.image_map(shown)).numpy()
    with one_thread():  # the order of sums decides where points end
        tsne = TSNE(perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init="pca", random_state=seed)
        return {
            "points": [
                [round(float(x), 3), round(float(y), 3)] for x, y in tsne.fit_transform(unit)
            ],
            "labels": labels.tolist(),
            "class_names": features.class_names,
            "silhouette": float(silhouette_score(unit, labels, metric="cosine")),
        }


@functools.cache
def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerator of this machine, and torch's threads."""
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "threads": torch.get_num_threads(),
    }


@functools.cache
def commit() -> str | None:
    """The git commit of the code, with "+" where it was changed since; None outside a clone."""
    here = Path(__file__).resolve()
    try:
        _, head, changed = (
            subprocess.check_output(  # noqa: S603 - fixed words
                ["git", *words],  # noqa: S607
                cwd=here.parent,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=10,
            ).strip()
            for words in (
                # A package that lies inside somebody else's clone is not that clone's code.
                ["ls-files", "--error-unmatch", here.name],
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--", "."],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def reset_peak() -> bool:
    """Begin to measure the memory anew; whether this system can (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float:
    """The most memory of this process since :func:`reset_peak`, or since its start, in MiB."""
    status = _STATUS.read_text() if _STATUS.exists() else ""
    peaks = re.findall(r"^VmHWM:\s*(\d+)", status, re.MULTILINE)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peaks[0]) / 1024 if peaks else most / 1024 ** (1 + (sys.platform == "darwin"))


class _EnoughError(Exception):
    """Raised out of a training that was timed long enough."""


def measure_cost(run: Run, device: str = "auto") -> dict[str, Any]:
    """Training and answering of the method of ``run``.

    Returns:
        train_seconds, train_how, train_peak_mib, trained_parameters, embed_seconds (the features
        of all shots, once), infer_ms (a picture through backbone and classifier; the fastest of
        some batches), infer_peak_mib.
    """
    settings = CostSettings(**run.cost)
    backbone = load_backbone(settings.backbone, device=device)
    draw = torch.Generator().manual_seed(run.seed)
    means = torch.randn(settings.classes, backbone.embed_dim, generator=draw)
    labels = torch.arange(settings.classes).repeat(settings.shots)
    task = FewShotTask(
        FeatureSet(
            means[labels] + SPREAD * torch.randn(len(labels), backbone.embed_dim, generator=draw),
            labels,
            [f"class {i}" for i in range(settings.classes)],
        ),
        normalize(means),
        seed=run.seed,
        backbone=backbone,
        templates=("a photo of a {}.",),
    )
    method = run.instance()
    reset_peak()
    seconds, how, classifier = _train(method, task, settings.seconds)
    train_peak = peak_mib()
    reset_peak()
    size = backbone.preprocess.image_size
    pictures = torch.zeros(settings.batch, 3, size, size)
    features, repeat = backbone.encode_images(pictures), settings.repeats
    embed = min(timeit.repeat(lambda: backbone.encode_images(pictures), number=1, repeat=repeat))
    answer = min(timeit.repeat(lambda: classifier.logits(features), number=1, repeat=repeat))
    width = (
        backbone.embed_tokens(backbone.tokenize([""])).shape[-1] if method.runs_text_tower else 0
    )
    sizes = Sizes(task.train.dim, settings.classes, settings.shots, text_width=width)
    return {
        "train_seconds": seconds,
        "train_how": how,
        "train_peak_mib": round(train_peak, 1),
        "trained_parameters": classifier.parameters or method.parameters(sizes) or 0,
        "embed_seconds": embed / settings.batch * len(labels),
        "infer_ms": 1000 * (embed + answer) / settings.batch,
        "infer_peak_mib": round(peak_mib(), 1),
        "settings": settings.model_dump(),
        "device": backbone.device,
    }


def _train(method: Method, task: FewShotTask, enough: float) -> tuple[float, str, Classifier]:
    """(seconds, how they were measured, a classifier of that shape)."""
    start = time.perf_counter()

    def watch(stage: Stage) -> None:
        taken = time.perf_counter() - start
        if taken > enough and stage.done < stage.total:
            raise _EnoughError(
                taken / stage.done * stage.total, f"{stage.done:,} of {stage.total:,} steps timed"
            )

    try:
        with listening(watch):
            fitted = method.fit(task)
    except _EnoughError as stopped:
        # Zero-shot answers at the cost of any classifier with class weights alone.
        return *stopped.args, fit_task(make_method("zero-shot"), task, {})
    seconds = time.perf_counter() - start
    return seconds, "timed whole", make_classifier(fitted, method, task, {}, seconds)
