"""``evaluate``: a classifier on a test split."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.errors import DataError, UsageError
from clip_adapter.evaluation.report import Report, make_report
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.fitting import source_options
from clip_adapter.reporting import Progress, listening
from clip_adapter.sources import Source, open_source, refuse
from clip_adapter.wording import counted, listed

DEFAULT_SPLIT = "test"


def evaluate(
    classifier: Classifier,
    data: str | Path | FeatureSet,
    *,
    split: str = DEFAULT_SPLIT,
    only_its_classes: bool = False,
    progress: Progress = None,
    cancel: threading.Event | None = None,
    **source: Any,
) -> Report:
    """Score ``classifier``, always beside zero-shot CLIP on the same pictures.

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
        progress: hears how far the work is, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.
        **source: fields of :class:`~clip_adapter.options.SourceOptions`. The backbone, its dtype
            and the prompts are the classifier's own.

    Raises:
        UsageError: an option that would be ignored.
        DataError: no such split, classes that the classifier does not know, rows without a label,
            features of another kind than it was trained on, or nothing to score.
        CancelledError: ``cancel`` was set.
    """
    if isinstance(data, FeatureSet):
        if wrong := [*source, *(["split"] if split != DEFAULT_SPLIT else [])]:
            raise UsageError(
                f"{', '.join(wrong)} would change nothing: the features are given as they are.",
                hint="Leave it away.",
            )
        plain = data if classifier.tower_adapter is None else None
        return _score(classifier, data, plain, only_its_classes, name="features")
    with listening(progress, cancel):
        opened = _open(classifier, data, split, source)
        features, skipped = opened.features(split)
        plain = features
        if classifier.tower_adapter is not None:
            plain = opened.features(split, other=classifier.backbone())[0]
        return _score(
            classifier,
            features,
            plain,
            only_its_classes,
            name=opened.name,
            skipped=[dataclasses.asdict(bad) for bad in skipped],
            keep_seen=opened.has_splits,
        )


def held_out_features(source: Source, split: str = DEFAULT_SPLIT) -> FeatureSet:
    """Features to give to :func:`evaluate` for many classifiers, embedded once.

    Raises:
        DataError: no such split, or no picture of it can be read.
    """
    return source.features(split)[0]


def _score(
    classifier: Classifier,
    features: FeatureSet,
    plain: FeatureSet | None,
    only_its_classes: bool,
    *,
    name: str,
    skipped: list[dict[str, str]] | None = None,
    keep_seen: bool = True,
) -> Report:
    """The report on features, with zero-shot on their ``plain`` ones of the untouched backbone."""
    _check_norm(features, classifier, name)
    labels = _map_labels(features, classifier, only_its_classes)
    seen = torch.tensor([d in classifier.train_digests for d in features.digests], dtype=torch.bool)
    rows = torch.arange(len(features))
    if not keep_seen and seen.any():
        rows = rows[~seen]
    if not len(rows):
        raise DataError(
            f"{name} has no picture to score"
            + (": every one of them was trained on." if seen.any() else "."),
            hint="Give pictures that were not used by 'fit', or fit with --shots on fewer.",
        )
    logits, zero_shot = classifier.logits(features.subset(rows)), None
    if classifier.text_weights is not None and plain is not None:
        zero_shot = classifier.zero_shot_logits(plain.subset(rows))
    if only_its_classes:
        logits = _among(logits, classifier, features)
        zero_shot = None if zero_shot is None else _among(zero_shot, classifier, features)
    return make_report(
        classifier.class_names,
        logits,
        zero_shot,
        labels[rows],
        method=str(classifier.info.get("method", "classifier")),
        data=name,
        seen_in_training=int(seen.sum()),
        left_out=len(features) - len(rows),
        skipped=skipped or [],
        selection=list(classifier.info.get("selection", [])),
    )


def _among(logits: Tensor, classifier: Classifier, features: FeatureSet) -> Tensor:
    """``logits`` (N, C), with -inf for the classes that ``features`` does not name.

    Classes of one name (ImageNet has two "missile") are one answer, at the place of the first.
    """
    if features.class_names == classifier.class_names:
        return logits
    kept = torch.full_like(logits, -torch.inf)
    for name in set(features.class_names) & set(classifier.class_names):
        alike = [i for i, one in enumerate(classifier.class_names) if one == name]
        kept[:, alike[0]] = logits[:, alike].amax(1)
    return kept


def _open(classifier: Classifier, data: str | Path, split: str, given: Mapping[str, Any]) -> Source:
    """The source of ``data``, read as the classifier's training data was."""
    info = classifier.info
    if given.get("backbone") not in (None, info.get("backbone")):
        raise UsageError(
            f"backbone={given['backbone']!r}: the classifier was made with "
            f"{classifier.backbone_name}, and only that is used.",
            hint="Leave it away, or fit another classifier.",
        )
    if given.get("dtype") == info.get("dtype"):
        given = {name: value for name, value in given.items() if name != "dtype"}
    options = source_options({**given, "backbone": None})
    own = ("prompts", "descriptions", "dtype", "views")
    refuse("The classifier", "its backbone and text", own, options)
    to_unit = classifier.feature_norm == "unit" and options.feature_norm == "auto"
    source = open_source(
        data,
        options,
        preprocess=given.get("preprocess", info.get("preprocess", "clip")),
        feature_norm="unit" if to_unit else options.feature_norm,
    )
    if "pixels" in source.holds:
        source.use(classifier.encoder(options.device))
    elif classifier.tower_adapter is not None:
        raise DataError(
            f"{source.name} holds features of a backbone as it was; {info.get('method')} trained "
            "inside it.",
            hint="Give the pictures.",
        )
    _check_origin(source, classifier, split)
    return source


