"""``Dataset`` and ``Sample``: labelled pictures with their class names, templates and splits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clip_adapter.datasets.class_names import ClassNames, name_classes
from clip_adapter.datasets.labels import label_notes
from clip_adapter.datasets.leak_guard import check_opening
from clip_adapter.datasets.templates import known_dataset, resolve_templates
from clip_adapter.datasets.walk import SPECIAL
from clip_adapter.errors import DataError, DecodeError
from clip_adapter.wording import as_utf8, listed, printable, shown

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
            DecodeError: it is a pipe, a device or a socket; it is not opened.
        """
        if not isinstance(self.source, Path):
            return self.source()
        info = os.stat(self.source)
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):  # may have no end
            raise DecodeError(f"{self.name}: {SPECIAL}, no picture.", hint="Give a file.")
        # In half of the system calls of read_bytes: around each of them a thread gives up the
        # interpreter's lock, and waits for it again.
        file = os.open(self.source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            data = os.read(file, info.st_size + 1)
        finally:
            os.close(file)
        # Else a file that grows.
        return data if len(data) == info.st_size else self.source.read_bytes()


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
        renamed: the names that the user gave, by those that the source itself has for its classes.
    """

    name: str
    class_names: list[str]
    splits: dict[str, list[Sample]]
    templates: list[str] = field(default_factory=lambda: ["a photo of a {}."])
    notes: list[str] = field(default_factory=list)
    copy_of: str = ""
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def has_splits(self) -> bool:
        """Whether the source separates training from test pictures."""
        return UNSPLIT not in self.splits

    @property
    def has_test(self) -> bool:
        """Whether some of its pictures are for testing alone."""
        return bool(self.splits.get("test"))

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
            sizes = ", ".join(f"{k} ({len(v)})" for k, v in self.splits.items()) or "none"
            raise DataError(
                f"{self.name} has no pictures in split {split!r}; its splits: {sizes}.",
                hint=f"Add a {split}/ folder, or rows with split={split}.",
            )
        return self.splits[split]


def known_split(word: str) -> str | None:
    """The split that ``word`` names, as other people may write it; None where it names none."""
    return SPLIT_ALIASES.get(word.lower())


def make_dataset(
    name: str,
    labels: Sequence[str],
    splits: Mapping[str, list[Sample]],
    class_names: ClassNames | None = None,
    notes: Iterable[str] = (),
    copy_of: str = "",
    *,
    inside: str = "",
    own_order: bool = False,
) -> Dataset:
    """A data set, its templates by its name, with notes on its classes before ``notes``.

    Args:
        name: what it is called where it is; a data set that this spells gives its name and its
            templates, see :func:`~clip_adapter.datasets.templates.known_dataset`.
        inside: the folder it is in, which may spell such a data set as well.
        labels: C labels of the source.
        splits: samples by split; those without any are left out.
        class_names: other names for ``labels``, see :func:`~.class_names.name_classes`.
        notes: what else a user should know.
        copy_of: see :class:`Dataset`.
        own_order: see :func:`~.class_names.name_classes`.

    Raises:
        UsageError: ``class_names`` does not fit ``labels``.
        DataError: their file cannot be read, or a label is no text, as of a folder whose name is
            not UTF-8.
    """
    for label in labels:
        if (readable := as_utf8(label)) != label:
            raise DataError(
                f"The name of the class {printable(readable)!r} is not UTF-8.",
                hint="Rename its folder; old archives keep such names.",
            )
    name = known_dataset(name, inside) or shown(name)
    names = name_classes(labels, class_names, own_order=own_order)
    present = {s: splits[s] for s in (*SPLITS, UNSPLIT) if splits.get(s)}
    held = {split: {sample.label for sample in samples} for split, samples in present.items()}
    anywhere = set().union(*held.values())
    gaps = {"": set(range(len(names))) - anywhere}
    gaps |= {f" in {s}": anywhere - held[s] for s in ("train", "test") if s in held}
    on_classes = [
        f"Class {names[min(gap)]!r} has no pictures{where}."
        if len(gap) == 1
        else f"{len(gap)} classes have no pictures{where}: {listed(names[i] for i in sorted(gap))}."
        for where, gap in gaps.items()
        if gap
    ]
    notes = [*on_classes, *notes, *label_notes(labels, named=class_names is not None)]
    renamed = {} if class_names is None else dict(zip(name_classes(labels), names, strict=True))
    return Dataset(name, names, present, resolve_templates(None, name), notes, copy_of, renamed)
