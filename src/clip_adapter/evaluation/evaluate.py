"""``evaluate``: a classifier on a test split."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.datasets.open import DataSpec
from clip_adapter.datasets.splits import OF_HELD_OUT, not_drawn
from clip_adapter.errors import DataError, UsageError
from clip_adapter.evaluation.report import Answer, Report, why_not_scored
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.text import alike_note
from clip_adapter.keywords import SourceKeywords
from clip_adapter.options import HELD_OUT, source_options
from clip_adapter.reporting import Notes, Progress, listening, log
from clip_adapter.sources import Source, open_source, refuse
from clip_adapter.wording import counted, listed, some_of, told_apart

DEFAULT_SPLIT = "test"
TOP = 5


def evaluate(
    classifier: Classifier,
    data: str | Path | DataSpec | FeatureSet,
    *,
    split: str = DEFAULT_SPLIT,
    only_its_classes: bool = False,
    progress: Progress = None,
    cancel: threading.Event | None = None,
    **source: Unpack[SourceKeywords],
) -> Report:
    """Score ``classifier``, always beside zero-shot CLIP on the same pictures.

    A picture is recognised by its content when it was trained on. Where ``data`` tells training
    from test pictures, such pictures are counted and reported; where it does not (a plain folder
    of classes), they are left out of the score. So is always a picture that lies under two labels
    or more, here or where it was trained: one of them is wrong. Features that are given as such
    are all scored.

    Args:
        classifier: what to score.
        data: as for ``fit``, or features: those of ``classifier.encoder()``. Of a classifier that
            trained inside the backbone they do not tell what zero-shot says.
        split: "test", "val" or "train"; a source without splits is taken whole. "held-out" is
            what ``fit`` kept apart: the pictures of "train" that the classifier did not learn
            from. The set of a feature file is named after its ``#`` instead.
        only_its_classes: answers are looked for among the classes of ``data`` alone, as
            ImageNet-A and -R are scored, which hold 200 of ImageNet's 1,000. Else a classifier
            may answer with any class that it knows.
        progress: hears how far the work is, see :data:`~clip_adapter.reporting.Progress`.
        cancel: once it is set, the work ends at its next step.
        **source: fields of :class:`~clip_adapter.options.SourceOptions`. The backbone, its dtype
            and runtime, and the prompts are the classifier's own.

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
        names = _named_as_trained(data, classifier)
        return _score(classifier, data, plain, "features", names, only_its_classes)
    held_out, named = split == HELD_OUT, source.get("class_names") is not None
    # What is held out lies in the folder that was learned from: fit has told of it.
    told = classifier.info.get("notes", ()) if held_out else ()
    with listening(progress, cancel), Notes(told):
        opened = open_for(classifier, data, split, source)
        split = "train" if held_out else split
        rows = _kept_apart(opened.labels(split), classifier.info) if held_out else None
        with Notes(part=OF_HELD_OUT if rows else ""):
            features, bad = opened.features(split, rows)
        plain = features
        if classifier.tower_adapter is not None:
            plain, _ = opened.features(split, rows, other=classifier.backbone())
        return _score(
            classifier,
            features,
            plain,
            opened.name,
            features.class_names if named else _named_as_trained(features, classifier),
            only_its_classes,
            [dataclasses.asdict(one) for one in bad],
            keep_seen=opened.has_splits and not held_out,
            keep_conflicting=False,
            held_out=len(rows or []),
        )


