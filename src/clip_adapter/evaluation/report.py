"""``Report``: what ``evaluate`` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from clip_adapter.wording import class_rows, counted, html_table, listed, text_table

FEW = 5  # scored pictures of a class; fewer are told to prove little


class Answer(NamedTuple):
    """What a classifier said of a picture, whose ``label`` is known.

    ``path`` starts where the paths of its data start; ``probability`` is that of ``answer``.
    """

    path: str
    label: str
    answer: str
    probability: float


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
        conflicting: pictures that lie under two labels or more, here or where it was trained;
            they are not scored.
        held_out: pictures that ``fit`` kept apart, of which these are; 0 of any other split.
        skipped: pictures that could not be read, with the reason.
        answers: what it said of each scored picture.
        selection: the curves of the cross-validation on the shots.
        selection_zero_shot: zero-shot CLIP on the shots that it held out, mean over the classes;
            None where it is not known.
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
    conflicting: int = 0
    held_out: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    selection: list[dict[str, Any]] = field(default_factory=list)
    selection_zero_shot: float | None = None
    answers: list[Answer] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; no answers, nor the confusion matrix where it has over 100 classes."""
        large = {"confusion": None} if len(self.class_names) > 100 else {}
        plain = asdict(replace(self, answers=[])) | large
        return {name: value for name, value in plain.items() if name != "answers"}

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
            *self._thin_classes(),
            self._not_scored(),
        ]
        return [line for line in lines if line]

    def _thin_classes(self) -> list[str]:
        """Which classes have no scored picture, and which so few that they prove little."""
        none = [name for name, count in self.class_counts.items() if not count]
        few = [name for name, count in self.class_counts.items() if 0 < count < FEW]
        which = listed(few) if len(few) + len(none) < len(self.class_counts) else "each class"
        return [
            *([f"No picture of {listed(none)} was scored: not in this mean."] if none else []),
            *(
                [f"Fewer than {FEW} pictures of {which} were scored: they prove little."]
                * bool(few)
            ),
        ]

    def _not_scored(self) -> str:
        """How many pictures were scored, and why others were not; "" where all were."""
        bad = len(self.skipped)
        whys = why_not_scored(self.left_out, self.conflicting, bad, copies=bool(self.held_out))
        if not whys:
            return ""
        total = self.n + self.left_out + self.conflicting + bad
        what = f"{counted(total, 'picture')} that {'was' if total == 1 else 'were'} held out"
        return (
            f"Scored: {self.n} of {what if self.held_out else counted(total, 'picture')}; {whys}."
        )


def why_not_scored(seen: int, conflicting: int, bad: int, *, copies: bool = False) -> str:
    """Why so many pictures are not scored, each with its number; "" where all are.

    Args:
        seen: were trained on.
        conflicting: lie under two labels or more.
        bad: cannot be read.
        copies: those that were seen are copies of what was trained on.
    """
    is_copy = "is a copy of one that was", "are copies of such as were"
    whys = {
        f"{counted(seen, *(is_copy if copies else ('was', 'were')))} trained on": seen,
        f"{counted(conflicting, 'lies', 'lie')} under two labels or more": conflicting,
        f"{bad} cannot be read": bad,
    }
    return ", ".join(why for why, number in whys.items() if number)
