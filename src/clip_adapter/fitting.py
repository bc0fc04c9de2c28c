"""``fit``: labelled pictures or features in, a classifier out."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.datasets.coverage import distinct_pictures, empty_classes
from clip_adapter.datasets.leak_guard import nothing_but_the_task
from clip_adapter.datasets.splits import sample_few_shot
from clip_adapter.errors import (
    ClassifierError,
    ClipAdapterError,
    MissingTextError,
    UsageError,
)
from clip_adapter.methods import Method, get_method, make_method, method_names
from clip_adapter.methods.base import check_fitted
from clip_adapter.options import DEFAULT_METHOD, DEFAULT_SEED, Compute, SourceOptions
from clip_adapter.reporting import Progress, listening, log
from clip_adapter.sources import Offer, Source, open_source
from clip_adapter.task import FewShotTask, Fitted, HeldOutLogits
from clip_adapter.training.selection import mean

if TYPE_CHECKING:
    from clip_adapter.towers import TowerAdapter

# What torch's generators take.
MAX_SEED = 2**63
# So many shots are scored once, to see that the scores are numbers.
PROBED = 256
PACKAGES = ("clip-adapter", "torch", "open_clip_torch", "scikit-learn", "numpy")


def fit(
    data: str | Path,
    *,
    method: str = DEFAULT_METHOD,
    options: Mapping[str, Any] | None = None,
    shots: int | None = None,
    seed: int = DEFAULT_SEED,
    progress: Progress = None,
    cancel: threading.Event | None = None,
    compute: Compute | None = None,
    **source: Any,
) -> Classifier:
    """A classifier from the training split of ``data``.

    Args:
        data: a folder (``class/pic.jpg`` or ``train|val|test/class/pic.jpg``), a table, a hub data
            set or a feature file. A source without splits is all training data.
        method: one of ``clip-adapter ls methods``.
        options: hyper-parameters of the method, by name.
        shots: K, pictures per class to draw, as CoOp draws them; None takes all.
        seed: of the draw and of the training.
        progress: hears how far the work is, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.
        compute: devices, precision, checkpoint of a training inside the backbone; its device is
            that of the backbone.
        **source: the fields of :class:`~clip_adapter.options.SourceOptions`, such as ``backbone``,
            ``prompts``, ``class_names``, ``views``, ``cache``.

    Returns:
        The classifier; ``info`` records the resolved configuration.

    Raises:
        UsageError: an unknown method, option or source option.
        DataError: the source cannot be used.
        MissingTextError: the method needs text weights and the source has none.
        BackboneError: the backbone cannot be had.
        CancelledError: ``cancel`` was set.
    """
    chosen = make_method(method, options)
    if not isinstance(seed, int) or not 0 <= seed < MAX_SEED:
        raise UsageError(f"seed = {seed!r}.", allowed=f"a whole number, 0 to {MAX_SEED - 1}")
    reading = source_options(source)
    own = not isinstance(reading.backbone, str | None)
    if own:
        reading = dataclasses.replace(reading, backbone=reading.load_backbone())
    if compute is not None and chosen.reads != "images":
        raise UsageError(
            f"{method} trains nothing inside the visual tower: devices, precision, accumulate and "
            "checkpoint would change nothing.",
            hint="Leave them away.",
        )
    with listening(progress, cancel):
        opened = open_source(data, reading)
        task, facts = make_task(
            opened, shots=shots, seed=seed, views=reading.views, method=chosen, compute=compute
        )
        classifier = fit_task(chosen, task, facts)
    if own:
        classifier.use(reading.backbone)
    return classifier


def fit_task(
    method: Method,
    task: FewShotTask,
    facts: Mapping[str, Any],
) -> Classifier:
    """The classifier that ``method`` makes of ``task``, with the record of how it was made.

    Args:
        method: with its options.
        task: the shots.
        facts: what else to record, from ``Source.facts``.
    """
    start = time.perf_counter()
    with nothing_but_the_task(method.name):
        fitted = method.fit(task)
    return make_classifier(fitted, method, task, facts, time.perf_counter() - start)


def fit_tasks(
    methods: Sequence[Method],
    tasks: Sequence[FewShotTask],
    facts: Mapping[str, Any],
) -> list[Classifier]:
    """As :func:`fit_task` for several tasks, in one pass of the training.

    Args:
        methods: of one class, and of one ``together_key`` that is not None.
        tasks: one for each method, with one text and equally many shots.
        facts: of all tasks.

    Returns:
        A classifier for each. Each records an equal share of the seconds.

    Raises:
        UsageError: these cannot be trained together.
    """
    keys = {(type(method), method.together_key()) for method in methods}
    sizes = {len(task.train) for task in tasks}
    if len(keys) > 1 or None in {key for _, key in keys} or len(sizes) > 1:
        raise UsageError(
            f"{len(methods)} trainings that differ in more than ratio and seed.",
            hint="Fit them one by one.",
        )
    start = time.perf_counter()
    with nothing_but_the_task(methods[0].name):
        all_fitted = type(methods[0]).fit_together(methods, tasks)
    seconds = (time.perf_counter() - start) / len(methods)
    return [
        make_classifier(f, m, t, facts, seconds)
        for f, m, t in zip(all_fitted, methods, tasks, strict=True)
    ]


def make_classifier(
    fitted: Fitted,
    method: Method,
    task: FewShotTask,
    facts: Mapping[str, Any],
    seconds: float,
) -> Classifier:
    """The classifier of ``fitted``, checked, with the record of how it was made.

    Raises:
        UsageError: ``method`` returned something else, see :func:`check_fitted`.
        ClassifierError: it does not score every class, or scores the shots as NaN or infinite.
    """
    check_fitted(fitted, method, task)
    # Features of an adapted tower are not at hand, and may be of another size than those of the
    # task; its parameters were checked.
    probe = task.train.subset(list(range(min(PROBED, len(task.train)))))
    scores = fitted.logits(probe) if fitted.tower_adapter is None else torch.zeros(0)
    if len(scores) and scores.shape[1] != len(task.class_names):
        raise ClassifierError(
            f"What {method.name} learnt scores {scores.shape[1]} classes.",
            allowed=f"all {len(task.class_names)} classes of the task, in their order",
        )
    if not scores.isfinite().all():
        raise ClassifierError(
            f"What {method.name} learnt scores pictures as NaN or infinite.",
            hint="Its options are out of any useful range, or its training diverged.",
        )
    held_out = _on_held_out(fitted.held_out, task)
    return Classifier(
        fitted.head,
        task.class_names,
        feature_norm=fitted.feature_norm or task.train.feature_norm,
        text_weights=task.text_weights,
        train_digests=task.train.digests,
        tower_adapter=cast("TowerAdapter | None", fitted.tower_adapter),
        info={
            "method": method.name,
            **facts,
            "shots": task.shots,
            "seed": task.seed,
            "classes": len(task.class_names),
            "train_pictures": len(task.train),
            "seconds": round(seconds, 3),
            "hyperparameters": dict(fitted.hyperparameters),
            "selection": [dict(choice) for choice in fitted.selection],
            **fitted.details,
            "trained_parameters": fitted.trained_parameters,
            **({"held_out": held_out} if held_out else {}),
            "options": dataclasses.asdict(method),
            "versions": versions(),
        },
    )


def _on_held_out(held: HeldOutLogits | None, task: FewShotTask) -> dict[str, Any] | None:
    """Accuracy of the chosen setting on the held-out shots, beside that of zero-shot."""
    if held is None:
        return None
    labels = task.train.labels[held.rows]
    weight = torch.ones(len(labels)) if held.weight is None else held.weight

    def percent(logits: Tensor) -> float:
        return 100 * mean((logits.argmax(-1) == labels).double(), weight)

    zero_shot = None
    if task.text_weights is not None:
        zero_shot = percent(task.train.plain_view[held.rows] @ task.text_weights.T)
    return {
        "pictures": len(held.rows.unique()),
        "accuracy": percent(held.logits),
        "zero_shot_accuracy": zero_shot,
    }


def source_options(given: Mapping[str, Any]) -> SourceOptions:
    """:class:`SourceOptions` from keywords.

    Raises:
        UsageError: an unknown one, or a value that it does not take.
    """
    known = {f.name for f in dataclasses.fields(SourceOptions)}
    if unknown := sorted(set(given) - known):
        raise UsageError(
            f"Unknown arguments: {', '.join(unknown)}.",
            allowed=", ".join(sorted(known)),
            hint="'style' is called 'preprocess'." if "style" in unknown else "",
        )
    return SourceOptions(**given)


def needs(method: Method | type[Method]) -> frozenset[Offer]:
    """What a method must have of a source: "text", "pixels", "backbone"."""
    reads_images = method.reads == "images"
    wanted: dict[Offer, bool] = {
        "text": method.needs_text,
        "pixels": reads_images,
        "backbone": reads_images or method.runs_text_tower,
    }
    return frozenset(offer for offer, needed in wanted.items() if needed)


# Error, message and remedy for what a source lacks; of several, the first is raised.
_MISSING: dict[Offer, tuple[type[ClipAdapterError], str, str]] = {
    "pixels": (
        UsageError,
        "trains inside the backbone and reads pictures, and there are features only.",
        "Give the pictures",
    ),
    "text": (
        MissingTextError,
        "needs text weights (one text feature per class), and there are none.",
        "Add a tensor 'text' (classes, dimension) to the feature file, or name the backbone that "
        "made the features with --backbone, so that the class names are embedded",
    ),
    "backbone": (
        UsageError,
        "runs a tower of the backbone, and none is named.",
        "Name the backbone that made the features (--backbone)",
    ),
}


def check_supply(method: Method, source: Source) -> None:
    """Check that ``source`` offers what ``method`` needs, and that a named backbone is used.

    Raises:
        MissingTextError: text weights are missing; the hint says how to supply them.
        UsageError: pictures or the backbone are missing, or a named backbone would not be used.
    """
    wanted = needs(method)
    missing = [how for offer, how in _MISSING.items() if offer in wanted - source.offers]
    if missing:
        kind, words, remedy = missing[0]
        served = [name for name in method_names() if needs(get_method(name)) <= source.offers]
        raise kind(
            f"{source.name}: {method.name} {words}",
            hint=f"{remedy}, or take a method that needs none: {', '.join(served)}.",
        )
    if source.idle_backbone and "backbone" not in wanted:
        raise UsageError(
            f"--backbone {source.idle_backbone}: the file {source.name} holds text weights, so "
            f"nothing would be made by the backbone: {method.name} reads features.",
            hint="Leave --backbone away.",
        )


def make_task(
    source: Source,
    *,
    shots: int | None = None,
    seed: int = DEFAULT_SEED,
    views: int = 1,
    method: Method | None = None,
    compute: Compute | None = None,
) -> tuple[FewShotTask, dict[str, Any]]:
    """The few-shot task of a source's training split, and facts to remember about it.

    Args:
        source: what to learn from.
        shots: K, or None for all pictures.
        seed: of the draw and of the training.
        views: augmented views of each picture.
        method: the task has what it asks for: text weights, pictures, the backbone.
        compute: how a pixel-reading method trains.

    Raises:
        MissingTextError, UsageError: the source does not have it.
    """
    wanted: frozenset[Offer] = frozenset()
    if method is not None:
        wanted = needs(method)
        check_supply(method, source)
        if views > 1 and not method.uses_views:
            raise UsageError(
                f"views = {views} would change nothing: {method.name} reads the pictures "
                "themselves, with a new random view in every epoch.",
                hint="Leave it away.",
            )
    rows = None if shots is None else sample_few_shot(source.labels("train"), shots, seed)
    start = time.perf_counter()
    read, skipped = source.features("train", rows, views)
    distinct, notes = distinct_pictures(read.labels.tolist(), read.digests)
    if notes:
        warnings.warn(" ".join(notes), UserWarning, stacklevel=2)
    text = source.text_weights()
    backbone = source.backbone if "backbone" in wanted else None
    task = FewShotTask(
        read.subset(distinct) if notes else read,
        text,
        source.logit_scale,
        seed,
        backbone=backbone,
        templates=tuple(source.templates),
    )
    if method is not None and "text" in wanted:
        task.require_text(method.name)
    facts: dict[str, Any] = {}
    if "pixels" in wanted and backbone is not None:
        pictures = source.pictures("train", rows, {bad.name for bad in skipped}, read.digests)
        where = dataclasses.replace(compute or Compute(), device=backbone.device)
        task = dataclasses.replace(task, pictures=pictures.subset(distinct), compute=where)
        # Where the checkpoint lay says nothing of the result.
        facts = {"compute": {k: v for k, v in vars(where).items() if k != "checkpoint"}}
    if method is not None:
        # What was left out may have been all that a class had.
        named = source.names_empty_classes and not notes
        speaks = method.uses_text and text is not None
        labels = task.train.labels.tolist()
        if note := empty_classes(labels, task.class_names, named, speaks):
            log.warning(note)
    return task, {
        **source.facts(),
        "views": views,
        "embed_seconds": round(time.perf_counter() - start, 3),
        "skipped": [dataclasses.asdict(bad) for bad in skipped],
        **facts,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    packages = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    return {**packages, "threads": str(torch.get_num_threads())}
