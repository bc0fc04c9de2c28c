"""``fit``: labelled pictures or features in, a classifier out."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

import torch
from torch import Tensor

from clip_adapter._version import versions
from clip_adapter.classifier import Classifier
from clip_adapter.datasets.coverage import coverage, thin_classes
from clip_adapter.datasets.leak_guard import nothing_but_the_task
from clip_adapter.datasets.open import DataSpec
from clip_adapter.datasets.splits import OF_HELD_OUT, OF_LEARNED, draw
from clip_adapter.errors import ClassifierError, Offer, UsageError, code_of, lacking
from clip_adapter.features.text import alike_note
from clip_adapter.keywords import SourceKeywords
from clip_adapter.methods import Method, get_method, make_method, method_names
from clip_adapter.options import DEFAULT_METHOD, DEFAULT_SEED, Compute, source_options
from clip_adapter.reporting import Notes, Progress, listening, note
from clip_adapter.sources import Source, open_source
from clip_adapter.task import FewShotTask, Fitted, HeldOutLogits, check_two_named

MAX_SEED = 2**63  # what torch's generators take
PROBED = 256  # shots that are scored once, to see that the scores are numbers
OFFERS: tuple[Offer, ...] = ("pixels", "text", "backbone")  # of several, the first is missed
TEXT_REMEDY = (
    "Give it encode_text, list of str -> (N, D), name a backbone with text ('clip-adapter ls "
    "backbones')"
)


def fit(
    data: str | Path | DataSpec,
    *,
    method: str = DEFAULT_METHOD,
    options: Mapping[str, Any] | None = None,
    shots: int | None = None,
    seed: int = DEFAULT_SEED,
    hold_out: str | float | None = None,
    progress: Progress = None,
    cancel: threading.Event | None = None,
    compute: Compute | None = None,
    **source: Unpack[SourceKeywords],
) -> Classifier:
    """A classifier from the training split of ``data``.

    Args:
        data: a folder (``class/pic.jpg`` or ``train|val|test/class/pic.jpg``), a table, a hub data
            set or a feature file. A source without splits is all training data.
        method: one of ``clip-adapter ls methods``.
        options: hyper-parameters of the method, by name.
        shots: K, pictures per class to draw, as CoOp draws them; None takes all.
        seed: of the draws and of the training.
        hold_out: keeps a share of each class apart ("20%", 0.2), or so many pictures of each (5),
            which ``evaluate(classifier, data, split="held-out")`` scores.
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
    if reading.dtype == "auto" and "backbone" in chosen.needs():  # it trains it, or through it
        reading = dataclasses.replace(reading, dtype="float32")
    if compute is not None and chosen.reads != "images":
        raise UsageError(
            f"{method} trains nothing inside the visual tower: devices, precision, accumulate and "
            "checkpoint would change nothing.",
            hint="Leave them away.",
        )
    with listening(progress, cancel), Notes():
        opened = open_source(data, reading)
        task, facts = make_task(
            opened,
            shots=shots,
            seed=seed,
            views=reading.views,
            method=chosen,
            compute=compute,
            hold_out=hold_out,
        )
        classifier = fit_task(chosen, task, facts)
    again = hold_out is not None or not isinstance(reading.backbone, str | None)
    if again and opened.backbone is not None:
        classifier.use(opened.backbone, same=True)
    return classifier


def fit_task(method: Method, task: FewShotTask, facts: Mapping[str, Any]) -> Classifier:
    """The classifier that ``method`` makes of ``task``, with the record of how it was made.

    Args:
        method: with its options.
        task: the shots.
        facts: what else to record, from ``Source.facts``.
    """
    start = time.perf_counter()
    with nothing_but_the_task(method.name), code_of(method):
        fitted = method.fit(task)
    return make_classifier(fitted, method, task, facts, time.perf_counter() - start)


