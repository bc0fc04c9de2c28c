"""``Dataset`` and ``Sample``: labelled pictures with their class names, templates and splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.errors import DataError
from clip_adapter.wording import listed

SPLITS = ("train", "val", "test")
UNSPLIT = "all"
# Other people's words for the three splits.
SPLIT_ALIASES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Sample:
    """One labelled picture: a ``name`` to show, a ``label`` index and where its bytes are."""

    name: str
    label: int
    source: Path | Callable[[], bytes]

    def read(self) -> bytes:
        """The encoded bytes of the picture.

        Raises:
            OSError: the file cannot be read.
        """
        return self.source.read_bytes() if isinstance(self.source, Path) else self.source()


@dataclass
class Dataset:
    """Labelled pictures.

    Attributes:
        name: a short name, shown and saved.
        class_names: C names in label order, as they are put into the prompts.
        splits: samples by split; the keys are "train", "val", "test", or only "all" where the
            source has no splits.
        templates: prompt templates with one ``{}`` each.
        notes: what a user should know (an empty class, a renamed one), one line each.
        copy_of: the repository on the hub that stands in for the original of a known data set.
    """

    name: str
    class_names: list[str]
    splits: dict[str, list[Sample]]
    templates: list[str] = field(default_factory=lambda: ["a photo of a {}."])
    notes: list[str] = field(default_factory=list)
    copy_of: str = ""

    @property
    def has_splits(self) -> bool:
        """Whether the source told training from test pictures."""
        return UNSPLIT not in self.splits

    def pool(self, split: str) -> list[Sample]:
        """Samples of ``split``; all of them where the source has no splits.

        Raises:
            DataError: the source has splits, and not this one.
            LeakError: a method is being fitted.
        """
        check_opening(f"the split {split!r} of {self.name}")
        if not self.has_splits:
            return self.splits[UNSPLIT]
        if not self.splits.get(split):
            found = ", ".join(f"{k} ({len(v)})" for k, v in self.splits.items()) or "none"
            raise DataError(
                f"{self.name} has no pictures in split {split!r}; its splits: {found}.",
                hint=f"Add a {split}/ folder, or rows with split={split}.",
            )
        return self.splits[split]


def class_notes(class_names: Sequence[str], splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """A line for every thing about the classes that a user should know."""
    held = {split: {sample.label for sample in samples} for split, samples in splits.items()}
    anywhere = set().union(*held.values())
    notes = _gap(class_names, [i for i in range(len(class_names)) if i not in anywhere], "")
    for split in ("train", "test"):
        if held.get(split):
            gap = [i for i in sorted(anywhere) if i not in held[split]]
            notes += _gap(class_names, gap, f" in {split}")
    if len(class_names) == 1:
        notes.append(f"There is only one class, {class_names[0]!r}: nothing can be told apart.")
    return notes


def _gap(class_names: Sequence[str], gap: list[int], where: str) -> list[str]:
    if not gap:
        return []
    if len(gap) == 1:
        return [f"Class {class_names[gap[0]]!r} has no pictures{where}."]
    names = listed(class_names[i] for i in gap)
    return [f"{len(gap)} classes have no pictures{where}: {names}."]


def present(splits: Mapping[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The splits that hold pictures, in the order train, val, test."""
    return {s: splits[s] for s in ("train", "val", "test", UNSPLIT) if splits.get(s)}