def _check_origin(source: Source, classifier: Classifier, split: str) -> None:
    """Refuse a set that ``split`` does not mean, or that another backbone made."""
    if source.set_name is not None and split not in (DEFAULT_SPLIT, source.set_name):
        raise UsageError(
            f"The split {split!r} is asked of {source.name}, where the name after # is the set.",
            hint=f"Leave the split away, or name the set: {source.name.rpartition('#')[0]}#{split}",
        )
    ours, theirs = classifier.info.get("backbone_fingerprint"), source.fingerprint
    if ours and theirs and ours != theirs:
        raise DataError(
            f"{source.name} was made by {source.made_by()['backbone'] or 'a backbone'} with the "
            f"weights {theirs[:12]}; the classifier was trained on {classifier.backbone_name}, "
            f"{ours[:12]}.",
            hint="Embed the pictures with the classifier's backbone.",
        )


def _check_norm(features: FeatureSet, classifier: Classifier, name: str) -> None:
    """Refuse features of length 1 where the head scores the length that they have lost."""
    raw_to_unit = (classifier.feature_norm, features.feature_norm) == ("raw", "unit")
    if classifier.head.sees_length and raw_to_unit:
        raise DataError(
            f"{name} has features of length 1 (feature_norm unit), and the classifier was trained "
            "on raw ones, whose length counts in its scores.",
            hint="Give raw features, or fit again with --feature-norm unit.",
        )


def _map_labels(features: FeatureSet, classifier: Classifier, by_name: bool) -> Tensor:
    """Labels of ``features`` as the classifier counts them: classes are matched by name.

    With ``by_name``, classes of the classifier that are called alike are one, the first of them.
    """
    if unlabelled := int((features.labels < 0).sum()):
        raise DataError(
            f"{unlabelled} of {len(features)} rows have no label.",
            hint="Label them, or leave them out; 'predict' needs no labels.",
        )
    theirs, ours = features.class_names, classifier.class_names
    if theirs == ours:
        return features.labels
    for whose, names in {"test data": theirs, "classifier": [] if by_name else ours}.items():
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise DataError(
                f"The {whose} has {len(twice)} class names twice ({', '.join(twice[:3])}), so "
                "classes cannot be matched by name, and the two lists of classes differ.",
                hint="Give both the same list in the same order, or make the names unique.",
            )
    position = {name: i for i, name in reversed(list(enumerate(ours)))}
    if unknown := sorted({theirs[i] for i in features.labels.tolist()} - set(position)):
        classes = counted(len(unknown), "class of the test data is", "classes of the test data are")
        raise DataError(
            f"{classes} unknown to the classifier: {listed(unknown)}.",
            allowed=", ".join(ours[:20]) + (" ..." if len(ours) > 20 else ""),
            hint="Name the classes as at training (--class-names), or remove them.",
        )
    return torch.tensor([position.get(name, -1) for name in theirs])[features.labels]
