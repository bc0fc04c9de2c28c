"""``evaluate``: a classifier on a test split, and the ``Report`` of it."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_adapter.classifier import Classifier
from clip_adapter.errors import DataError, UsageError
from clip_adapter.features.feature_set import FeatureSet
from clip_adapter.features.text import alike_note
from clip_adapter.options import HELD_OUT, source_options
from clip_adapter.reporting import Notes, Progress, listening, log
from clip_adapter.sources import Source, open_source, refuse
from clip_adapter.wording import class_rows, counted, html_table, listed, text_table

DEFAULT_SPLIT = "test"
TOP = 5


@dataclass
class Report:
    """Accuracies are in percent.

    Attributes:
        method: of the classifier.
        data: what it was tested on.
        n: pictures that were scored.
        top1: share whose first answer is right.
        top5: share whose label is among the first five; None with five classes or fewer.
        mean_per_class: mean of the accuracies of the classes that have pictures.
        zero_shot_top1: zero-shot CLIP on the same pictures; None without text weights.
        per_class: accuracy by class name; None for a class without pictures.
        zero_shot_per_class: the same for zero-shot; None without text weights.
        class_counts: pictures by class name.
        confusion: (C, C) counts, row = true class.
        class_names: C names in label order.
        seen_in_training: pictures whose content was also among the training pictures.
        left_out: of those, how many were not scored.
        skipped: pictures that could not be read, with the reason.
        selection: the curves of the cross-validation on the shots.
    """

    method: str
    data: str
    n: int
    top1: float
    top5: float | None
    mean_per_class: float
    zero_shot_top1: float | None
    per_class: dict[str, float | None]
    zero_shot_per_class: dict[str, float | None] | None
    class_counts: dict[str, int]
    confusion: list[list[int]]
    class_names: list[str]
    seen_in_training: int = 0
    left_out: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    selection: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; without the confusion matrix where it has over 100 classes."""
        large = {"confusion": None} if len(self.class_names) > 100 else {}
        return dataclasses.asdict(self) | large

    def __str__(self) -> str:
        """The headline and the classes, worst first."""
        headings, rows, left = self._by_class()
        return "\n".join([*self.lines(), *text_table(headings, rows), *filter(None, [left])])

    def _repr_html_(self) -> str:
        headings, rows, left = self._by_class()
        return html_table([*self.lines(), left], headings, rows)

    def _by_class(self) -> tuple[list[str], list[list[str]], str]:
        return class_rows(self.per_class, self.class_counts, self.zero_shot_per_class)

    def lines(self) -> list[str]:
        """The headline, in words."""
        zero_shot = "not known, there are no text weights."
        if self.zero_shot_top1 is not None:
            gain = self.top1 - self.zero_shot_top1
            zero_shot = f"{self.zero_shot_top1:.2f} % (difference {gain:+.2f})."
        beware = self.seen_in_training and not self.left_out
        lines = [
            beware
            and f"Beware: {self.seen_in_training} of these {self.n} pictures were also trained on, "
            "so the accuracy is too high.",
            f"{self.method} on {self.data}: {self.top1:.2f} % of {self.n} pictures right.",
            f"Zero-shot CLIP: {zero_shot}",
            self.top5 is not None and f"Top 5: {self.top5:.2f} %.",
            f"Mean of the classes: {self.mean_per_class:.2f} %.",
            self.left_out and f"{self.left_out} pictures were left out: they were trained on.",
            self.skipped and f"{len(self.skipped)} pictures could not be read and were skipped.",
        ]
        return [line for line in lines if line]


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
        split: "test", "val" or "train"; a source without splits is taken whole. "held-out" is
            what ``fit`` kept apart: the pictures of "train" that the classifier did not learn
            from. The set of a feature file is named after its ``#`` instead.
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
        return _score(classifier, data, plain, "features", only_its_classes)
    with listening(progress, cancel), Notes():
        held_out = split == HELD_OUT
        opened = open_for(classifier, data, DEFAULT_SPLIT if held_out else split, source)
        split = "train" if held_out else split
        features, bad = opened.features(split)
        plain = features
        if classifier.tower_adapter is not None:
            plain, _ = opened.features(split, other=classifier.backbone())
        return _score(
            classifier,
            features,
            plain,
            opened.name,
            only_its_classes,
            [dataclasses.asdict(one) for one in bad],
            keep_seen=opened.has_splits and not held_out,
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
    name: str,
    only_its_classes: bool,
    skipped: Sequence[dict[str, str]] = (),
    *,
    keep_seen: bool = True,
) -> Report:
    """The report on features, with zero-shot on their ``plain`` ones of the untouched backbone."""
    labels = _map_labels(features, classifier, only_its_classes)
    if alike := alike_note(classifier.text_weights, classifier.class_names):
        log.warning(alike)
    seen = torch.tensor([d in classifier.train_digests for d in features.digests], dtype=torch.bool)
    rows = torch.arange(len(features)) if keep_seen or not seen.any() else (~seen).nonzero()[:, 0]
    if not len(rows):
        raise DataError(
            f"{name} has no picture to score"
            + (": every one of them was trained on." if seen.any() else "."),
            hint="Give pictures that were not used by 'fit', or fit with --shots on fewer.",
        )
    scores = [classifier.logits(features.subset(rows))]
    if classifier.text_weights is not None and plain is not None:
        scores.append(classifier.zero_shot_logits(plain.subset(rows)))
    if only_its_classes:
        scores = [_among(logits, classifier, features) for logits in scores]
    class_names, labels = classifier.class_names, labels[rows]
    top1, confusion, accuracies = _counted(scores[0], labels)
    nothing = None, None, None
    zero_shot_top1, _, untrained = _counted(scores[1], labels) if scores[1:] else nothing
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
        left_out=len(features) - len(rows),
        skipped=list(skipped),
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


