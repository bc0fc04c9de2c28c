"""``evaluate``: a classifier on a test split."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.datasets.open import is_feature_spec
from clip_adapter.errors import DataError, UsageError
from clip_adapter.evaluation.metrics import confusion_matrix, per_class_accuracy, top_k
from clip_adapter.evaluation.report import Report
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import source_options
from clip_adapter.sources import FeatureSource, PictureSource, Source, open_source, refuse

TOP = 5
DEFAULT_SPLIT = "test"


def evaluate(
    classifier: Classifier,
    data: str | Path | FeatureSet,
    *,
    split: str = DEFAULT_SPLIT,
    only_its_classes: bool = False,
    **source: Any,
) -> Report:
    """Scores ``classifier``, always beside zero-shot CLIP on the same pictures.

    A picture is recognised by its content when it was trained on. Where ``data`` tells training
    from test pictures, such pictures are counted and reported; where it does not (a plain folder
    of classes), they are left out of the score.

    Args:
        classifier: what to score.
        data: as for ``fit``, or features: those of ``classifier.encoder()``. Of a classifier that
            trained inside the backbone they do not tell what zero-shot says.
        split: "test", "val" or "train"; a source without splits is taken whole. The set of a
            feature file is named after its ``#`` instead.
        only_its_classes: answers are looked for among the classes of ``data`` alone, as
            ImageNet-A and -R are scored, which hold 200 of ImageNet's 1,000. Else a classifier
            may answer with any class that it knows.
        **source: fields of :class:`~clip_adapter.options.SourceOptions`. The backbone, its dtype
            and the prompts are the classifier's own.

    Raises:
        UsageError: an option that would be ignored.
        DataError: no such split, classes that the classifier does not know, rows without a label,
            features of another kind than it was trained on, or nothing to score.
    """
    skipped: list[dict[str, str]] = []
    has_splits = True
    plain: FeatureSet | None = None
    if isinstance(data, FeatureSet):
        if source or split != DEFAULT_SPLIT:
            wrong = ", ".join([*source, *(["split"] if split != DEFAULT_SPLIT else [])])
            raise UsageError(
                f"{wrong} would change nothing: the features are given as they are.",
                hint="Leave it away.",
            )
        features, name = data, "features"
        plain = data if classifier.tower_adapter is None else None
    else:
        opened = _open(classifier, data, split, source)
        found, bad = opened.features(split)
        features, name, has_splits = found, str(opened.name), opened.has_splits
        skipped = [dataclasses.asdict(b) for b in bad]
        plain = found
        if classifier.tower_adapter is not None and isinstance(opened, PictureSource):
            plain = opened.features(split, other=classifier.backbone())[0]
    _check_norm(features, classifier, name)
    labels = _map_labels(features, classifier, only_its_classes)
    seen = torch.tensor([d in classifier.train_digests for d in features.digests], dtype=torch.bool)
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
    if classifier.text_weights is not None and plain is not None:
        zero_shot = classifier.zero_shot_logits(plain.subset(rows))
    if only_its_classes:
        logits = _among(logits, classifier, features)
        zero_shot = None if zero_shot is None else _among(zero_shot, classifier, features)
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


def _among(logits: Tensor, classifier: Classifier, features: FeatureSet) -> Tensor:
    """``logits`` (N, C), with -inf for the classes that ``features`` does not name.

    Classes of one name (ImageNet has two "missile") are one answer, at the place of the first.
    """
    if features.class_names == classifier.class_names:
        return logits
    there, columns = set(features.class_names), logits.unbind(1)
    by_name: dict[str, list[int]] = {}
    for i, name in enumerate(classifier.class_names):
        by_name.setdefault(name, []).append(i)
    kept = torch.full_like(logits, -torch.inf)
    for name in there & set(by_name):
        alike = by_name[name]
        kept[:, alike[0]] = torch.stack([columns[i] for i in alike]).amax(0)
    return kept


def _open(classifier: Classifier, data: str | Path, split: str, given: dict[str, Any]) -> Source:
    info = classifier.info
    own = info.get("backbone")
    if (wanted := given.get("backbone")) not in (None, own):
        raise UsageError(
            f"backbone={wanted!r}: the classifier was made with {classifier.backbone_name}, and "
            "only that is used.",
            hint="Leave it away, or fit another classifier.",
        )
    same = {"backbone": given.get("backbone"), "dtype": info.get("dtype")}
    given = {key: value for key, value in given.items() if (key, value) not in same.items()}
    if is_feature_spec(data):
        if given.get("feature_norm", "auto") == "auto" and classifier.feature_norm == "unit":
            given["feature_norm"] = "unit"
    else:
        given.setdefault("style", info.get("preprocess", "clip"))
    options = source_options(given)
    own = ("prompts", "descriptions", "dtype", "views")
    refuse("The classifier", "its backbone and text", own, options)
    source = open_source(data, options)
    if isinstance(source, PictureSource):
        source.use(classifier.encoder(options.device))
    elif classifier.tower_adapter is not None:
        raise DataError(
            f"{source.name} holds features of a backbone as it was; {info.get('method')} trained "
            "inside it.",
            hint="Give the pictures.",
        )
    else:
        _check_origin(source, classifier, split)
    return source


def _check_origin(source: FeatureSource, classifier: Classifier, split: str) -> None:
    """Whether the set is the one that is meant, and made by the classifier's backbone."""
    if split not in (DEFAULT_SPLIT, source.set_name):
        raise UsageError(
            f"The split {split!r} is asked of {source.name}, where the name after # is the set.",
            hint=f"Leave the split away, or name the set: {source.name.rpartition('#')[0]}#{split}",
        )
    ours, theirs = classifier.info.get("backbone_fingerprint"), source.fingerprint
    if ours and theirs and ours != theirs:
        told = source.facts()["backbone"] or "a backbone"
        raise DataError(
            f"{source.name} was made by {told} with the weights {theirs[:12]}; the classifier was "
            f"trained on {classifier.backbone_name}, {ours[:12]}.",
            hint="Embed the pictures with the classifier's backbone.",
        )


def _check_norm(features: FeatureSet, classifier: Classifier, name: str) -> None:
    """A linear head sees the length of a feature; once it is scaled away, it is lost."""
    if (
        classifier.head.sees_length
        and classifier.feature_norm == "raw"
        and features.feature_norm == "unit"
    ):
        raise DataError(
            f"{name} has features of length 1 (feature_norm unit), and the classifier was trained "
            "on raw ones, whose length counts in its scores.",
            hint="Give raw features, or fit again with --feature-norm unit.",
        )


def _map_labels(features: FeatureSet, classifier: Classifier, by_name: bool) -> Tensor:
    """Labels of ``features`` as the classifier counts them: classes are matched by name.

    With ``by_name``, classes of the classifier that are called alike are one, the first of them.
    """
    unlabelled = int((features.labels < 0).sum())
    if unlabelled:
        raise DataError(
            f"{unlabelled} of {len(features)} rows have no label.",
            hint="Label them, or leave them out; 'predict' needs no labels.",
        )
    theirs, ours = features.class_names, classifier.class_names
    if theirs == ours:
        return features.labels
    for whose, names in (("test data", theirs), ("classifier", ours)):
        if by_name and whose == "classifier":
            continue
        if twice := sorted(n for n, count in Counter(names).items() if count > 1):
            raise DataError(
                f"The {whose} has {len(twice)} class names twice ({', '.join(twice[:3])}), so "
                "classes cannot be matched by name, and the two lists of classes differ.",
                hint="Give both the same list in the same order, or make the names unique.",
            )
    position = {name: i for i, name in reversed(list(enumerate(ours)))}
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