def _kept_apart(labels: Sequence[int], info: Mapping[str, Any]) -> list[int] | None:
    """The rows of the training split that ``fit`` did not draw; None where that is not known.

    It is not of a classifier of an older version, nor where there are more or fewer pictures now,
    nor where all were drawn.
    """
    drawn = info.get("drawn")
    if not drawn or drawn["of"] != len(labels):
        return None
    asked = info.get("hold_out", {}).get("asked")
    return not_drawn(labels, drawn["shots"], info["seed"], asked) or None


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
    name: str,
    class_names: list[str],
    only_its_classes: bool,
    skipped: Sequence[dict[str, str]] = (),
    *,
    keep_seen: bool = True,
    keep_conflicting: bool = True,
    held_out: int = 0,
) -> Report:
    """The report on features, with zero-shot on their ``plain`` ones of the untouched backbone.

    ``class_names`` are what the classes of the features are called.
    """
    labels = _map_labels(features.labels, class_names, classifier, only_its_classes)
    if alike := alike_note(classifier.text_weights, classifier.class_names):
        log.warning(alike)
    digests = features.digests or [""] * len(features)
    doubtful = set() if keep_conflicting else _under_two_labels(features, classifier.info)
    conflicting = torch.tensor([one in doubtful for one in digests], dtype=torch.bool)
    seen = torch.tensor([one in classifier.train_digests for one in digests], dtype=torch.bool)
    seen &= ~conflicting
    rows = (~(conflicting if keep_seen else conflicting | seen)).nonzero()[:, 0]
    counts = {
        "left_out": 0 if keep_seen else int(seen.sum()),
        "conflicting": int(conflicting.sum()),
        "held_out": held_out,
    }
    if not len(rows):
        whys = why_not_scored(
            counts["left_out"], counts["conflicting"], len(skipped), copies=held_out > 0
        )
        raise DataError(
            f"{name} has no picture to score{whys and ': '}{whys}.",
            hint="Give pictures that were not used by 'fit', or fit with --shots on fewer.",
        )
    scores = [classifier.logits(features.subset(rows))]
    if classifier.text_weights is not None and plain is not None:
        scores.append(classifier.zero_shot_logits(plain.subset(rows)))
    if only_its_classes:
        scores = [_among(logits, classifier, class_names) for logits in scores]
    class_names, labels = classifier.class_names, labels[rows]
    top1, confusion, accuracies = _counted(scores[0], labels)
    zero_shot_top1, _, untrained = _counted(scores[1], labels) if scores[1:] else (None, None, None)
    sure = scores[0].softmax(-1).max(-1)
    paths = features.names or [str(row) for row in range(len(features))]
    present = [accuracy for accuracy in accuracies if accuracy is not None]
    return Report(
        n=len(labels),
        top1=top1,
        top5=_top_k(scores[0], labels, TOP) if len(class_names) > TOP else None,
        mean_per_class=sum(present) / len(present),
        zero_shot_top1=zero_shot_top1,
        per_class=dict(zip(class_names, accuracies, strict=True)),
        zero_shot_per_class=dict(zip(class_names, untrained, strict=True)) if untrained else None,
        class_counts=dict(zip(class_names, confusion.sum(1).tolist(), strict=True)),
        confusion=confusion.tolist(),
        class_names=list(class_names),
        method=str(classifier.info.get("method", "classifier")),
        data=name,
        seen_in_training=int(seen.sum()),
        **counts,
        skipped=list(skipped),
        selection=list(classifier.info.get("selection", [])),
        selection_zero_shot=(classifier.info.get("held_out") or {}).get("zero_shot_accuracy"),
        answers=[
            Answer(paths[row], class_names[label], class_names[answer], probability)
            for row, label, answer, probability in zip(
                rows.tolist(),
                labels.tolist(),
                sure.indices.tolist(),
                sure.values.tolist(),
                strict=True,
            )
        ],
    )


def _under_two_labels(features: FeatureSet, info: Mapping[str, Any]) -> set[str]:
    """The contents that lie under two labels or more, here or where it was trained."""
    # Features may have no digests at all.
    pairs = {*zip(features.digests, features.labels.tolist(), strict=False)}
    times = Counter(digest for digest, _ in pairs if digest)
    return {digest for digest, count in times.items() if count > 1} | {*info.get("conflicting", [])}


def _among(logits: Tensor, classifier: Classifier, names: list[str]) -> Tensor:
    """``logits`` (N, C), with -inf for classes that are not among ``names``.

    Classes of one name (ImageNet has two "missile") are one answer, at the place of the first.
    """
    if names == classifier.class_names:
        return logits
    kept = torch.full_like(logits, -torch.inf)
    for name in {*names} & {*classifier.class_names}:
        alike = [i for i, one in enumerate(classifier.class_names) if one == name]
        kept[:, alike[0]] = logits[:, alike].amax(1)
    return kept