def open_for(
    classifier: Classifier, data: str | Path, split: str, given: Mapping[str, Any]
) -> Source:
    """The source of ``data``, read as the training data was and fit for ``classifier``.

    Args:
        classifier: what is to score it.
        data: as for :func:`evaluate`.
        split: of it.
        given: fields of :class:`~clip_adapter.options.SourceOptions`.

    Raises:
        UsageError: an option that would be ignored, or a set that ``split`` does not mean.
        DataError: features that another backbone made, or not the one with what was trained inside.
    """
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
    ignored = "prompts", "descriptions", "dtype", "views"
    refuse("The classifier", "its backbone and text", ignored, options)
    to_unit = classifier.feature_norm == "unit" and options.feature_norm == "auto"
    source = open_source(
        data,
        options,
        preprocess=given.get("preprocess", info.get("preprocess", "clip")),
        feature_norm="unit" if to_unit else options.feature_norm,
    )
    if "pixels" in source.holds:
        source.use(classifier.encoder(given.get("device")))
    elif classifier.tower_adapter is not None:
        raise DataError(
            f"{source.name} holds features of a backbone as it was; {info.get('method')} trained "
            "inside it.",
            hint="Give the pictures.",
        )
    if source.set_name is not None and split not in (DEFAULT_SPLIT, source.set_name):
        raise UsageError(
            f"The split {split!r} is asked of {source.name}, where the name after # is the set.",
            hint=f"Leave the split away, or name the set: {source.name.rpartition('#')[0]}#{split}",
        )
    ours, theirs = info.get("backbone_fingerprint"), source.fingerprint
    if ours and theirs and ours != theirs:
        raise DataError(
            f"{source.name} was made by {source.made_by()['backbone'] or 'a backbone'} with the "
            f"weights {theirs[:12]}; the classifier was trained on {classifier.backbone_name}, "
            f"{ours[:12]}.",
            hint="Embed the pictures with the classifier's backbone.",
        )
    made_by, trained_on = source.made_by()["backbone"], info.get("backbone")
    if not (ours and theirs) and made_by and trained_on and made_by != trained_on:
        log.warning(
            f"Warning: {source.name} says that {made_by!r} made its features; the classifier was "
            f"trained on those of {trained_on!r}. If these are not the same, scores mean nothing."
        )
    return source


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
