"""``load_folder``: pictures in class folders, with or without splits above them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from clip_adapter.datasets.class_names import ClassNames, nfc
from clip_adapter.datasets.dataset import UNSPLIT, Dataset, Sample, known_split, make_dataset
from clip_adapter.datasets.templates import known_dataset
from clip_adapter.datasets.walk import files_below, folders, is_picture, pictures
from clip_adapter.errors import DataError
from clip_adapter.wording import counted, listed, shown

LAYOUTS = "FOLDER/class/picture.jpg, or FOLDER/train|val|test/class/picture.jpg"
_HOW = "Put the pictures of each class into a folder of its own."
# Names that say nothing of the data set; the folder above does.
_GENERIC = ("2750", "images", "jpg", "data", "101_ObjectCategories", "UCF-101-midframes")


@dataclass
class _Content:
    """What a folder holds: picture paths by split and label, and what was left out."""

    pictures: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    other_endings: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, split: str, class_folder: Path) -> None:
        """Add the pictures in and below ``class_folder``, all of one class, to ``split``."""
        classes = self.pictures.setdefault(split, {})
        paths = classes.setdefault(nfc(class_folder.name), [])
        for entry in files_below(class_folder):
            # A pipe is none, whatever it is called; a link that leads nowhere is a broken one.
            if is_picture(entry.name) and (entry.is_symlink() or entry.is_file()):
                paths.append(Path(entry.path))
            else:
                self.other_endings[os.path.splitext(entry.name)[1].lower()] += 1

    def note_loose(self, folder: Path) -> None:
        """Note the pictures directly in ``folder``, which have no class."""
        if loose := pictures(folder):
            self.notes.append(
                f"{counted(len(loose), 'picture')} directly in {shown(folder)} without a class "
                "folder: left out. Move them into the folder of their class to have them read."
            )

    def note_others(self) -> None:
        """Note how many files are no pictures, by their endings."""
        if self.other_endings:
            each = (f"{n} {end or 'without ending'}" for end, n in self.other_endings.items())
            self.notes.append(
                f"{counted(self.other_endings.total(), 'file')} left out, not pictures by their "
                f"ending ({', '.join(each)})."
            )


def load_folder(root: str | Path, class_names: ClassNames | None = None) -> Dataset:
    """Read ``root/class/...`` (split "all") or ``root/train|val|test/class/...``.

    Classes are the folder names, sorted; pictures in deeper folders belong to their class;
    pictures are sorted by path. ``training``, ``valid``, ``validation``, ``dev`` and ``testing``
    are understood. A class folder without pictures stays a class. Hidden files are skipped, files
    with other endings counted in the notes. A folder that holds one folder only is looked into.

    Args:
        root: the folder.
        class_names: names for the prompts, see :func:`~.class_names.name_classes`.

    Raises:
        DataError: no such folder, or no class folders with pictures in it.
        UsageError: ``class_names`` does not fit the classes.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"The folder {shown(root)} {what}.", allowed=LAYOUTS)
    content = _Content()
    base = _descend(root)
    if base != root:
        content.notes.append(f"The classes were found in {shown(base.relative_to(root))}/.")
    inside = folders(base)
    split_folders = _split_folders(base, inside)
    content.note_loose(base)
    for folder in split_folders:
        for class_folder in folders(folder):
            content.add(known_split(folder.name) or UNSPLIT, class_folder)
        content.note_loose(folder)
    others = [folder for folder in inside if folder not in split_folders]
    if split_folders and others:
        names = listed(folder.name for folder in others)
        content.notes.append(f"Not train, val or test, left out: {names}.")
    elif others:
        for class_folder in others:
            content.add(UNSPLIT, class_folder)
    content.note_others()
    return _dataset(root, content, class_names)


def _dataset(root: Path, content: _Content, class_names: ClassNames | None) -> Dataset:
    labels = sorted({label for classes in content.pictures.values() for label in classes})
    splits = {
        split: [
            Sample(shown(path.relative_to(root).as_posix()), index, path)
            for index, label in enumerate(labels)
            for path in sorted(classes.get(label, []), key=lambda path: path.as_posix())
        ]
        for split, classes in content.pictures.items()
    }
    if not any(splits.values()):
        what = f"class folders {listed(labels)}, but no picture" if labels else "no class folder"
        raise DataError(
            f"The folder {shown(root)} has {what} in it.",
            allowed=LAYOUTS,
            hint=" ".join(content.notes) or _HOW,
        )
    full = root.resolve()
    own = full.parent.name if full.name in _GENERIC else full.name
    name = known_dataset(own) or shown(full.name) or "pictures"
    return make_dataset(name, labels, splits, class_names, content.notes)


def _descend(base: Path) -> Path:
    """``base``, or the folder in it where it only wraps one, as an unpacked archive does."""
    inside = folders(base)
    if len(inside) != 1 or pictures(base) or known_split(inside[0].name) or not folders(inside[0]):
        return base
    return _descend(inside[0])


def _split_folders(base: Path, inside: list[Path]) -> list[Path]:
    """The folders that are splits: named so and holding folders.

    A class may be called "train" too, so one such name among others is a class.
    """
    named = [folder for folder in inside if known_split(folder.name)]
    structured = [folder for folder in named if folders(folder)]
    if len(structured) >= 2 or (structured and len(named) == len(inside)):
        return structured
    if named and len(named) == len(inside):
        raise DataError(
            f"In {shown(base)}, {listed(folder.name for folder in named)} have no class folders.",
            allowed=LAYOUTS,
            hint=_HOW,
        )
    return []
