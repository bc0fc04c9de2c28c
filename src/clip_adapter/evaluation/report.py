"""``Report``: what an evaluation found, as a plain record and as a table to read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


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
        out = [f"{self.method} on {self.data}: {self.top1:.2f} % of {self.n} pictures right."]
        if self.zero_shot_top1 is not None:
            gain = self.top1 - self.zero_shot_top1
            out.append(f"Zero-shot CLIP: {self.zero_shot_top1:.2f} % (difference {gain:+.2f}).")
        else:
            out.append("Zero-shot CLIP: not known, there are no text weights.")
        if self.top5 is not None:
            out.append(f"Top 5: {self.top5:.2f} %.")
        out.append(f"Mean of the classes: {self.mean_per_class:.2f} %.")
        if self.left_out:
            out.append(f"{self.left_out} pictures were left out: they were trained on.")
        elif self.seen_in_training:
            out.append(
                f"Beware: {self.seen_in_training} of these pictures were also trained on, "
                "so the accuracy is too high."
            )
        if self.skipped:
            out.append(f"{len(self.skipped)} pictures could not be read and were skipped.")
        return out
