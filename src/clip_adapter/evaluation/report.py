"""``Report``: the result of an evaluation, as a plain record and in words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

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
        record = dataclasses.asdict(self)
        if len(self.class_names) > 100:
            record["confusion"] = None
        return record

    def lines(self) -> list[str]:
        """The headline, in words."""
        lines = [f"{self.method} on {self.data}: {self.top1:.2f} % of {self.n} pictures right."]
        if self.zero_shot_top1 is None:
            lines.append("Zero-shot CLIP: not known, there are no text weights.")
        else:
            gain = self.top1 - self.zero_shot_top1
            lines.append(f"Zero-shot CLIP: {self.zero_shot_top1:.2f} % (difference {gain:+.2f}).")
        if self.top5 is not None:
            lines.append(f"Top 5: {self.top5:.2f} %.")
        lines.append(f"Mean of the classes: {self.mean_per_class:.2f} %.")
        if self.left_out:
            lines.append(f"{self.left_out} pictures were left out: they were trained on.")
        elif self.seen_in_training:
            lines.append(
                f"Beware: {self.seen_in_training} of these pictures were also trained on, "
                "so the accuracy is too high."
            )
        if self.skipped:
            lines.append(f"{len(self.skipped)} pictures could not be read and were skipped.")
        return lines


def make_report(
    class_names: list[str],
    logits: Tensor,
    zero_shot: Tensor | None,
    labels: Tensor,
    **others: Any,
) -> Report:
    """The report on scores.

    Args:
        class_names: C names.
        logits: (N, C), of N pictures, 1 or more.
        zero_shot: (N, C) of zero-shot CLIP, or None.
        labels: (N,).
        **others: the fields that are not counted from these.
    """
    confusion = confusion_matrix(logits, labels)
    accuracies = per_class_accuracy(confusion)
    present = [accuracy for accuracy in accuracies if accuracy is not None]
    untrained = None
    if zero_shot is not None:
        by_class = per_class_accuracy(confusion_matrix(zero_shot, labels))
        untrained = dict(zip(class_names, by_class, strict=True))
    return Report(
        n=len(labels),
        top1=top_k(logits, labels, 1),
        top5=top_k(logits, labels, TOP) if len(class_names) > TOP else None,
        mean_per_class=sum(present) / len(present),
        zero_shot_top1=None if zero_shot is None else top_k(zero_shot, labels, 1),
        per_class=dict(zip(class_names, accuracies, strict=True)),
        zero_shot_per_class=untrained,
        class_counts=dict(zip(class_names, confusion.sum(1).tolist(), strict=True)),
        confusion=confusion.tolist(),
        class_names=list(class_names),
        **others,
    )


def top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Share of rows of logits (N, C) whose label (N,) is among the k highest; k is cut to C."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return 100.0 * (best == labels[:, None]).any(1).double().mean().item()


def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """(C, C) counts of logits (N, C): row = true class, column = predicted class."""
    classes = logits.shape[1]
    cells = labels * classes + logits.argmax(1)
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def per_class_accuracy(confusion: Tensor) -> list[float | None]:
    """Accuracy of each class; None for a class without pictures."""
    counts = confusion.sum(1)
    shares = 100.0 * confusion.diagonal().double() / counts.clamp(min=1)
    return [s if n else None for s, n in zip(shares.tolist(), counts.tolist(), strict=True)]