def fit_tasks(
    methods: Sequence[Method], tasks: Sequence[FewShotTask], facts: Mapping[str, Any]
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
    alone = None in {key for _, key in keys}
    if alone or len(keys) > 1 or len({len(task.train) for task in tasks}) > 1:
        raise UsageError(
            f"{len(methods)} trainings that differ in more than ratio and seed.",
            hint="Fit them one by one.",
        )
    start = time.perf_counter()
    with nothing_but_the_task(methods[0].name), code_of(methods[0]):
        all_fitted = type(methods[0]).fit_together(methods, tasks)
    seconds = (time.perf_counter() - start) / len(methods)
    return [
        make_classifier(f, m, t, facts, seconds)
        for f, m, t in zip(all_fitted, methods, tasks, strict=True)
    ]


def make_classifier(
    fitted: Fitted, method: Method, task: FewShotTask, facts: Mapping[str, Any], seconds: float
) -> Classifier:
    """The classifier of ``fitted``, checked, with the record of how it was made.

    Raises:
        UsageError: ``method`` returned something else, or what no classifier can be made of.
        ClassifierError: it does not score every class, or scores the shots as NaN or infinite.
    """
    _check_fitted(fitted, method, task)
    return Classifier(
        fitted.head,
        task.class_names,
        feature_norm=fitted.feature_norm or task.train.feature_norm,
        text_weights=task.text_weights,
        train_digests=task.train.digests,
        tower_adapter=cast(Any, fitted.tower_adapter),
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
            **({"held_out": held_out_scores(held, task)} if (held := fitted.held_out) else {}),
            "options": dataclasses.asdict(method),
            "versions": versions(),
        },
    )


def held_out_scores(held: HeldOutLogits, task: FewShotTask) -> dict[str, Any]:
    """For the record: how many held-out shots were right (%), by class too, beside zero-shot.

    It is optimistic: the candidate was chosen on these shots.
    """
    labels, classes, text = task.train.labels[held.rows], task.class_names, task.text_weights
    weight = torch.ones(len(labels)) if held.weight is None else held.weight
    none = torch.zeros(len(classes), dtype=torch.float64)
    of_class = none.index_add(0, labels, weight.double())
    counts = torch.bincount(task.train.labels[held.rows.unique()], minlength=len(classes))

    def right(logits: Tensor) -> tuple[float, dict[str, float | None]]:
        hits = (logits.argmax(-1) == labels).double() * weight
        shares = (100 * none.index_add(0, labels, hits) / of_class).tolist()
        by_class = [None if math.isnan(share) else share for share in shares]
        return 100 * float(hits.sum() / weight.sum()), dict(zip(classes, by_class, strict=True))

    accuracy, per_class = right(held.logits)
    plain = (None, None) if text is None else right(task.train.plain_view[held.rows] @ text.T)
    return {
        "pictures": int(counts.sum()),
        "accuracy": accuracy,
        "zero_shot_accuracy": plain[0],
        "per_class": per_class,
        "zero_shot_per_class": plain[1],
        "class_counts": dict(zip(classes, counts.tolist(), strict=True)),
    }


def _check_fitted(fitted: Any, method: Method, task: FewShotTask) -> None:
    """Check that ``method`` returned what a classifier can be made of, by its scores on some shots.

    Raises:
        UsageError, ClassifierError: as :func:`make_classifier`; names the class.
    """
    returned = f"{type(method).__qualname__}.fit ({method.name}) returned"
    if not isinstance(fitted, Fitted):
        raise UsageError(
            f"{returned} {type(fitted).__name__}.",
            allowed="a Fitted, with the head that was learnt; docs/add-a-method.md shows one",
        )
    try:
        json.dumps([dict(fitted.hyperparameters), *map(dict, fitted.selection)])
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{returned} hyper-parameters that JSON does not hold: {error}.",
            allowed="numbers, strings, true, false, none and lists of them: tensor.tolist()",
        ) from error
    if fitted.tower_adapter is not None:
        # Features of an adapted tower are not at hand, and may be of another size than those of
        # the task; its parameters were checked.
        return
    try:
        scores = fitted.logits(task.train.subset(list(range(min(PROBED, len(task.train))))))
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{returned} a head that does not take the features: {error}.",
            allowed=f"weights (classes, dimension) = {len(task.class_names), task.train.dim}",
        ) from error
    if scores.shape[1] != len(task.class_names):
        raise ClassifierError(
            f"What {method.name} learnt scores {scores.shape[1]} classes.",
            allowed=f"all {len(task.class_names)} classes of the task, in their order",
        )
    if not scores.isfinite().all():
        raise ClassifierError(
            f"What {method.name} learnt scores pictures as NaN or infinite.",
            hint="Its options are out of any useful range, or its training diverged.",
        )


