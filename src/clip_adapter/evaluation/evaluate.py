"""``evaluate``: a classifier on a test split."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_adapter.api import source_options
from clip_adapter.classifier import Classifier
from clip_adapter.errors import DataError
from clip_adapter.evaluation.metrics import confusion_matrix, per_class_accuracy, top_k
from clip_adapter.evaluation.report import Report
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.sources import PictureSource, Source, open_source

TOP = 5


def evaluate(
    classifier: Classifier, data: str | Path | FeatureSet, *, split: str = "test", **source: Any
) -> Report:
    """Scores ``classifier``, always beside zero-shot CLIP on the same pictures.

    A picture is recognised by its content when it was trained on. Where ``data`` tells training
    from test pictures, such pictures are counted and reported; where it does not (a plain folder
    of classes), they are left out of the score.

    Args:
        classifier: what to score.
        data: as for ``fit``, or features.
        split: "test", "val" or "train"; a source without splits is taken whole.
        **source: fields of :class:`~clip_adapter.options.SourceOptions`.

    Raises:
        DataError: no such split, classes that the classifier does not know, or nothing to score.
    """
    skipped: list[dict[str, str]] = []
    has_splits = True
    if isinstance(data, FeatureSet):
        features, name = data, "features"
    else:
        opened = _open(classifier, data, source)
        found, bad = opened.features(split)
        features, name, has_splits = found, str(opened.name), opened.has_splits
        skipped = [dataclasses.asdict(b) for b in bad]
    labels = _map_labels(features, classifier)
    seen = torch.tensor([d in classifier.seen for d in features.digests], dtype=torch.bool)
    seen_count = int(seen.sum())
    rows = torch.arange(len(features))
    if seen_count and not has_splits:
        rows = rows[~seen]
    if not len(rows):
        raise DataError(
            f"{name} has no picture to score"
            + (": every one of them was trained on." if seen_count else "."),
            hint="Give pictures that were not used by 'fit', or fit with --shots on fewer.",
        )
    labels, inputs = labels[rows], features.subset(rows)
    logits = classifier.logits(inputs)
    zero_shot = None
    if classifier.zero_shot_weights is not None:
        zero_shot = classifier.zero_shot_logits(inputs)
    report = _report(classifier, logits, zero_shot, labels)
    report.data, report.skipped = name, skipped
    report.seen_in_training, report.left_out = seen_count, len(features) - len(rows)
    return report


def held_out_features(source: Source, split: str = "test") -> FeatureSet:
    """Features to give to :func:`evaluate` for many classifiers, embedded once.

    Raises:
        DataError: no such split, or no picture of it can be read.
    """
    return source.features(split)[0]


def _open(classifier: Classifier, data: str | Path, given: dict[str, Any]) -> Source:
    info = classifier.info
    given = {"style": info.get("preprocess", "clip")} | given
    options = source_options(given)
    source = open_source(data, options)
    if isinstance(source, PictureSource):
        source.use(classifier.backbone(options.device, options.say))
    return source


def _map_labels(features: FeatureSet, classifier: Classifier) -> Tensor:
    """Labels of ``features`` as the classifier counts them: classes are matched by name."""
    theirs, ours = features.class_names, classifier.class_names
    if theirs == ours:
        return features.labels
    position = {name: i for i, name in enumerate(ours)}
    used = sorted({theirs[i] for i in features.labels.tolist()})
    unknown = [name for name in used if name not in position]
    if unknown:
        raise DataError(
            f"{len(unknown)} classes of the test data are unknown to the classifier: "
            f"{', '.join(map(repr, unknown[:5]))}{' ...' if len(unknown) > 5 else ''}.",
            allowed=", ".join(ours[:20]) + (" ..." if len(ours) > 20 else ""),
            hint="Name the classes as at training (--class-names), or remove them.",
        )
    table = torch.tensor([position.get(name, -1) for name in theirs])
    return table[features.labels]


def _report(
    classifier: Classifier, logits: Tensor, zero_shot: Tensor | None, labels: Tensor
) -> Report:
    names = classifier.class_names
    classes = len(names)
    confusion = confusion_matrix(logits.argmax(1), labels, classes)
    accuracies = per_class_accuracy(confusion)
    present = [a for a in accuracies if a is not None]
    zero_per_class = None
    if zero_shot is not None:
        plain = confusion_matrix(zero_shot.argmax(1), labels, classes)
        zero_per_class = dict(zip(names, per_class_accuracy(plain), strict=True))
    return Report(
        method=str(classifier.info.get("method", "classifier")),
        data="",
        n=len(labels),
        top1=top_k(logits, labels, 1),
        top5=top_k(logits, labels, TOP) if classes > TOP else None,
        mean_per_class=sum(present) / len(present),
        zero_shot_top1=None if zero_shot is None else top_k(zero_shot, labels, 1),
        per_class=dict(zip(names, accuracies, strict=True)),
        zero_shot_per_class=zero_per_class,
        class_counts=dict(zip(names, confusion.sum(1).tolist(), strict=True)),
        confusion=confusion.tolist(),
        class_names=list(names),
        selection=list(classifier.info.get("selection", [])),
    )
