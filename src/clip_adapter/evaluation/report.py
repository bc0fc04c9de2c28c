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
        confusion = self.confusion if len(self.class_names) <= 100 else None
        return dataclasses.asdict(self) | {"confusion": confusion}

    def lines(self) -> list[str]:
        """The headline, in words."""
        right = f"{self.method} on {self.data}: {self.top1:.2f} % of {self.n} pictures right."
        zero_shot = "Zero-shot CLIP: not known, there are no text weights."
        if self.zero_shot_top1 is not None:
            gain = self.top1 - self.zero_shot_top1
            zero_shot = f"Zero-shot CLIP: {self.zero_shot_top1:.2f} % (difference {gain:+.2f})."
        lines = [right, zero_shot, f"Mean of the classes: {self.mean_per_class:.2f} %."]
        if self.top5 is not None:
            lines.insert(2, f"Top 5: {self.top5:.2f} %.")
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
    labels: Tensor,
    logits: Tensor,
    zero_shot: Tensor | None = None,
    **others: Any,
) -> Report:
    """The report on scores.

    Args:
        class_names: C names.
        labels: (N,), of N pictures, 1 or more.
        logits: (N, C).
        zero_shot: (N, C) of zero-shot CLIP, or None.
        **others: the fields that are not counted from these.
    """
    confusion, accuracies = _by_class(logits, labels)
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    zero_shot_by_class = None
    if zero_shot is not None:
        _, untrained = _by_class(zero_shot, labels)
        zero_shot_by_class = dict(zip(class_names, untrained, strict=True))
    return Report(
        n=len(labels),
        top1=_top_k(logits, labels, 1),
        top5=_top_k(logits, labels, TOP) if len(class_names) > TOP else None,
        mean_per_class=sum(known) / len(known),
        zero_shot_top1=None if zero_shot is None else _top_k(zero_shot, labels, 1),
        per_class=dict(zip(class_names, accuracies, strict=True)),
        zero_shot_per_class=zero_shot_by_class,
        class_counts=dict(zip(class_names, confusion.sum(1).tolist(), strict=True)),
        confusion=confusion.tolist(),
        class_names=list(class_names),
        **others,
    )


def _top_k(logits: Tensor, labels: Tensor, k: int) -> float:
    """Percent of the rows of logits (N, C) whose label (N,) is among the k highest."""
    best = logits.topk(k, dim=1).indices
    return 100.0 * (best == labels[:, None]).any(1).double().mean().item()


def _by_class(logits: Tensor, labels: Tensor) -> tuple[Tensor, list[float | None]]:
    """Counts (C, C), row = true class, and the accuracy of each class that has pictures."""
    cells = labels * logits.shape[1] + logits.argmax(1)
    confusion = torch.bincount(cells, minlength=logits.shape[1] ** 2).view(-1, logits.shape[1])
    counts = confusion.sum(1)
    shares = 100.0 * confusion.diagonal().double() / counts.clamp(min=1)
    return confusion, [s if n else None for s, n in zip(shares.tolist(), counts, strict=True)]