def check_supply(method: Method, source: Source, views: int) -> frozenset[Offer]:
    """What ``method`` needs, all of which ``source`` offers; and nothing given is left unused.

    Raises:
        DataError: there is only one class.
        MissingTextError: text weights are missing; the hint says how to supply them.
        UsageError: pictures or the backbone are missing, or a named backbone or views would
            change nothing.
    """
    wanted = method.needs()
    check_two_named(source.class_names)  # before a backbone is loaded, to see what it offers
    if source.idle_backbone and "backbone" not in wanted:
        raise UsageError(
            f"--backbone {source.idle_backbone}: the file {source.name} holds text weights, so "
            f"nothing would be made by the backbone: {method.name} reads features.",
            hint="Leave --backbone away.",
        )
    if views > 1 and not method.uses_views:
        raise UsageError(
            f"views = {views} would change nothing: {method.name} reads the pictures "
            "themselves, with a new random view in every epoch.",
            hint="Leave it away.",
        )
    for missing in OFFERS:
        if missing in source.offers or missing not in wanted:
            continue
        served = [one for one in method_names() if get_method(one).needs() <= source.offers]
        remedy = ""
        if missing == "text" and source.backbone is not None:
            remedy = f"{source.backbone.name} encodes pictures only. {TEXT_REMEDY}"
        raise lacking(missing, f"{source.name}: {method.name}", ", ".join(served), remedy)
    return wanted


def make_task(
    source: Source,
    *,
    shots: int | None = None,
    seed: int = DEFAULT_SEED,
    views: int = 1,
    method: Method | None = None,
    compute: Compute | None = None,
    hold_out: str | float | None = None,
) -> tuple[FewShotTask, dict[str, Any]]:
    """The few-shot task of a source's training split, and facts to remember about it.

    Args:
        source: what to learn from.
        shots: K, or None for all pictures.
        seed: of the draw and of the training.
        views: augmented views of each picture.
        method: the task has what it asks for: text weights, pictures, the backbone.
        compute: how a pixel-reading method trains.
        hold_out: what is kept apart of each class, see :func:`~.splits.draw`.

    Raises:
        DataError: there is only one class.
        MissingTextError, UsageError: the source does not have it; or it has a test split, and
            more was to be kept apart.
    """
    with Notes() as notes:
        source.shots = shots
        # The weights of a backbone may have to be fetched: what is asked for is checked before.
        labels = source.labels("train")
        if hold_out is not None and source.has_test:
            raise UsageError(
                f"--hold-out {hold_out}: {source.name} has test pictures already.",
                hint="Leave --hold-out away: 'clip-adapter evaluate' scores the test split.",
            )
        rows, apart = draw(labels, shots, seed, hold_out)
        wanted = frozenset() if method is None else check_supply(method, source, views)
        start = time.perf_counter()
        with Notes(part=OF_LEARNED if apart else ""):
            read, skipped = source.features("train", rows, views)
        # They are scored later; whether one is a copy under another label counts now.
        with Notes(part=OF_HELD_OUT):
            kept = source.features("train", apart, other=source.backbone)[0] if apart else None
        text = source.text_weights()
        lasting = coverage(
            read.labels.tolist(),
            read.digests,
            source.class_names,
            beside=zip(kept.digests, kept.labels.tolist(), strict=False) if kept else (),
            # Notes on the data name them, and on pictures that cannot be read.
            named="pixels" in source.holds,
            text=method is not None and method.uses_text and text is not None,
        )
        drawn = labels if rows is None else [labels[row] for row in rows]
        learned = read.labels[lasting.rows].tolist()
        thin = thin_classes(drawn, read.labels.tolist(), learned, source.class_names, shots)
        empty = [lasting.empty] if method is not None and lasting.empty else []
        for line in (*thin, *lasting.dropped, *empty):
            note(line)
        pictures, where = None, Compute(device=source.device)
        if "pixels" in wanted:
            all_read = source.pictures("train", rows, {bad.name for bad in skipped}, read.digests)
            pictures = all_read.subset(lasting.rows)
            where = dataclasses.replace(compute or where, device=where.device)
        task = FewShotTask(
            read.subset(lasting.rows) if lasting.dropped else read,
            text,
            source.logit_scale,
            seed,
            backbone=source.backbone if "backbone" in wanted else None,
            pictures=pictures,
            templates=tuple(source.templates),
            compute=where,
        )
        if alike := alike_note(task.text_weights, task.class_names):
            note(alike)
    # Where the checkpoint lay says nothing of the result.
    trained_by = {k: v for k, v in vars(where).items() if k != "checkpoint"}
    return task, {
        **source.facts(),
        "views": views,
        "embed_seconds": round(time.perf_counter() - start, 3),
        "skipped": [dataclasses.asdict(bad) for bad in skipped],
        "other_splits": source.other_splits,
        "not_drawn": 0 if rows is None else len(labels) - len(rows),
        "drawn": {"of": len(labels), "shots": shots},
        "conflicting": lasting.conflicting,
        **({"hold_out": {"asked": str(hold_out), "pictures": len(apart)}} if apart else {}),
        **({"compute": trained_by} if pictures else {}),
        "notes": [*source.notes, *notes],
    }
