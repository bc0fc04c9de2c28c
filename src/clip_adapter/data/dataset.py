"""``Dataset`` and ``Sample``: labelled pictures with their class names, templates and splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from clip_adapter.data.guard import check_opening
from clip_adapter.errors import DataError

SPLITS = ("train", "val", "test")
UNSPLIT = "all"


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