def open_for(
    classifier: Classifier, data: str | Path | DataSpec, split: str, given: Mapping[str, Any]
) -> Source:
    """The source of ``data``, read as the training data was and fit for ``classifier``.

    Args:
        classifier: what is to score it.
        data: as for :func:`evaluate`.
        split: of it.
        given: fields of :class:`~clip_adapter.options.SourceOptions`.

    Raises:
        UsageError: an option that would be ignored, or a set that ``split`` does not mean.
        DataError: no such split; features that another backbone made, or not the one with what was
            trained inside.
    """
    info = classifier.info
    if given.get("backbone") not in (None, info.get("backbone")):
        raise UsageError(
            f"backbone={given['backbone']!r}: the classifier was made with "
            f"{classifier.backbone_name}, and only that is used.",
            hint="Leave it away, or fit another classifier.",
        )
    own = "dtype", "runtime"
    given = {name: v for name, v in given.items() if name not in own or v != info.get(name)}
    options = source_options({**given, "backbone": None})
    ignored = "prompts", "descriptions", *own, "views"
    refuse("The classifier", "its backbone and text", ignored, options)
    to_unit = classifier.feature_norm == "unit" and options.feature_norm == "auto"
    source = open_source(
        data,
        options,
        preprocess=given.get("preprocess", info.get("preprocess", "clip")),
        feature_norm="unit" if to_unit else options.feature_norm,
    )
    if "pixels" in source.holds:
        # A split that is not there is told before a backbone is loaded.
        source.labels("train" if split == HELD_OUT else split)
        # What is stored must be of the weights as they are now.
        classifier.backbone(given.get("device"), renew=True)
        source.use(classifier.encoder())
    elif classifier.tower_adapter is not None:
        raise DataError(
            f"{source.name} holds features of a backbone as it was; {info.get('method')} trained "
            "inside it.",
            hint="Give the pictures.",
        )
    if source.set_name is not None and split not in (DEFAULT_SPLIT, HELD_OUT, source.set_name):
        raise UsageError(
            f"The split {split!r} is asked of {source.name}, where the name after # is the set.",
            hint=f"Leave the split away, or name the set: {source.name.rpartition('#')[0]}#{split}",
        )
    ours, theirs = info.get("backbone_fingerprint"), source.fingerprint
    made_by, trained_on = source.made_by()["backbone"], info.get("backbone")
    if ours and theirs and ours != theirs:
        made, trained = told_apart(theirs, ours)
        raise DataError(
            f"{source.name} was made by {made_by or 'a backbone'} with the "
            f"weights {made}; the classifier was trained on {classifier.backbone_name}, "
            f"{trained}.",
            hint="Embed the pictures with the classifier's backbone.",
        )
    if not (ours and theirs) and made_by and trained_on and made_by != trained_on:
        log.warning(
            f"{source.name} says that {made_by!r} made its features; the classifier was "
            f"trained on those of {trained_on!r}. If these are not the same, scores mean nothing: "
            f"embed the pictures with {trained_on!r}, or fit again on features of {made_by!r}."
        )
    return source


def _named_as_trained(features: FeatureSet, classifier: Classifier) -> list[str]:
    """What the classes of ``features`` are called, by the names that were given at training.

    Raises:
        DataError: what they are called are labels that were given other names, and also names.
    """
    theirs, renamed = features.class_names, classifier.info.get("renamed", {})
    present = {theirs[i] for i in features.labels.tolist() if i >= 0}
    if theirs == classifier.class_names or not present or not present <= renamed.keys():
        return theirs
    changed = sorted(f"{name!r} is {renamed[name]!r}" for name in present if renamed[name] != name)
    if changed and present <= {*classifier.class_names}:
        raise DataError(
            f"Whether the classes {listed(sorted(present))} are meant by their labels is not sure: "
            f"at training {some_of(changed)}, and these are names of classes as well.",
            hint="Say what each is called by --class-names.",
        )
    if changed:
        log.info(f"Classes are called as at training: {some_of(changed)}.")
    return [renamed.get(name, name) for name in theirs]


def _map_labels(labels: Tensor, theirs: list[str], classifier: Classifier, by_name: bool) -> Tensor:
    """``labels`` (N,) of classes called ``theirs`` as the classifier counts them: matched by name.

    With ``by_name``, classes of the classifier that are called alike are one, the first of them.
    """
    if unlabelled := int((labels < 0).sum()):
        raise DataError(
            f"{unlabelled} of {len(labels)} rows have no label.",
            hint="Label them, or leave them out; 'predict' needs no labels.",
        )
    ours = classifier.class_names
    if theirs == ours:
        return labels
    for whose, names in {"test data": theirs, "classifier": [] if by_name else ours}.items():
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise DataError(
                f"The {whose} has {len(twice)} class names twice ({', '.join(twice[:3])}), so "
                "classes cannot be matched by name, and the two lists of classes differ.",
                hint="Give both the same list in the same order, or make the names unique.",
            )
    position = {name: i for i, name in reversed(list(enumerate(ours)))}
    if unknown := sorted({theirs[i] for i in labels.tolist()} - set(position)):
        classes = counted(len(unknown), "class of the test data is", "classes of the test data are")
        raise DataError(
            f"{classes} unknown to the classifier: {listed(unknown)}.",
            allowed=", ".join(ours[:20]) + (" ..." if len(ours) > 20 else ""),
            hint="Name the classes as at training (--class-names), or remove them.",
        )
    return torch.tensor([position.get(name, -1) for name in theirs])[labels]


def _top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Percent of the rows of logits (N, C) whose label (N,) is among the k highest."""
    best = logits.topk(k, dim=1).indices
    return 100.0 * (best == labels[:, None]).any(1).double().mean().item()


def _counted(logits: Tensor, labels: Tensor) -> tuple[float, Tensor, list[float | None]]:
    """Accuracy (%) of logits (N, C), counts (C, C), row = true class, and accuracy of each class.

    A class without pictures has none.
    """
    classes = logits.shape[1]
    cells = torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2)
    confusion = cells.view(classes, classes)
    counts = confusion.sum(1)
    shares = 100.0 * confusion.diagonal().double() / counts.clamp(min=1)
    by_class = [s if n else None for s, n in zip(shares.tolist(), counts, strict=True)]
    return _top_k(logits, labels, 1), confusion, by_class
